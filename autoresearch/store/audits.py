"""Audits as the journal keeps them, and the words for them.

Owns the invariant that each training is written down before it starts, so that a killed audit goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from autoresearch.judge.audit import SHARE, Audited, false_share
from autoresearch.store.claims import Notes, Readable

KEY = "audits"


@dataclass(frozen=True)
class AuditRun:
    """One training of some of the kept changes.

    Attributes:
        present: Of each kept change, whether it was in.
        seed: A seed that the search did not use.
        started: Unix time in seconds; None before it was started.
        score: Validation bits per byte; None if there is none (yet).
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
        removed: Places in `keeps` of those that are too doubtful.
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
        runs = list(self.runs)
        runs[index] = replace(runs[index], **changes)
        return replace(self, runs=tuple(runs))


def read_audits(notes: Readable) -> list[AuditRecord]:
    """Every audit of a search, oldest first."""
    return [_from_dict(data) for data in json.loads(notes.get(KEY) or "[]")]


def write_audit(notes: Notes, record: AuditRecord) -> None:
    """Add an audit, or bring its record up to date."""
    others = [r for r in read_audits(notes) if r.tip != record.tip]
    notes.set(KEY, json.dumps([asdict(r) for r in [*others, record]]))


def lines(record: AuditRecord) -> list[str]:
    """An audit in lines for a terminal."""
    text = [f"{'#':>4}  {'gain':>8}  {'95% interval':>20}  doubt"]
    for i, (number, found) in enumerate(zip(record.keeps, record.audited, strict=True)):
        interval = f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
        note = "  to be taken out" if i in record.removed else ""
        note = note or ("" if record.separable[i] else "  later changes build on it")
        text.append(f"{number:4d}  {found.effect:+8.4f}  {interval:>20}  {found.doubt:5.0%}{note}")
    done = sum(run.score is not None for run in record.runs)
    text.append(f"{done} trainings with random halves left out; gains are taken to add up.")
    if record.audited and (share := false_share(record.audited, record.removed)) > SHARE:
        text.append(f"Of what stays, {share:.0%} is expected to gain nothing: it cannot be left out.")
    if record.branch:
        text.append(f"The branch {record.branch} has the rest.")
    return text


def _from_dict(data: Mapping[str, Any]) -> AuditRecord:
    runs = tuple(AuditRun(**{**run, "present": tuple(run["present"])}) for run in data["runs"])
    audited = tuple(
        Audited(**{**a, "interval": (a["interval"][0], a["interval"][1])}) for a in data["audited"]
    )
    plain = {key: tuple(data[key]) for key in ("keeps", "separable", "removed")}
    return AuditRecord(**{**data, **plain, "runs": runs, "audited": audited})
