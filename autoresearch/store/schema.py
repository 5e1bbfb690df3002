"""The tables of the journal, and how older files become current ones.

Owns the invariant that a file is upgraded in place, in one transaction, without losing a row; a file of a
newer version is refused. A change of the tables raises `SCHEMA_VERSION` and adds a step to `_STEPS`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from autoresearch.errors import UserError

SCHEMA_VERSION = 2

_FIRST = """
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

_STEPS = {
    # `version` grows with every change of an experiment, so that a reader asks only for what is new to it.
    1: """
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
""",
}
"""What turns a file of a version into one of the next."""


def connect(path: Path, journal_mode: str = "WAL") -> sqlite3.Connection:
    """Open a file as every reader and writer of the journal does."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA journal_mode = {journal_mode}")
    db.execute("PRAGMA synchronous = FULL")
    return db


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    _script(db, _FIRST)
    db.execute("PRAGMA user_version = 1")
    _climb(db, 1)


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring a file to the current version, whatever wrote it.

    Raises:
        UserError: If it was written by a newer version.
    """
    if _version(db) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)  # somebody else may have been faster
        if not 1 <= version <= SCHEMA_VERSION:
            raise UserError(
                f"{path} has journal schema {version}; this version reads {SCHEMA_VERSION}.",
                "Use the version of autoresearch that wrote it, or start a search under another name.",
            )
        _climb(db, version)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _climb(db: sqlite3.Connection, version: int) -> None:
    for step in range(version, SCHEMA_VERSION):
        _script(db, _STEPS[step])
        db.execute(f"PRAGMA user_version = {step + 1}")


def _script(db: sqlite3.Connection, text: str) -> None:
    """Like `executescript`, which would commit the transaction it is in."""
    for statement in text.split(";\n"):
        db.execute(statement)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
