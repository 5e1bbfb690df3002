"""Guards that were proposed for a search, what people decided about them, and what they show of the past.

A person decides while the search may run, so the inbox has it; the search writes down in its journal what it
has read, so nothing that was accepted is lost with the inbox. Not covered: what guards measure (tasks), and
what follows from a loss (`search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.store.inbox import DevisedGuard, Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Notes, WritableNotes, read_records, write_records
from autoresearch.types import GuardGain, GuardMetric, Plain

ACCEPTED, MEASURED = "guards", "guards_measured"
"""Keys of the journal's notes."""


@dataclass(frozen=True)
class MeasuredKeeps(Plain):
    """What every kept change does to the guards, measured anew.

    Attributes:
        tip: Commit of the tip.
        first_seed: The first of the seeds, which the search did not use.
        seeds: Trainings of each commit.
        keeps: Number of a kept experiment -> what its change does.
        seconds: Of trainings.
        finished: Unix time in seconds.
    """

    tip: str
    first_seed: int
    seeds: int
    keeps: dict[int, tuple[GuardGain, ...]]
    seconds: float
    finished: float


def accepted_guards(journal: Journal) -> Sequence[GuardMetric]:
    """The devised guards that a person has accepted, as far as this search knows."""
    known = read_records(journal, ACCEPTED, DevisedGuard)
    inbox = Inbox(journal.path.parent)
    latest = {g.number: g for g in known} | {g.number: g for g in inbox.guards()}
    found = [g for _, g in sorted(latest.items()) if g.state == "accepted"]
    if found != known:
        write_records(journal, ACCEPTED, found)
    return [guard.metric for guard in found]


def read_accepted(notes: Notes) -> list[DevisedGuard]:
    """The devised guards that the search has used."""
    return read_records(notes, ACCEPTED, DevisedGuard)


def read_measured(notes: Notes) -> list[MeasuredKeeps]:
    """What was measured of guards on the kept history, oldest first."""
    return read_records(notes, MEASURED, MeasuredKeeps)


def write_measured(notes: WritableNotes, record: MeasuredKeeps) -> None:
    """Add what was measured; only the latest of a tip stays."""
    others = [r for r in read_measured(notes) if r.tip != record.tip]
    write_records(notes, MEASURED, [*others, record])
