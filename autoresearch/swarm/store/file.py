"""The file of the store: transactions that hold whole or not at all, and what all of its parts look up."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from autoresearch.store.connection import begin, connect
from autoresearch.swarm import log
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.queue import RECENT, Record
from autoresearch.swarm.store.records import COLUMN, COLUMNS, INDEX, SCHEMA, Busy, Received, State, received


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
