"""The SQLite file behind the journal: tables, upgrade of older files, transactions, notes and timeline.

A file is upgraded in place, in one transaction, and keeps every row; a file of a newer version is refused. A
change of the tables, or of the JSON in them after which old rows cannot be read, needs a higher
`SCHEMA_VERSION` and a step in `_STEPS`. A transaction is durable when it returns; one that cannot be written
raises an error that says what to do. Threads may share a file. Not covered: what the transactions mean
(`journal`).
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from autoresearch.errors import UserError
from autoresearch.store.connection import begin, connect, copied, writable
from autoresearch.types import Direction, Metric

Phase = Literal["propose", "queue", "startup", "warmup", "train", "score", "judge", "record"]

_VERSION_1 = """
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, created REAL NOT NULL,
    commit_id TEXT NOT NULL DEFAULT '', proposal TEXT, verdict TEXT, diff TEXT NOT NULL DEFAULT '',
    finished REAL, dirty INTEGER NOT NULL DEFAULT 1);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL REFERENCES experiments(number), arm TEXT NOT NULL,
    seed INTEGER NOT NULL, commit_id TEXT NOT NULL, started REAL NOT NULL, finished REAL, result TEXT);
CREATE INDEX trials_by_experiment ON trials (experiment);
"""

_VERSION_2 = """
ALTER TABLE experiments ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE experiments ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';
UPDATE experiments SET version = number + 1;
CREATE INDEX experiments_by_version ON experiments (version);
CREATE INDEX experiments_by_dirty ON experiments (dirty);
ALTER TABLE trials ADD COLUMN place TEXT NOT NULL DEFAULT '';
CREATE INDEX trials_by_finished ON trials (finished);
CREATE TABLE drafts (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, started REAL NOT NULL,
    created REAL NOT NULL, proposal TEXT NOT NULL, experiment INTEGER, reason TEXT NOT NULL DEFAULT '');
CREATE INDEX drafts_by_experiment ON drafts (experiment);
CREATE TABLE timeline (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL, trial INTEGER, phase TEXT NOT NULL,
    started REAL NOT NULL, finished REAL NOT NULL);
CREATE INDEX timeline_by_experiment ON timeline (experiment);
"""
# experiments.version grows with every change of an experiment, so a reader can ask for what is new to it.


def _version_3(db: sqlite3.Connection) -> None:
    """Write down the metric, which versions 1 and 2 took for granted."""
    row = db.execute("SELECT value FROM notes WHERE key = 'info'").fetchone()
    if row is not None:
        metric = Metric("val_bpb", "bits per byte", Direction.MINIMIZE, digits=4, per_item=True)
        info = json.dumps({"metric": asdict(metric), **json.loads(row[0])})
        db.execute("UPDATE notes SET value = ? WHERE key = 'info'", (info,))


_VERSION_4 = """
ALTER TABLE experiments ADD COLUMN decided INTEGER;
UPDATE experiments SET decided = number WHERE verdict IS NOT NULL;
CREATE INDEX experiments_by_decided ON experiments (decided);
"""
# experiments.decided counts verdicts: with several candidates in flight they come in another order.

_STEPS: tuple[str | Callable[[sqlite3.Connection], None], ...] = (
    _VERSION_1,
    _VERSION_2,
    _version_3,
    _VERSION_4,
)
"""What turns a file of version 0, 1, ... into one of the next version; version 0 is an empty file."""
SCHEMA_VERSION = len(_STEPS)


@dataclass(frozen=True)
class Span:
    """One stretch of the timeline, in Unix time; `trial` is None for what belongs to no trial."""

    experiment: int
    trial: int | None
    phase: str
    started: float
    finished: float


class Database:
    """An SQLite file with the journal's tables.

    Attributes:
        path: Where it lies.
        rows_read: How many rows have been read so far; tests measure with it what a step costs.
        say: Tells a person that it waits; nobody by default.
    """

    say: Callable[[str], None] = staticmethod(lambda text: None)

    def __init__(self, path: Path) -> None:
        """Open an existing file; one of an older version is upgraded.

        Raises:
            UserError: If there is none, or it was written by a newer version.
        """
        if not path.exists():
            raise UserError(
                f"No search has been recorded at {path}.", "Start one: autoresearch run name=NAME"
            )
        self.path = path
        self.rows_read = 0
        self._copy = None if writable(path) else copied(path)
        self._db = connect(Path(self._copy.name, path.name) if self._copy else path)
        self._lock = threading.RLock()
        self._unwritten: list[Span] = []
        upgrade(self._db, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it cannot be used afterwards.

        Waits for a transaction of another thread: closing the file during one would crash the process.
        """
        with suppress(UserError):  # losing a mark is no reason to fail
            if self._unwritten:
                with self._write():
                    pass
        with self._lock:
            self._db.close()
        if self._copy:
            self._copy.cleanup()

    def get(self, key: str) -> str | None:
        """The note under a key, if there is one."""
        rows = self._rows("SELECT value FROM notes WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set(self, key: str, value: str) -> None:
        """Write or replace the note under a key."""
        with self._write() as db:
            set_note(db, key, value)

    def mark(self, experiment: int, trial: int | None, phase: Phase, started: float, finished: float) -> None:
        """Note how long a phase took. Written with the next transaction, since no step depends on it."""
        with self._lock:
            self._unwritten.append(Span(experiment, trial, phase, started, finished))

    def timeline(self, experiment: int | None = None) -> Sequence[Span]:
        """How long each phase took, of one experiment or of all, ordered by start."""
        where, values = ("", ()) if experiment is None else ("WHERE experiment = ?", (experiment,))
        rows = self._rows(f"SELECT experiment, trial, phase, started, finished FROM timeline {where}", values)
        recent = [span for span in self._unwritten if experiment in (None, span.experiment)]
        return sorted([*(Span(*row) for row in rows), *recent], key=lambda span: span.started)

    def compact(self) -> None:
        """Give unused space back to the file system."""
        with self._lock:
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        with self._lock:
            found = self._db.execute(query, values).fetchall()
            self.rows_read += len(found)
        return found

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction.

        Raises:
            UserError: If it cannot be written, e.g. because the disk is full; nothing has changed then.
        """
        if self._copy:
            raise UserError(
                f"The journal {self.path} cannot be written: the file system or the file is read-only.",
                "Its search can be looked at; to go on with it, make it writable.",
                code=3,
            )
        try:
            with self._lock:
                with self._db:
                    begin(self._db, self.path, self.say)
                    yield self._db
                    for span in self._unwritten:
                        add_span(self._db, span)
                self._unwritten = []  # only after the commit, which may find the disk full
        except sqlite3.OperationalError as error:
            hint = "Check free disk space and permissions"
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                hint = "End what another process does with it"
            raise UserError(
                f"The journal {self.path} cannot be written: {error}.",
                f"{hint}, then run the same command again: nothing is lost.",
                code=3,
            ) from error


def set_note(db: sqlite3.Connection, key: str, value: str) -> None:
    """Write or replace a note within a transaction."""
    db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, value))


def add_span(db: sqlite3.Connection, span: Span) -> None:
    """Write a stretch of the timeline within a transaction."""
    db.execute(
        "INSERT INTO timeline (experiment, trial, phase, started, finished) VALUES (?, ?, ?, ?, ?)",
        (span.experiment, span.trial, span.phase, span.started, span.finished),
    )


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    _run_steps(db, 0)


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring a file of any older version to the current one.

    Raises:
        UserError: If it was written by a newer version.
    """
    if _version(db) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)  # another process may have upgraded it meanwhile
        if not 1 <= version <= SCHEMA_VERSION:
            raise UserError(
                f"{path} has journal schema {version}; this version reads {SCHEMA_VERSION}.",
                "Use the version of autoresearch that wrote it, or start a search under another name.",
            )
        _run_steps(db, version)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _run_steps(db: sqlite3.Connection, version: int) -> None:
    for number, step in enumerate(_STEPS[version:], start=version + 1):
        if callable(step):
            step(db)
        else:
            for statement in step.split(";\n"):  # one by one: `executescript` would commit the transaction
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
