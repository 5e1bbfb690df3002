"""Trainings after a search, for claims and audits, as notes of the journal.

A claim trains the search's start and its result on fresh seeds and scores them on the sealed test split. An
audit trains the result with some of the kept changes left out. Each training is recorded before it starts, so
a killed claim or audit goes on, and no use of the test split is forgotten. The scores are kept apart from the
trials of the search, so nothing that steers the search reads them. Each tip is claimed once and audited once.
Not covered: the statistics (`judge`), the words (`report`), the trainings (`finish`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from autoresearch.judge.finished import Audited, Claim
from autoresearch.store.notes import Notes, WritableNotes

CLAIMS, AUDITS = "claims", "audits"
"""The keys of the notes."""

BASELINE, TIP = "baseline", "tip"
"""The two sides of a claim."""


T = TypeVar("T", "Access", "AuditRun")


@dataclass(frozen=True)
class Access:
    """One training for a claim, scored on the sealed test split.

    Attributes:
        side: "baseline" or "tip".
        seed: A seed that the search did not use.
        started: Unix time in seconds; None before it was started.
        test: Score on the sealed test split; None if there is no score (yet).
        validation: Score of the same model on the validation split.
        reason: Why it has no score, if it failed.
    """

    side: str
    seed: int
    started: float | None = None
    test: float | None = None
    validation: float | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.test is not None or bool(self.reason)


@dataclass(frozen=True)
class ClaimRecord:
    """One claim: begun when its plan is recorded, finished when it has a result.

    Attributes:
        number: From 1.
        experiment: The experiment whose commit is claimed.
        base: The commit that the search started from.
        tip: The commit that is claimed.
        started: Unix time in seconds.
        accesses: The trainings, in the order in which they run.
        finished: Unix time in seconds; None while there is more to do.
        result: What may be said; None until it is known, or if too few trainings got through.
    """

    number: int
    experiment: int
    base: str
    tip: str
    started: float
    accesses: tuple[Access, ...]
    finished: float | None = None
    result: Claim | None = None

    def scores(self, side: str, split: str = "test") -> list[float]:
        """The scores of one side, in order."""
        values = [getattr(a, split) for a in self.accesses if a.side == side]
        return [value for value in values if value is not None]

    def with_access(self, index: int, **changes: Any) -> ClaimRecord:
        """The record with one training changed."""
        return replace(self, accesses=_changed(self.accesses, index, changes))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClaimRecord:
        """The inverse of `asdict`."""
        result = Claim(**_tuples(data["result"])) if data["result"] else None
        accesses = tuple(Access(**access) for access in data["accesses"])
        return cls(**{**data, "accesses": accesses, "result": result})


@dataclass(frozen=True)
class AuditRun:
    """One training of some of the kept changes.

    Attributes:
        present: Of each kept change, whether it was in.
        seed: A seed that the search did not use.
        started: Unix time in seconds; None before it was started.
        score: Validation score; None if there is none (yet).
        reason: Why it has no score, if it failed.
    """

    present: tuple[bool, ...]
    seed: int
    started: float | None = None
    score: float | None = None
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.score is not None or bool(self.reason)


@dataclass(frozen=True)
class AuditRecord:
    """One audit.

    Attributes:
        tip: The commit whose changes are audited.
        keeps: Numbers of the kept experiments, in order.
        separable: Of each, whether it can be left out alone.
        started: Unix time in seconds.
        runs: The trainings, in order.
        finished: Unix time in seconds; None while there is more to do.
        audited: What is known of each kept change afterwards.
        removed: Indices in `keeps` of the changes that are too doubtful.
        branch: A branch without them; empty if there is none.
    """

    tip: str
    keeps: tuple[int, ...]
    separable: tuple[bool, ...]
    started: float
    runs: tuple[AuditRun, ...]
    finished: float | None = None
    audited: tuple[Audited, ...] = ()
    removed: tuple[int, ...] = ()
    branch: str = ""

    def with_run(self, index: int, **changes: Any) -> AuditRecord:
        """The record with one training changed."""
        return replace(self, runs=_changed(self.runs, index, changes))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AuditRecord:
        """The inverse of `asdict`."""
        runs = tuple(AuditRun(**_tuples(run)) for run in data["runs"])
        audited = tuple(Audited(**_tuples(found)) for found in data["audited"])
        return cls(**{**_tuples(data), "runs": runs, "audited": audited})


def read_claims(notes: Notes) -> list[ClaimRecord]:
    """Every claim of a search, oldest first."""
    return [ClaimRecord.from_dict(data) for data in json.loads(notes.get(CLAIMS) or "[]")]


def write_claim(notes: WritableNotes, record: ClaimRecord) -> None:
    """Add a claim, or replace the record of the same number."""
    others = [r for r in read_claims(notes) if r.number != record.number]
    ordered = sorted([*others, record], key=lambda r: r.number)
    notes.set(CLAIMS, json.dumps([asdict(r) for r in ordered]))


def read_audits(notes: Notes) -> list[AuditRecord]:
    """Every audit of a search, oldest first."""
    return [AuditRecord.from_dict(data) for data in json.loads(notes.get(AUDITS) or "[]")]


def write_audit(notes: WritableNotes, record: AuditRecord) -> None:
    """Add an audit, or replace the record of the same tip."""
    others = [r for r in read_audits(notes) if r.tip != record.tip]
    notes.set(AUDITS, json.dumps([asdict(r) for r in [*others, record]]))


def interleaved(seeds: Iterable[int]) -> tuple[Access, ...]:
    """A plan in which drift of the machine cancels: baseline, tip, tip, baseline, ..., a seed each."""
    sides = (BASELINE, TIP, TIP, BASELINE)
    return tuple(Access(sides[i % 4], seed) for i, seed in enumerate(seeds))


def _changed(items: tuple[T, ...], index: int, changes: Mapping[str, Any]) -> tuple[T, ...]:
    """The items, one of them with other values in some of its fields."""
    changed = list(items)
    changed[index] = replace(changed[index], **changes)
    return tuple(changed)


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
