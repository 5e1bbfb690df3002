"""What the store of a server holds: the tables, and a contribution as the store knows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autoresearch.errors import Refused, UserError

FOLDER = "swarm"
"""Where the store and the server's key lie, in the folder of searches."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS contributions (
    number INTEGER PRIMARY KEY, track TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, who TEXT NOT NULL,
    network TEXT NOT NULL, received REAL NOT NULL, tree TEXT NOT NULL, title TEXT NOT NULL,
    claim REAL NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    experiment INTEGER, commit_id TEXT NOT NULL DEFAULT '', effect REAL, runs REAL NOT NULL DEFAULT 0,
    known INTEGER NOT NULL DEFAULT 0, decided REAL, hidden TEXT NOT NULL DEFAULT '',
    tries INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS one_of_each ON contributions (track, tree) WHERE state != 'refused';
CREATE INDEX IF NOT EXISTS by_state ON contributions (track, state);
CREATE INDEX IF NOT EXISTS by_sender ON contributions (who, received);
CREATE INDEX IF NOT EXISTS by_network ON contributions (network, received);
CREATE INDEX IF NOT EXISTS by_decision ON contributions (decided);
CREATE INDEX IF NOT EXISTS waiting ON contributions (who, network) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS people (
    who TEXT PRIMARY KEY, public_key TEXT NOT NULL, author TEXT NOT NULL UNIQUE, since REAL NOT NULL,
    banned TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
"""

COLUMN = "ALTER TABLE contributions ADD COLUMN tries INTEGER NOT NULL DEFAULT 0"
"""For a store of an older version."""

INDEX = "DROP INDEX IF EXISTS by_kind; CREATE INDEX IF NOT EXISTS of_kind ON log (track, kind, number);"


class State(StrEnum):
    """What became of a contribution."""

    WAITING = "waiting"
    TAKEN = "taken"  # an experiment tests it, or will
    KEPT = "kept"
    DISCARDED = "discarded"
    RETURNED = "returned"  # it no longer fits the tip: to be made anew by its sender
    REFUSED = "refused"
    REMOVED = "removed"  # it was kept, and a moderator took it back


OPEN = (State.WAITING, State.TAKEN)


class Busy(UserError):
    """The store cannot be written now; the same request may work later."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The store cannot be written now: {why}.", "Try again in a minute.", code=3)


class OverQuota(Refused):
    """Too much was sent; the same contribution may be sent later."""


@dataclass(frozen=True)
class Received:
    """A contribution as the store knows it.

    Attributes:
        number: In the order of arrival, over all tracks.
        track: Name of the track.
        digest: Names the contribution.
        who: Fingerprint of its sender's key.
        received: By the server's clock, Unix time in seconds.
        claim: Claimed gain; see `queue.claimed`.
        state: What became of it.
        reason: Why, in words.
        experiment: Of the track's search, if one tests it.
        commit: That was kept; empty if none was.
        effect: Gain that the verifier measured; None if it measured none.
        runs: Trainings that the verdict took.
        hidden: Why a moderator hides its texts; empty if they are shown.
        title: In its sender's words.
        author: Name of its sender.
    """

    number: int
    track: str
    digest: str
    who: str
    received: float
    claim: float
    state: State
    reason: str
    experiment: int | None
    commit: str
    effect: float | None
    runs: float
    hidden: str
    title: str
    author: str


COLUMNS = (
    "number, track, digest, who, received, claim, state, reason, experiment, commit_id, effect, runs, "
    "hidden, title, author"
)


def received(row: tuple[Any, ...]) -> Received:
    """A contribution from a row of `COLUMNS`."""
    values = dict(zip(Received.__dataclass_fields__, row, strict=True))
    return Received(**{**values, "state": State(values["state"])})
