"""Records of claims and audits, which the journal keeps as notes.

A claim trains the search's start and its result on fresh seeds, and scores them on the sealed test split
when all are trained. An audit trains the result with some of the kept changes left out. Each training is
recorded before it starts, so a killed claim or audit goes on, and no use of the test split is forgotten. The
scores are kept apart from the trials of the search, so nothing that steers the search reads them. Each tip
is claimed once, and audited once in each design. Not covered: the statistics (`judge`), the words
(`report`), the trainings (`finish`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from autoresearch.judge.finished.audit import Audited
from autoresearch.judge.finished.claim import Claim
from autoresearch.store.records.notes import Notes, WritableNotes, read_records, write_records
from autoresearch.types import Plain

CLAIMS, AUDITS = "claims", "audits"
"""The keys."""

BASELINE, TIP = "baseline", "tip"
"""The two sides of a claim."""

ATTEMPTS = 2
"""A training of a claim that fails so often for reasons of its own is left out."""


@dataclass(frozen=True)
class Access:
    """One training for a claim, whose model is scored on the sealed test split once all trainings are there.

    Attributes:
        side: "baseline" or "tip".
        seed: A seed that the search did not use.
        started: Unix time in seconds; None before it was started.
        test: Score on the sealed test split; None if there is no score (yet).
        validation: Score of the same model on the validation split; None until it is trained.
        reason: Why it has no score, if it failed the last time.
        failures: How often it has failed for a reason of its own.
        opened: When the test split was opened for it, Unix time in seconds.
        share: Which share of the test split it is scored on, if that was divided.
        questions: Seed of its blind questions; a training of each side has the same.
    """

    side: str
    seed: int
    started: float | None = None
    test: float | None = None
    validation: float | None = None
    reason: str = ""
    failures: int = 0
    opened: float | None = None
    share: int | None = None
    questions: int | None = None

    @property
    def given_up(self) -> bool:
        """Whether it has failed so often for reasons of its own that there can be no claim."""
        return self.failures >= ATTEMPTS

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.test is not None or self.given_up

    @property
    def looked(self) -> bool:
        """Whether the test split was opened for it."""
        return self.opened is not None or self.test is not None


@dataclass(frozen=True)
class ClaimRecord(Plain):
    """One claim: begun when its plan is recorded, finished when it has a result.

    Attributes:
        number: From 1.
        experiment: The experiment whose commit is claimed.
        base: The commit that the search started from.
        tip: The commit that is claimed.
        started: Unix time in seconds.
        accesses: The trainings, in the order in which they run.
        finished: Unix time in seconds; None while there is more to do.
        result: What may be said; None until it is known, or if the claim is void.
        shares: Into how many disjoint shares the test split was divided; 0: all trainings saw all of it.
        blind: Gain by the blind answers alone, and its standard error; None if there are none.
        void: Why there is no result, and never will be; empty otherwise.
        caught: Whether the tip was found to be invalid: then its change is taken back as well.
        elsewhere: `Task.elsewhere`.
    """

    number: int
    experiment: int
    base: str
    tip: str
    started: float
    accesses: tuple[Access, ...]
    finished: float | None = None
    result: Claim | None = None
    shares: int = 0
    blind: tuple[float, float] | None = None
    void: str = ""
    caught: bool = False
    elsewhere: str = ""

    def scores(self, side: str, split: str = "test") -> list[float]:
        """The scores of one side, in order."""
        values = [getattr(a, split) for a in self.accesses if a.side == side]
        return [value for value in values if value is not None]

    def with_access(self, index: int, **changes: Any) -> ClaimRecord:
        """The record with one training changed."""
        changed = replace(self.accesses[index], **changes)
        return replace(self, accesses=(*self.accesses[:index], changed, *self.accesses[index + 1 :]))


class Design(StrEnum):
    """What the trainings of an audit leave out; the value names its refs."""

    HALVES = "audit"
    ONE_LEFT_OUT = "ablation"

    @property
    def left_out(self) -> str:
        """In words."""
        return "random halves" if self is Design.HALVES else "one at a time"

    @property
    def past(self) -> str:
        """What the branch is called that it leaves."""
        return "audited" if self is Design.HALVES else "ablated"


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
class AuditRecord(Plain):
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
        design: What its trainings leave out.
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
    design: Design = Design.HALVES

    def with_run(self, index: int, **changes: Any) -> AuditRecord:
        """The record with one training changed."""
        changed = replace(self.runs[index], **changes)
        return replace(self, runs=(*self.runs[:index], changed, *self.runs[index + 1 :]))


def read_claims(notes: Notes) -> list[ClaimRecord]:
    """Every claim of a search, oldest first."""
    return read_records(notes, CLAIMS, ClaimRecord)


def write_claim(notes: WritableNotes, record: ClaimRecord) -> None:
    """Add a claim, or replace the record of the same number."""
    known = {r.number: r for r in [*read_claims(notes), record]}
    write_records(notes, CLAIMS, (record for _, record in sorted(known.items())))


def read_audits(notes: Notes) -> list[AuditRecord]:
    """Every audit of a search, oldest first."""
    return read_records(notes, AUDITS, AuditRecord)


def write_audit(notes: WritableNotes, record: AuditRecord) -> None:
    """Add an audit, or replace the record of the same tip and design."""
    write_records(notes, AUDITS, {(r.tip, r.design): r for r in [*read_audits(notes), record]}.values())


def interleaved(seeds: Iterable[int]) -> tuple[Access, ...]:
    """A plan in which drift of the machine cancels: on each seed both sides, in turn first."""
    orders = ((BASELINE, TIP), (TIP, BASELINE))
    return tuple(Access(side, seed) for i, seed in enumerate(seeds) for side in orders[i % 2])
