"""Final claims as the journal keeps them: what was trained, what it scored, what may be said.

Owns the invariants that every access to the sealed test split is written down before it happens, that these
scores lie apart from the trials of the search (nothing that steers reads them), and that one tip is claimed
once. Not covered: the statistics (`judge.claim`) and the trainings (`finish.claim`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from autoresearch.judge.claim import Claim

KEY = "claims"
BASELINE, TIP = "baseline", "tip"


class Readable(Protocol):
    """What is read of the journal."""

    def get(self, key: str) -> str | None:
        """A note by its key, if there is one."""


class Notes(Readable, Protocol):
    """What is needed of the journal."""

    def set(self, key: str, value: str) -> None:
        """Write or replace a note."""


@dataclass(frozen=True)
class Access:
    """One training for a claim, scored on the sealed test split.

    Attributes:
        side: "baseline" or "tip".
        seed: A seed that the search did not use.
        started: Unix time in seconds; None before it was started.
        test: Bits per byte on the sealed test split; None if there is no score (yet).
        validation: Bits per byte of the same model on the validation split.
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
    """One claim: begun when its plan is written, finished when it has a result.

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
        accesses = list(self.accesses)
        accesses[index] = replace(accesses[index], **changes)
        return replace(self, accesses=tuple(accesses))


def read_claims(notes: Readable) -> list[ClaimRecord]:
    """Every claim of a search, oldest first."""
    return [_from_dict(data) for data in json.loads(notes.get(KEY) or "[]")]


def write_claim(notes: Notes, record: ClaimRecord) -> None:
    """Add a claim, or bring its record up to date."""
    others = [r for r in read_claims(notes) if r.number != record.number]
    ordered = sorted([*others, record], key=lambda r: r.number)
    notes.set(KEY, json.dumps([asdict(r) for r in ordered]))


def interleaved(seeds: Iterable[int]) -> tuple[Access, ...]:
    """A plan in which drift of the machine cancels: baseline, tip, tip, baseline, ..., each on its seed."""
    sides = (BASELINE, TIP, TIP, BASELINE)
    return tuple(Access(sides[i % 4], seed) for i, seed in enumerate(seeds))


def _from_dict(data: dict[str, Any]) -> ClaimRecord:
    accesses = tuple(Access(**access) for access in data["accesses"])
    found = data["result"] or {}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    result = Claim(**values) if values else None
    return ClaimRecord(**{**data, "accesses": accesses, "result": result})
