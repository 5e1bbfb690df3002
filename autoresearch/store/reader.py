"""Reads the journal of a search: what is fixed about it, its experiments and its drafts.

Any number of processes may read while one writes. A reader remembers the experiments that it has read and
asks only for those that changed since, so looking again costs little. Not covered: writing (`journal`); the
file, notes and timeline (`database`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.errors import UserError
from autoresearch.store.database import Database
from autoresearch.store.history import History
from autoresearch.store.lock import Lease
from autoresearch.types import (
    Arm,
    Category,
    Draft,
    Experiment,
    Measurement,
    Metric,
    Proposal,
    State,
    Trial,
    Verdict,
)

_EXPERIMENT = "number, state, parent, created, commit_id, proposal, verdict, diff, finished, decided"
_TRIAL = "id, experiment, arm, seed, commit_id, started, finished, result, place"


@dataclass(frozen=True)
class SearchInfo:
    """What is fixed when a search begins.

    Attributes:
        name: Name of the search.
        base_commit: The commit it started from.
        branch: The feature branch that collects what is kept.
        created: Unix time in seconds.
        task: Name of the task.
        brief: Name or path of the brief.
        brief_text: Its Markdown.
        config: The resolved configuration tree.
        data: The description of the prepared data.
        device: The device in words, e.g. "cpu (2 threads)".
        metric: The number that decides.
        trust: Who computes it, as `tasks.base.Trust`; empty in searches of older versions.
        finished: Unix time in seconds; None while there is more to do.
    """

    name: str
    base_commit: str
    branch: str
    created: float
    task: str
    brief: str
    brief_text: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    device: str
    metric: Metric
    finished: float | None = None
    trust: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchInfo:
        """The inverse of `asdict`."""
        return cls(**{**data, "metric": Metric.from_dict(data["metric"])})


class Reader(Database):
    """Reads one search."""

    def __init__(self, path: Path) -> None:
        """Open an existing journal; one of an older version is upgraded.

        Raises:
            UserError: If there is none, or it was written by a newer version.
        """
        super().__init__(path)
        self._history = History()
        self._version = 0

    def info(self) -> SearchInfo:
        """What was fixed when the search began."""
        return SearchInfo.from_dict(json.loads(self.get("info") or "{}"))

    def judge_state(self) -> str | None:
        """The judge as JSON, as it was after the last trial it observed."""
        return self.get("judge")

    def seed_secret(self) -> str:
        """The key that hides the seeds from programs, as hexadecimal digits; empty in older searches."""
        return self.get("seed_secret") or ""

    def lease(self) -> Lease | None:
        """Which process runs the search, or ran it last."""
        return Lease.from_json(self.get("lease"))

    def runner(self) -> Lease | None:
        """Which process runs the search now, as far as can be known from here; None if none does."""
        lease = self.lease()
        return lease if lease and not lease.dead else None

    def experiment(self, number: int) -> Experiment:
        """One experiment with its trials.

        Raises:
            UserError: If there is no such experiment.
        """
        known = self._read().by_number
        if not 0 <= number < len(known):
            raise UserError(
                f"There is no experiment {number} in {self.path.parent.name}.", "See: autoresearch log"
            )
        return known[number]

    def experiments(self) -> tuple[Experiment, ...]:
        """All experiments in order, the baseline first; unchanged ones are the same objects as before."""
        with self._lock:
            return self._read().by_number.all

    def decided(self) -> tuple[Experiment, ...]:
        """The baseline, and all experiments with a verdict, in the order of the verdicts."""
        with self._lock:
            return self._read().decided.all

    def kept(self) -> tuple[Experiment, ...]:
        """The experiments that were kept and are recorded, in the order of the verdicts."""
        with self._lock:
            return self._read().kept.all

    def open(self) -> tuple[Experiment, ...]:
        """The experiments that have begun and are not recorded yet, in the order of their numbers."""
        with self._lock:
            return self._read().open.all

    @property
    def tried(self) -> int:
        """Number of experiments without the baseline."""
        return len(self._read().by_number) - 1

    def changes(self, since: int) -> tuple[int, Sequence[Experiment]]:
        """What is new or has changed since an earlier call; see `History.changes`."""
        with self._lock:
            return self._read().changes(since)

    def _read(self) -> History:
        """Take over what has changed in the file."""
        with self._lock:
            changed = self._rows(
                # The plus keeps SQLite from walking all experiments by their number.
                f"SELECT {_EXPERIMENT}, version FROM experiments WHERE version > ? ORDER BY +number",
                (self._version,),
            )
            for *row, version in changed:
                self._history.put(self._experiment(tuple(row)))
                self._version = max(self._version, version)
            return self._history

    def fingerprints(self, after: int = -1) -> dict[int, str]:
        """Number -> fingerprint, of all experiments later than `after`; "" if it was not recorded."""
        query = "SELECT number, fingerprint FROM experiments WHERE number > ? ORDER BY number"
        return dict(self._rows(query, (after,)))

    def drafts(self) -> tuple[Draft, ...]:
        """Proposals made ahead that wait to become experiments, oldest first."""
        rows = self._rows(
            "SELECT id, parent, proposal, started, created FROM drafts "
            "WHERE state = 'waiting' AND experiment IS NULL ORDER BY id"
        )
        return tuple(Draft(i, p, _proposal(text), s, c) for i, p, text, s, c in rows)

    def dropped(self, number: int) -> tuple[tuple[Proposal, str], ...]:
        """Drafts that were dropped while an experiment was the latest, each with the reason."""
        rows = self._rows(
            "SELECT proposal, reason FROM drafts WHERE experiment = ? AND state = 'dropped' ORDER BY id",
            (number,),
        )
        return tuple((_proposal(text), reason) for text, reason in rows)

    def dirty(self) -> tuple[int, ...]:
        """Numbers of the experiments that changed since they were last mirrored."""
        return tuple(n for (n,) in self._rows("SELECT number FROM experiments WHERE dirty = 1 ORDER BY 1"))

    def _experiment(self, row: tuple[Any, ...]) -> Experiment:
        number, state, parent, created, commit, proposal, verdict, diff, finished, decided = row
        trials = self._rows(
            f"SELECT {_TRIAL}, (SELECT TOTAL(t.finished - t.started) FROM timeline AS t "
            "WHERE t.trial = trials.id AND t.experiment = trials.experiment "
            "AND t.phase NOT IN ('judge', 'record')) FROM trials WHERE experiment = ? ORDER BY id",
            (number,),
        )
        known = [_trial(row) for row in trials]
        return Experiment(
            number=number,
            state=State(state),
            parent=parent,
            created=created,
            commit=commit,
            proposal=_proposal(proposal) if proposal else None,
            verdict=Verdict.from_dict(json.loads(verdict)) if verdict else None,
            diff=diff,
            finished=finished,
            trials=tuple(t for t in known if t.arm is not Arm.DIAGNOSE),
            diagnoses=tuple(t for t in known if t.arm is Arm.DIAGNOSE),
            dropped=tuple(proposal for proposal, _ in self.dropped(number)),
            decided=decided,
        )


def _proposal(text: str) -> Proposal:
    """A proposal as it is recorded; if it cannot be read, one that says so, so that the rest can be."""
    try:
        return Proposal.from_dict(json.loads(text))
    except (ValueError, TypeError) as error:
        return Proposal(f"(this record cannot be read: {error})", Category.OTHER, (), "unknown")


def _trial(row: tuple[Any, ...]) -> Trial:
    id, experiment, arm, seed, commit, started, finished, result, place, measured = row
    known = Measurement.from_dict(json.loads(result)) if result else None
    return Trial(id, experiment, Arm(arm), seed, commit, started, finished, known, place, measured=measured)
