"""The file of the store: its tables, a contribution as the store knows it, and transactions.

A transaction holds as a whole or not at all.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from autoresearch.errors import Refused, UserError
from autoresearch.store.connection import begin, connect
from autoresearch.swarm import log
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.queue import RECENT, Record

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

COLUMNS = (
    "number, track, digest, who, received, claim, state, reason, experiment, commit_id, effect, runs, "
    "hidden, title, author"
)


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


def received(row: tuple[Any, ...]) -> Received:
    """A contribution from a row of `COLUMNS`."""
    values = dict(zip(Received.__dataclass_fields__, row, strict=True))
    return Received(**{**values, "state": State(values["state"])})


class File:
    """A file that any number of processes may open.

    Args:
        folder: Where it lies; made if it is not there.
        patience: Seconds to wait for another process that writes; None: as long as it takes.
        say: Is told of a wait.
    """

    def __init__(
        self, folder: Path, patience: float | None = None, say: Callable[[str], None] = print
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "store.db"
        self.identity = Identity.make(folder / "key")
        self.say = say
        self._patience, self._lock = patience, threading.RLock()
        self.path.touch(mode=0o600)
        with self._told():
            self._db = connect(self.path)
            self._db.executescript(SCHEMA + log.SCHEMA + INDEX)
            columns = {row[1] for row in self._db.execute("PRAGMA table_info(contributions)")}
            if "tries" not in columns:
                self._db.execute(COLUMN)
            if patience is not None:
                self._db.execute(f"PRAGMA busy_timeout = {int(1000 * patience)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _records(self, db: sqlite3.Connection, people: list[str]) -> dict[str, Record]:
        found = {}
        for who in people:
            rows = db.execute(
                "SELECT state FROM contributions WHERE who = ? AND decided IS NOT NULL AND runs > 0 "
                "ORDER BY decided DESC, number DESC LIMIT ?",
                (who, RECENT),
            ).fetchall()
            if rows:
                found[who] = Record.of([state == State.KEPT for (state,) in rows[::-1]])
        return found

    def _found(self, db: sqlite3.Connection, digest: str) -> Received | None:
        query = f"SELECT {COLUMNS} FROM contributions JOIN people USING (who) WHERE digest = ?"
        row = db.execute(query, (digest,)).fetchone()
        return received(row) if row else None

    def _numbered(self, db: sqlite3.Connection, number: int) -> Received:
        query = f"SELECT {COLUMNS} FROM contributions JOIN people USING (who) WHERE number = ?"
        return received(db.execute(query, (number,)).fetchone())

    def copy(self, target: Path) -> None:
        """Write a whole copy of the file, as of one moment."""
        with self._read() as db, closing(sqlite3.connect(target)) as copy:
            db.backup(copy)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            yield self._db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._patience is None:
                begin(self._db, self.path, self.say)
            else:
                self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite itself rolls back when the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Busy(str(error)) from error
