"""The state of a search, read from the journal: incumbent, its level, tried programs, context of proposers.

Invariant: the journal and git are enough to rebuild all of it. Each value is updated instead of computed
again, so that the thousandth experiment costs as much as the first. Threads other than the search's may call
only `sources`, `candidate` and `tried_as`.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from autoresearch.clock import now
from autoresearch.config import Config
from autoresearch.edit.candidate import make_candidate
from autoresearch.execute.places import device
from autoresearch.judge import AskBars, bars, idle, unknown_bars
from autoresearch.judge.limits.resources import GUARDS, guarded
from autoresearch.propose.base import Context
from autoresearch.report.estimates import Estimator
from autoresearch.report.sections.transfer import for_prompt
from autoresearch.search.devices import Devices
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.records.guards import accepted_guards
from autoresearch.store.records.notes import ABOUT, Brief, current_brief, read_diagnoses
from autoresearch.store.records.transfers import read_transfers
from autoresearch.tasks.base import Limit, Task, chosen_guards
from autoresearch.text import bars_text
from autoresearch.types import Candidate, Draft, Edit, Experiment, GuardMetric, Proposal, Split, State

REMEMBERED = 32
"""Commits whose sources are kept in memory, and candidates."""

BARS_SHARE = 8
"""What a gain must be is computed anew once verdicts fell on one in so many of the candidates in flight."""


class SearchState:
    """The state of one search."""

    def __init__(self, config: Config, journal: Journal, repository: Repository, task: Task) -> None:
        """Prepare; everything is read when it is first needed.

        Args:
            config: Of the search.
            journal: The journal.
            repository: The repository of its commits.
            task: The task.
        """
        self.config = config
        self.journal = journal
        self.repository = repository
        self.task = task
        self.devices = Devices(journal)
        self._estimator = Estimator()
        self._sources: dict[str, dict[str, str]] = {}
        self._candidates: dict[tuple[str, tuple[Edit, ...]], Candidate] = {}
        self._seen: dict[str, int] = {}
        self._last_seen = -1
        self._lock = threading.Lock()
        self._bars_of: tuple[str, AskBars] = "", unknown_bars
        self._bars_at = 0
        self.elsewhere: dict[str, str] = {}
        """Fingerprints of programs that need not be tried here, and why."""

    @property
    def column(self) -> int:
        """Which argument of `at(cpu, gpu)` counts."""
        return int(device(self.config) == "cuda")

    @property
    def tried(self) -> int:
        """Number of experiments without the baseline."""
        return self.journal.tried

    @property
    def open(self) -> tuple[Experiment, ...]:
        """The experiments that have begun and are not recorded yet, in the order of their numbers."""
        return self.journal.open()

    @property
    def incumbent(self) -> Experiment:
        """The latest that was kept and recorded; the baseline, if none was."""
        return self.kept[-1] if self.kept else self.journal.experiment(0)

    @property
    def kept(self) -> tuple[Experiment, ...]:
        """Every experiment that was kept and recorded, in the order of the verdicts."""
        return self.journal.kept()

    def standing(self) -> tuple[float, float]:
        """The incumbent's score and the noise, as the report shows them."""
        undecided = (e for e in self.open if e.verdict is None)
        found = self._estimator.estimate_ordered((*self.journal.decided(), *undecided))
        assert found.best, "there is a baseline before anything is asked for"
        return found.best.estimate.mean, found.noise or 0.0

    def sources(self, commit: str) -> dict[str, str]:
        """The editable files at a commit: path -> text."""
        with self._lock:
            if commit not in self._sources:
                _make_room(self._sources)
                self._sources[commit] = self.repository.sources(commit, self.task.editable)
            return dict(self._sources[commit])

    def candidate(self, parent: str, edits: Sequence[Edit]) -> Candidate:
        """The candidate that edits of a commit give; made once, then cached.

        Raises:
            Refused: If an edit does not apply.
        """
        key = parent, tuple(edits)
        with self._lock:
            known = self._candidates.get(key)
        if known is None:
            known = make_candidate(
                parent,
                self.sources(parent),
                edits,
                fingerprint=self.task.fingerprint,
                growth=self.task.growth,
            )
            with self._lock:
                _make_room(self._candidates)
                self._candidates[key] = known
        return known

    def candidate_of(self, experiment: Experiment) -> Candidate:
        """The candidate of an experiment; made from the journal if an earlier run made it."""
        assert experiment.proposal, "the baseline is no candidate"
        return self.candidate(experiment.parent, experiment.proposal.edits)

    def tried_as(self, fingerprint: str) -> int | None:
        """Which experiment tried a program, those under way included; None if none did."""
        for number, known in self.journal.fingerprints(self._last_seen).items():
            if not known:  # the baseline, and experiments of older versions
                experiment = self.journal.experiment(number)
                proposed = experiment.commit or experiment.parent
                known = self.task.fingerprint(self.sources(proposed))
                if experiment.commit:
                    self.journal.set_fingerprint(number, known)
            with self._lock:
                self._seen.setdefault(known, number)
                self._last_seen = max(self._last_seen, number)
        with self._lock:
            return self._seen.get(fingerprint)

    def rebased(self, experiment: Experiment, proposal: Proposal, candidate: Candidate) -> Experiment:
        """Record that a candidate in flight was merged onto the incumbent; it has no commit there yet."""
        number, known = experiment.number, candidate.fingerprint
        with self._lock:
            self._seen.setdefault(known, number)
        return self.journal.rebased(number, proposal, candidate.parent, known)

    def ref(self, number: int) -> str:
        """The git ref that keeps the commit of an experiment reachable."""
        return f"refs/autoresearch/{self.config.name}/{number:04d}"

    def drafts(self) -> Iterator[tuple[int, Draft]]:
        """The proposals made ahead, and the number that each will have."""
        return enumerate(self.journal.drafts(), self.tried + 1)

    def context(
        self,
        notes: tuple[str, ...] = (),
        deadline: float = math.inf,
        brief: str | None = None,
        edited: Brief | None = None,
    ) -> Context:
        """Everything that a proposer may know now. It reads the brief each time, and records a change of it.

        Args:
            notes: People's notes.
            deadline: Unix time after which nothing is asked for.
            brief: Its text, if it is not to be read.
            edited: The brief as a person has rewritten it; see `current_brief`.
        """
        score, noise = self.standing()
        best = self.incumbent
        measured = [t.result.metrics for t in best.own if t.result and t.score is not None]
        hidden = {self.task.metric.on(split) for split in Split}  # scores that must not steer
        facts = {k: v for k, v in measured[-1].items() if k not in hidden} if measured else {}
        recorded = self.journal.info().config
        drafts = (
            Experiment(number, State.PROPOSED, draft.parent, draft.created, proposal=draft.proposal)
            for number, draft in self.drafts()
        )
        return Context(
            search=self.config.name,
            brief=current_brief(self.journal, self.config.brief_path, self.config.brief, edited)
            if brief is None
            else brief,
            sources=self.sources(best.commit),
            baseline_sources=self.sources(self.journal.info().base_commit),
            history=self.journal.decided(),
            incumbent_score=score,
            noise=noise,
            facts=facts,
            notes=notes,
            seed=self.config.seed,
            under_way=(*(e for e in self.open if e.verdict is None), *drafts),
            ask_bars=self.ask_bars(),
            memory_mb=_memory(recorded, facts),
            about=(*json.loads(self.journal.get(ABOUT) or "[]"), *self._carried()),
            limits=self._limits(),
            experiments_left=max(self.config.experiments - self.tried - len(self.journal.drafts()) - 1, 0),
            diagnoses=tuple(read_diagnoses(self.journal)),
            diagnoses_left=self.diagnoses_left,
            column=self.column,
            seconds_left=None if math.isinf(deadline) else max(deadline - now(), 0.0),
            task=self.task.prompt(),
            metric=self.task.metric,
        )

    @property
    def diagnoses_left(self) -> int:
        """How many diagnoses may still be asked for; those that wait count as made."""
        waiting = sum(draft.proposal.diagnostic for draft in self.journal.drafts())
        return max(self.config.diagnoses - len(read_diagnoses(self.journal)) - waiting, 0)

    def _carried(self) -> list[str]:
        """What is told of transfers; nothing before there is one."""
        found = for_prompt(read_transfers(self.journal), self.kept, self.task.metric)
        return [found] if found else []

    def _limits(self) -> tuple[Limit, ...]:
        """What a candidate may not use more of: the limits of the task, and the guards."""
        trials = self.journal.experiment(0).trials
        measured = [t.result.metrics for t in trials if t.result and t.score is not None]
        largest: dict[str, float] = {}
        for metrics in measured:
            largest |= {name: max(value, largest.get(name, value)) for name, value in metrics.items()}
        guards = guarded(measured, self.config.guards.limits)
        return (
            *self.task.limits(largest),
            *(Limit(k, f"{GUARDS[k].unit} of {GUARDS[k].what} (a guard)", v) for k, v in guards.items()),
        )

    @property
    def first_seed(self) -> int:
        """Where the search begins to count the seeds of its trials."""
        return 1000 * self.config.seed

    @property
    def scored_splits(self) -> tuple[Split, ...]:
        """The splits whose text every program that is confirmed may be shown: validation, and other text."""
        known = self.journal.info().data.get("splits", {})
        return (Split.VALIDATION, Split.OTHER) if Split.OTHER in known else (Split.VALIDATION,)

    def guards(self) -> tuple[GuardMetric, ...]:
        """The further metrics on which what is kept may not lose: as configured, and as accepted since."""
        declared = chosen_guards(self.task, self.config.guards.metrics)
        names = {guard.name for guard in declared}
        return (*declared, *(g for g in accepted_guards(self.journal) if g.name not in names))

    def ask_bars(self) -> AskBars:
        """Says what a gain must be; while the judge is busy with a candidate, what it said before.

        It is computed when somebody asks, and costs as much as dozens of verdicts, while free places wait.
        With many candidates in flight the judge is asked anew only after some verdicts.
        """
        score, noise = self.standing()
        state, decided = self.journal.judge_state() or "", self.tried - len(self.open)
        late = decided >= self._bars_at + len(self.open) // BARS_SHARE
        if state and state != self._bars_of[0] and late:
            self._bars_at = decided
            ask = self._bars_of[1] if idle(state) is None else None
            self._bars_of = state, ask or cache(partial(bars, state, self.task.metric.loss(score), noise))
        return self._bars_of[1]

    def ask_needed(self) -> Callable[[], str]:
        """Says the same in words; nothing if the judge does not say."""
        ask, metric = self.ask_bars(), self.task.metric

        def needed() -> str:
            found = ask()
            return bars_text(found.second_run, found.three_runs, found.ever, metric) if found else ""

        return needed


def _make_room(remembered: dict[Any, Any]) -> None:
    """Forget the oldest entries, so that one more can be remembered."""
    while len(remembered) >= REMEMBERED:
        del remembered[next(iter(remembered))]


def _memory(config: Mapping[str, Any], facts: Mapping[str, float]) -> float | None:
    """Memory of the device in MB: as measured, or on a CPU what the sandbox allows."""
    if "device_memory_mb" in facts:
        return facts["device_memory_mb"]
    limits = (config.get("sandbox") or {}).get("limits") or {}
    on_gpu = any(name.startswith("gpu_") for name in facts)
    return None if on_gpu or "memory_gb" not in limits else 1000.0 * limits["memory_gb"]
