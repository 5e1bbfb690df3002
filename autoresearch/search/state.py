"""What follows from the journal: the incumbent, the standing, what was tried, what a proposer may know.

Owns the invariant that none of it is remembered elsewhere: all can be rebuilt from journal and git. Each is
kept up to date instead of computed anew, so that the thousandth experiment costs what the first did. Only
`sources` and `seen` may be called from other threads than the search's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autoresearch.edit.python import fingerprint
from autoresearch.judge.least_gain import least_gain
from autoresearch.propose.base import Context
from autoresearch.report.standing import Tally
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.notes import current_brief
from autoresearch.tasks.base import Task
from autoresearch.types import Draft, Experiment, State

REMEMBERED = 32
"""Commits whose sources are kept in memory."""


class SearchState:
    """One search so far; `editable` are the paths that candidates may change."""

    def __init__(self, journal: Journal, repository: Repository, editable: Iterable[str]) -> None:
        """Prepare; everything is read when it is first needed.

        Args:
            journal: The search.
            repository: Where its commits are.
            editable: Paths that candidates may change.
        """
        self._journal = journal
        self._repository = repository
        self.editable = tuple(editable)
        self._tally = Tally()
        self._sources: dict[str, dict[str, str]] = {}
        self._seen: dict[str, int] = {}
        self._last_seen = -1
        self._lock = threading.Lock()
        self._incumbent: Experiment | None = None
        self._searched = 0
        self._win: tuple[str, float | None] = "", None

    @property
    def tried(self) -> int:
        """How many experiments there are, the baseline not counted."""
        return len(self._journal.experiments()) - 1

    @property
    def unfinished(self) -> Experiment | None:
        """The experiment that was begun and is not recorded yet."""
        last = self._journal.experiments()[-1]
        return last if last.number and last.state is not State.RECORDED else None

    @property
    def incumbent(self) -> Experiment:
        """The latest that was kept and recorded; the baseline, if none was."""
        experiments = self._journal.experiments()
        for experiment in experiments[self._searched :]:
            if experiment.number and experiment.state is not State.RECORDED:
                break
            self._searched = experiment.number + 1
            if experiment.kept:
                self._incumbent = experiment
        return self._incumbent or experiments[0]

    def standing(self) -> tuple[float, float]:
        """The incumbent's score and the noise, as the report will tell them."""
        now = self._tally.standing(self._journal.experiments())
        assert now.best, "there is a baseline before anything is asked for"
        return now.best.level.mean, now.noise or 0.0

    def sources(self, commit: str) -> dict[str, str]:
        """The editable files at a commit: path -> text."""
        with self._lock:
            if commit not in self._sources:
                while len(self._sources) >= REMEMBERED:
                    del self._sources[next(iter(self._sources))]
                self._sources[commit] = self._repository.sources(commit, self.editable)
            return dict(self._sources[commit])

    def seen(self) -> Mapping[str, int]:
        """Fingerprint -> number, of every program tried so far, those under way included."""
        for number, known in self._journal.fingerprints(self._last_seen).items():
            if not known:  # the baseline, and what an older version wrote
                experiment = self._journal.experiment(number)
                proposed = experiment.commit or experiment.parent
                known = fingerprint(self.sources(proposed))
                if experiment.commit:
                    self._journal.set_fingerprint(number, known)
            with self._lock:
                self._seen.setdefault(known, number)
                self._last_seen = max(self._last_seen, number)
        with self._lock:
            return dict(self._seen)

    def context(self, search: str, seed: int, brief: Path, notes: tuple[str, ...], task: Task) -> Context:
        """All that a proposer may know now.

        Args:
            search: Its name.
            seed: Its seed.
            brief: The file that steers the research; read each time, and a change is written down.
            notes: What a person has said since.
            task: What is improved.
        """
        experiments = self._journal.experiments()
        score, noise = self.standing()
        best = self.incumbent
        measured = [
            t.result.metrics for t in best.trials if t.result and t.arm != "incumbent" and t.score is not None
        ]
        facts = {k: v for k, v in measured[-1].items() if not k.endswith("_bpb")} if measured else {}
        config = self._journal.info().config
        waiting = (
            Experiment(number, State.PROPOSED, draft.parent, draft.created, proposal=draft.proposal)
            for number, draft in self.waiting()
        )
        return Context(
            search=search,
            brief=current_brief(self._journal, brief),
            sources=self.sources(best.commit),
            baseline_sources=self.sources(self._journal.info().base_commit),
            history=tuple(e for e in experiments if e.number == 0 or e.verdict is not None),
            incumbent_score=score,
            noise=noise,
            facts=facts,
            notes=notes,
            seed=seed,
            under_way=(*(e for e in experiments[-2:] if e.number and e.verdict is None), *waiting),
            win=self._least_gain(score, noise),
            memory_mb=_memory(config, facts),
            task=task.prompt(),
            metric=task.metric,
        )

    def waiting(self) -> Iterator[tuple[int, Draft]]:
        """What was proposed ahead, and the number that each will have."""
        return enumerate(self._journal.drafts(), self.tried + 1)

    def _least_gain(self, score: float, noise: float) -> float | None:
        """What the judge calls a win; while it is busy with a candidate, what it said before."""
        state = self._journal.judge_state() or ""
        if state and state != self._win[0]:
            win = least_gain(state, score, noise)
            self._win = state, self._win[1] if win is None else win
        return self._win[1]


def _memory(config: Mapping[str, Any], facts: Mapping[str, float]) -> float | None:
    """Memory of the device in MB: as measured, or on a CPU what the sandbox allows."""
    if "device_memory_mb" in facts:
        return facts["device_memory_mb"]
    limits = (config.get("sandbox") or {}).get("limits") or {}
    on_gpu = any(name.startswith("gpu_") for name in facts)
    return None if on_gpu or "memory_gb" not in limits else 1000.0 * limits["memory_gb"]
