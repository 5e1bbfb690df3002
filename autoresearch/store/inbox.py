"""What people say to a search while it runs: notes, ideas, patches, its brief, and pause, resume, stop.

A small SQLite file beside the journal, `runs/<name>/inbox.db`. Any number of processes may write it at any
time, while the journal is written by the search alone. Each method opens the file anew, so it may be called
from any thread. An idea is open, taken (a proposal tests it), refused (with the reason) or dropped (by a
person). A taken idea whose proposal did not become an experiment is opened again by `reopen`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.errors import UserError
from autoresearch.store.connection import open_once, open_read_only, writable
from autoresearch.store.records.notes import Brief
from autoresearch.text import count
from autoresearch.types import GuardMetric, Idea, Plain

MAX_TEXT, MAX_PATCH, MAX_BRIEF = 4000, 400_000, 100_000
"""Characters of a note or an idea, of a patch, and of a brief."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (number INTEGER PRIMARY KEY, written REAL NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ideas (
    number INTEGER PRIMARY KEY, written REAL NOT NULL, text TEXT NOT NULL, patch TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'open', reason TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS origins (idea INTEGER PRIMARY KEY, source TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readings (number INTEGER PRIMARY KEY, source TEXT NOT NULL, dollars REAL NOT NULL);
CREATE TABLE IF NOT EXISTS guards (number INTEGER PRIMARY KEY, guard TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS wishes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Entry:
    """An idea and its state.

    Attributes:
        idea: What was written.
        state: "open", "taken", "refused" or "dropped".
        reason: Why it was refused.
        source: Where it was read; empty if a person had it.
        plain: What was read there, without what was said about it.
    """

    idea: Idea
    state: str
    reason: str
    source: str = ""
    plain: str = ""


@dataclass(frozen=True)
class DevisedGuard(Plain):
    """A guard that somebody proposed.

    Attributes:
        metric: What it measures.
        reason: What gains may be exploiting, by its author: data, never instructions.
        author: Who proposed it.
        number: From 1.
        state: "proposed", "accepted" or "dropped".
    """

    metric: GuardMetric
    reason: str
    author: str
    number: int = 0
    state: str = "proposed"


class Inbox:
    """The inbox of one search.

    Args:
        folder: Of the search; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "inbox.db"

    # Notes

    def add_note(self, text: str) -> None:
        """Leave a note to the proposers."""
        self._write("INSERT INTO notes (written, text) VALUES (?, ?)", time.time(), _checked(text))

    def notes(self) -> tuple[str, ...]:
        """Every note, oldest first."""
        return tuple(text for (text,) in self._read("SELECT text FROM notes ORDER BY number"))

    # Ideas

    def add_idea(self, text: str, patch: str = "") -> int:
        """Leave an idea, in words or as a patch; returns its number."""
        if len(patch) > MAX_PATCH:
            raise UserError(f"The patch has {len(patch):,} characters; at most {MAX_PATCH:,} are taken.")
        statement = "INSERT INTO ideas (written, text, patch) VALUES (?, ?, ?)"
        return self._write(statement, time.time(), _checked(text), patch)

    def entries(self) -> tuple[Entry, ...]:
        """Every idea with its state, oldest first."""
        rows = self._read(
            "SELECT number, ideas.text, patch, state, reason, source, origins.text FROM ideas "
            "LEFT JOIN origins ON origins.idea = number ORDER BY number"
        )
        return tuple(
            Entry(Idea(number, text, patch), state, why, source or "", plain or "")
            for number, text, patch, state, why, source, plain in rows
        )

    def add_scouted(self, text: str, source: str, plain: str, patch: str = "") -> int:
        """Leave an idea that was read somewhere; returns its number.

        Args:
            text: The idea with all that is said about it.
            source: Where it was read.
            plain: The idea alone.
            patch: The change, if it is known.
        """
        number = self.add_idea(text, patch)
        self._write("INSERT OR REPLACE INTO origins VALUES (?, ?, ?)", number, source, plain)
        return number

    def paid_for(self, source: str, dollars: float) -> None:
        """Record what reading a source has cost."""
        self._write("INSERT INTO readings (source, dollars) VALUES (?, ?)", source, dollars)

    def readings(self) -> dict[str, float]:
        """Every source that was read -> dollars that it has cost."""
        rows = self._read("SELECT source, SUM(dollars) FROM readings GROUP BY source ORDER BY MIN(number)")
        return dict(rows)

    def ideas(self) -> tuple[Idea, ...]:
        """The ideas that are open, oldest first."""
        return tuple(entry.idea for entry in self.entries() if entry.state == "open")

    def take(self, number: int) -> None:
        """Record that a proposal tests this idea."""
        self._set_state(number, "taken")

    def refuse(self, number: int, reason: str) -> None:
        """Record that this idea cannot be tested, and why."""
        self._set_state(number, "refused", reason)

    def drop(self, number: int) -> None:
        """Withdraw an idea.

        Raises:
            UserError: If there is none of that number, or it is no longer open.
        """
        known = {entry.idea.number: entry for entry in self.entries()}
        if number not in known:
            raise UserError(f"There is no idea {number}.", "List them: autoresearch idea list")
        if known[number].state == "taken":
            raise UserError(f"Idea {number} was taken up already.", "Follow it with: autoresearch log")
        self._set_state(number, "dropped")

    def reopen(self, tested: Collection[int]) -> None:
        """Open the taken ideas again that no experiment tests, since their proposals were given up or lost.

        Args:
            tested: Numbers of the ideas that experiments test.
        """
        for entry in self.entries():
            if entry.state == "taken" and entry.idea.number not in tested:
                self._set_state(entry.idea.number, "open")

    def _set_state(self, number: int, state: str, reason: str = "") -> None:
        self._write("UPDATE ideas SET state = ?, reason = ? WHERE number = ?", state, reason, number)

    # Guards

    def add_guard(self, guard: DevisedGuard) -> int:
        """Propose a guard; returns its number."""
        statement = "INSERT INTO guards (guard, state) VALUES (?, ?)"
        return self._write(statement, json.dumps(guard.to_dict()), guard.state)

    def guards(self) -> tuple[DevisedGuard, ...]:
        """Every guard that was proposed, oldest first."""
        rows = self._read("SELECT number, guard, state FROM guards ORDER BY number")
        return tuple(
            replace(DevisedGuard.from_dict(json.loads(guard)), number=number, state=state)
            for number, guard, state in rows
        )

    def decide_guard(self, number: int, state: str) -> DevisedGuard:
        """Accept or drop a guard.

        Raises:
            UserError: If there is none of that number.
        """
        found = next((guard for guard in self.guards() if guard.number == number), None)
        if found is None:
            raise UserError(f"No guard {number} was proposed.", "List them: autoresearch guards list")
        self._write("UPDATE guards SET state = ? WHERE number = ?", state, number)
        return replace(found, state=state)

    def release(self, experiment: int, idea: int) -> None:
        """Record that a person releases a held experiment, whose patch is tried again as an idea."""
        released = json.dumps({**self.released(), experiment: idea})
        self._write("INSERT OR REPLACE INTO wishes VALUES ('released', ?)", released)

    def released(self) -> dict[int, int]:
        """Held experiments that were released -> the idea with their patch."""
        rows = self._read("SELECT value FROM wishes WHERE name = 'released'")
        return {int(number): idea for number, idea in json.loads(rows[0][0]).items()} if rows else {}

    # The brief

    def edit_brief(self, name: str, text: str) -> Brief:
        """Give the search another text of its brief from its next question on; returns what is recorded.

        Args:
            name: Of the brief that was edited; a search that goes on with another one follows that.
            text: All of it, in Markdown.
        """
        if "\0" in text or len(text) > MAX_BRIEF:
            raise UserError(f"A brief has at most {MAX_BRIEF:,} characters, and no NUL bytes.")
        edited = Brief(time.time(), name, _checked(text, MAX_BRIEF))
        self._write("INSERT OR REPLACE INTO wishes VALUES ('brief', ?)", json.dumps(edited.to_dict()))
        return edited

    def edited_brief(self) -> Brief | None:
        """The text that was last given so, if one was."""
        rows = self._read("SELECT value FROM wishes WHERE name = 'brief'")
        return Brief.from_dict(json.loads(rows[0][0])) if rows else None

    # Pause, resume, stop

    def wish(self, value: str) -> None:
        """Ask the search to "run", "pause" or "stop"."""
        assert value in ("run", "pause", "stop")
        self._write("INSERT OR REPLACE INTO wishes VALUES ('state', ?)", value)

    @property
    def wished(self) -> str:
        """What the search was asked to do: "run", "pause" or "stop"."""
        rows = self._read("SELECT value FROM wishes WHERE name = 'state'")
        return str(rows[0][0]) if rows else "run"

    def begin(self) -> None:
        """Called when the search starts: who starts it wants it to run, whatever was asked for before."""
        if self.wished != "run":
            self.wish("run")

    def told(self) -> str:
        """What is in here, in a line; empty if there is nothing."""
        wishes = {"pause": "asked to pause (go on with: autoresearch resume)", "stop": "asked to stop"}
        parts = [wishes[self.wished]] if self.wished in wishes else []
        parts += [count(number, "note")] if (number := len(self.notes())) else []
        parts += [count(number, "open idea")] if (number := len(self.ideas())) else []
        return ", ".join(parts)

    # The file

    def _read(self, query: str) -> Sequence[tuple[Any, ...]]:
        if not self.path.exists():
            return []
        with self._open(reading=True) as db:
            return db.execute(query).fetchall()

    def _write(self, statement: str, *values: object) -> int:
        """Run one statement; gives the number of the row that it added, if it did."""
        with self._open() as db:
            return db.execute(statement, values).lastrowid or 0

    @contextmanager
    def _open(self, reading: bool = False) -> Iterator[sqlite3.Connection]:
        look = reading and not writable(self.path)
        try:
            with open_read_only(self.path) if look else open_once(self.path, _SCHEMA) as db:
                yield db
        except sqlite3.Error as error:
            raise UserError(
                f"The inbox {self.path} cannot be used: {error}.",
                "Check free disk space and permissions; it can be deleted, the search does not depend on it.",
                code=3,
            ) from error


def _checked(text: str, most: int = MAX_TEXT) -> str:
    text = text.strip()
    if not text:
        raise UserError(
            "There is nothing in that text.", 'Say it in quotes: autoresearch note "try fewer heads"'
        )
    return text.encode("utf-8", "replace").decode()[:most]
