"""The process of an inner search: the command line of any search, tied to the process that started it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from autoresearch.clock import now
from autoresearch.store.connection import open_read_only
from autoresearch.store.journal import Journal

TIED = """
import ctypes, os, runpy, signal, sys
libc = ctypes.CDLL(None)
if hasattr(libc, "prctl"):
    libc.prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(128 + signal.SIGTERM)
runpy.run_module("autoresearch", run_name="__main__", alter_sys=True)
"""
"""Runs the command line, and ends with the process that started it (on Linux, PR_SET_PDEATHSIG)."""
LOOK, KEEP_TIME, PATIENCE = 0.2, 5.0, 60.0
"""Seconds between two looks at an inner search, and two notes of its time; and for it to end when told to."""


def run_search(code: Path, overrides: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Run a search through the command line, in a process that ends with this one.

    Args:
        code: The repository.
        overrides: As for `autoresearch run`.
        log: What it says is added there.
        tick: Called several times a second; if it raises, the search is stopped.

    Returns:
        Its exit code.
    """
    # -P: the repository may hold modules of any name; they are not to be imported here.
    command = [sys.executable, "-P", "-c", TIED, str(os.getpid()), "run", "--view", "plain", *overrides]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=code, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while process.poll() is None:
            tick()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
    finally:
        if process.poll() is None:
            _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a search as Ctrl-C does; one that does not end is killed."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tried(journal: Path) -> int:
    """Number of experiments with a verdict; 0 while there is no journal."""
    try:
        with open_read_only(journal) as db:
            return int(db.execute("SELECT COUNT(*) FROM experiments WHERE verdict IS NOT NULL").fetchone()[0])
    except (sqlite3.Error, OSError):
        return 0


def runs(journal: Path) -> bool:
    """Whether a process runs the search."""
    with Journal(journal) as opened:
        return opened.runner() is not None


class Clock:
    """How long an inner search has run, all its processes together; kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self._since, self._noted = path, now(), 0.0
        try:
            self.before = float(path.read_text())
        except (OSError, ValueError):
            self.before = 0.0

    def tick(self) -> float:
        """Seconds so far."""
        seconds = self.before + now() - self._since
        if seconds - self._noted > KEEP_TIME:
            self.note()
        return seconds

    def note(self) -> None:
        """Keep the time for the case that this process is killed."""
        self._noted = self.before + now() - self._since
        half = self.path.with_suffix(".half")
        half.write_text(f"{self._noted:.3f}")
        half.replace(self.path)
