"""Which searches a folder holds, which one a command means that names none, and how a new one is called.

Looking at a search changes nothing of it: a journal is opened for reading, and what other processes do to
files and folders counts for nothing. Not covered: what the journal of a search holds (`reader`).
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.store.connection import JOURNAL, holds_search, open_read_only
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease

STOPPED = "stopped"
"""Key of the note which says that a search ended before it was done."""
PLAN = "contest.json"
"""Where a contest keeps its plan; a folder with such a file is one."""


@dataclass(frozen=True)
class Known:
    """A search as its journal tells of it.

    Attributes:
        folder: Its folder; the last part is its name.
        created: When it was begun, Unix time in seconds.
        done: Whether it ended by itself.
        runs: Whether a process runs it now, as far as can be known from here.
    """

    folder: Path
    created: float
    done: bool
    runs: bool

    @property
    def name(self) -> str:
        """Its name."""
        return self.folder.name


def go_on(folder: Path) -> str:
    """The command that goes on with a search; with an inner search, whatever has begun it goes on.

    Args:
        folder: Of the search.
    """
    outer = folder.parent.parent
    if folder.parent.name == "inner" and (outer / PLAN).exists():
        command, folder = "contest", outer
    else:
        inside = folder.parent.name == "inner" and holds_search(outer)
        command, folder = "run", outer if inside else folder
    where = "" if folder.parent.name == "runs" else f" runs={folder.parent}"
    return f"autoresearch {command} name={folder.name}{where}"


def searches(runs: Path) -> list[Known]:
    """All searches whose journals can be read, the one begun first at the beginning."""
    found = filter(None, (_look(path) for path in runs.glob(f"*/{JOURNAL}")))
    return sorted(found, key=lambda known: (known.created, known.name))


def journals(found: Iterable[Known]) -> Iterator[Journal]:
    """The journal of each search that can be read; it is closed before the next one is opened."""
    for known in found:
        try:
            journal = Journal.of(known.folder)
        except Exception:  # of another version, or broken
            continue
        with closing(journal):
            yield journal


def meant(runs: Path) -> tuple[Known, str]:
    """The search that a command means that names none: the one that runs, or else the one begun last.

    Returns:
        The search, and why it is this one.

    Raises:
        UserError: If there is none, or if several run.
    """
    known = searches(runs)
    running = [search for search in known if search.runs]
    if len(running) > 1:
        names = ", ".join(search.name for search in running)
        raise UserError(f"Several searches run: {names}.", f"Say which one: name={running[-1].name}")
    if running:
        return running[0], "which runs"
    if not known:
        raise UserError(f"There is no search in {runs}.", "Start one: autoresearch run")
    return known[-1], "which was begun last"


def unnamed(runs: Path, taken: Collection[str]) -> str:
    """The name of the search that `run` means without a name.

    It is the search begun last, if that has not ended; otherwise a new one, called after the day.

    Args:
        runs: Where the searches are.
        taken: Names that something else has.
    """
    known = searches(runs)
    day = time.strftime("%b%d").lower()
    if known and not known[-1].done and not known[-1].runs:
        return known[-1].name
    names = {search.name for search in known if search.done} | (
        set(taken) - {search.name for search in known}
    )
    return next(name for n in itertools.count(1) if (name := f"{day}-{n}" if n > 1 else day) not in names)


def _look(path: Path) -> Known | None:
    try:
        with open_read_only(path) as db:
            notes = dict(db.execute("SELECT key, value FROM notes WHERE key IN ('info', 'lease', 'stopped')"))
        info = json.loads(notes["info"])
        lease = Lease.from_json(notes.get("lease"))
        done = info.get("finished") is not None and not notes.get(STOPPED)
        return Known(path.parent, float(info["created"]), done, lease is not None and not lease.dead)
    except (sqlite3.Error, OSError, KeyError, ValueError, TypeError):
        return None  # of another version, or broken: it can still be named
