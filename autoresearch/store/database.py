"""The file behind the journal: transactions, notes by key, and the timeline.

Owns the connection. One process writes (see `lease`); its threads may share a file. A transaction is durable
when it returns, and what cannot be written is an error that a person can mend. Not covered: what the
transactions mean (`journal`), and the tables (`schema`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoresearch.errors import UserError
from autoresearch.store.schema import connect, upgrade

Phase = Literal["propose", "queue", "startup", "warmup", "train", "score", "judge", "record"]


@dataclass(frozen=True)
class Span:
    """One stretch of the timeline, in Unix time; `trial` is None for what belongs to no trial."""

    experiment: int
    trial: int | None
    phase: str
    started: float
    finished: float


class File:
    """An SQLite file with the journal's tables.

    Attributes:
        path: Where it lies.
        rows: Rows read so far, so that a test can tell what a step costs.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; one of an older version is upgraded.

        Raises:
            UserError: If there is none, or it was written by a newer version.
        """
        if not path.exists():
            raise UserError(
                f"No search has been recorded at {path}.", "Start one: autoresearch run name=NAME"
            )
        self.path = path
        self.rows = 0
        self._db = connect(path)
        self._lock = threading.RLock()
        self._marks: list[Span] = []
        upgrade(self._db, path)

    def close(self) -> None:
        """Close the file. The journal cannot be used afterwards.

        A proposer that nobody waited for may be writing its answer; closing the file under it would be the
        end of the process.
        """
        with suppress(UserError):  # whoever could not write has said so; a mark is worth no error
            if self._marks:
                with self._write():
                    pass
        with self._lock:
            self._db.close()

    # Notes

    def get(self, key: str) -> str | None:
        """A note by its key, if there is one."""
        rows = self._rows("SELECT value FROM notes WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set(self, key: str, value: str) -> None:
        """Write or replace a note."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, value))

    # The timeline: what took how long

    def mark(self, experiment: int, trial: int | None, phase: Phase, started: float, finished: float) -> None:
        """Note how long a phase took. Written together with the next step, since no step depends on it."""
        with self._lock:
            self._marks.append(Span(experiment, trial, phase, started, finished))

    def timeline(self, experiment: int | None = None) -> Sequence[Span]:
        """Every stretch noted so far, of one experiment or of all, by its start."""
        where, values = ("", ()) if experiment is None else ("WHERE experiment = ?", (experiment,))
        rows = self._rows(f"SELECT experiment, trial, phase, started, finished FROM timeline {where}", values)
        noted = [span for span in self._marks if experiment in (None, span.experiment)]
        return sorted([*(Span(*row) for row in rows), *noted], key=lambda span: span.started)

    # How it is done

    def compact(self) -> None:
        """Give the file system back what is not needed any more."""
        with self._lock:
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _mark(self, db: sqlite3.Connection, span: Span) -> None:
        db.execute(
            "INSERT INTO timeline (experiment, trial, phase, started, finished) VALUES (?, ?, ?, ?, ?)",
            (span.experiment, span.trial, span.phase, span.started, span.finished),
        )

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            found = self._db.execute(query, values).fetchall()
            self.rows += len(found)
        return found

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    yield self._db
                    for span in self._marks:
                        self._mark(self._db, span)
                self._marks = []  # only now: a full disk may be found out by the commit
        except sqlite3.OperationalError as error:
            raise UserError(
                f"The journal {self.path} cannot be written: {error}.",
                "Check free disk space and permissions, then run the same command again: nothing is lost.",
                code=3,
            ) from error
