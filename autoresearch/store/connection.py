"""Opens the SQLite files of a search: to write, for one use, or for a look.

A transaction is on the disk when it has been committed. A file that another process has locked is waited for.
Where nothing can be written, a copy is read, since SQLite writes beside a file even to read it. Not covered:
what is in the files (`database`, `inbox`, `calls`).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil

JOURNAL = "journal.db"
"""The journal of a search, in its folder."""

WAIT_SECONDS = 3600.0
"""How long a transaction waits for another process that holds a lock on the file."""

BUSY_SECONDS = 30.0
"""How long SQLite itself waits, before a person is told."""


def holds_search(folder: Path) -> bool:
    """Whether there is a search in a folder."""
    return (folder / JOURNAL).exists()


def connect(path: Path, journal_mode: str = "WAL") -> sqlite3.Connection:
    """Open a file; a transaction is on the disk when it has been committed."""
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA journal_mode = {journal_mode}")
    db.execute("PRAGMA synchronous = FULL")
    return db


def begin(db: sqlite3.Connection, path: Path, say: Callable[[str], None]) -> None:
    """Begin a transaction that writes; waits for another process that writes, and says who that is.

    Args:
        db: An open file.
        path: Where it lies.
        say: Tells a person something.

    Raises:
        sqlite3.OperationalError: If the other process holds the file for longer than `WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            say(f"Waiting for {_holders(path)}, which holds a lock on {path}.")


def _holders(path: Path) -> str:
    """Other processes that have a file open, in words; of other users they cannot be seen."""
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and any(Path(f.path) == path for f in process.open_files()):
                found.append(f"process {process.pid} ({process.info['name']})")
    return " or ".join(found) or "another process"


@contextmanager
def open_once(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open a small database beside the journal for one use; any process and any thread may do so."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        with suppress(sqlite3.OperationalError):  # another process uses the file; any mode will do
            db.execute("PRAGMA journal_mode = WAL")
        db.executescript(schema)
        yield db


@contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file for a look; nothing of it changes, not even its version."""
    with ExitStack() as stack:
        if not writable(path):
            path = Path(stack.enter_context(copied(path)), path.name)
        uri = f"{path.resolve().as_uri()}?mode=ro"
        yield stack.enter_context(closing(sqlite3.connect(uri, uri=True, timeout=30)))


def writable(path: Path) -> bool:
    """Whether SQLite can work on a file in its place, which takes files beside it even for reading."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def copied(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder with a copy of an SQLite file as it is now, for reading where nothing can be written."""
    folder = tempfile.TemporaryDirectory(prefix="autoresearch-")
    for part in (path, path.with_name(f"{path.name}-wal")):
        if part.exists():
            shutil.copyfile(part, Path(folder.name, part.name))
    return folder
