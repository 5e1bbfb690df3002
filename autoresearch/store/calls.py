"""Every call of a language model, recorded in `runs/<name>/calls.db`: for traces, and for caps on spending.

The record has what was asked, answered and paid, of failed calls too; the journal has only the cost of the
proposals that calls led to. A call is recorded before it is made, at the most that it can cost, and again
when the cost is known. A record that cannot be written never fails the search. Secrets of the environment are
removed before anything is written; very long texts lose their middle.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch.config.roles import ROLES
from autoresearch.store.connection import open_once, open_read_only, writable
from autoresearch.text import clean, scrub
from autoresearch.types import Call, Cost, Draft, Experiment

MAX_CHARACTERS = 200_000
"""How much of a prompt or an answer is recorded."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, model TEXT NOT NULL, started REAL NOT NULL,
    asked TEXT NOT NULL, answered TEXT NOT NULL, problem TEXT NOT NULL, calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, dollars REAL NOT NULL,
    seconds REAL NOT NULL);
CREATE INDEX IF NOT EXISTS calls_by_conversation ON calls (conversation);
"""


class CallLog:
    """The calls of one search.

    Args:
        folder: Of the search; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "calls.db"

    def record(self, call: Call) -> None:
        """Record a call, in place of an earlier record of it; a full disk or a broken file is ignored."""
        row = {**asdict(call), **asdict(call.cost)}
        row.pop("cost")
        for name in ("asked", "answered", "problem"):
            row[name] = shortened(scrub(clean(row[name])))
        assignments, marks = ", ".join(f"{n} = :{n}" for n in row), ", ".join(f":{n}" for n in row)
        same = "conversation = :conversation AND model = :model AND started = :started"
        with suppress(sqlite3.Error), open_once(self.path, _SCHEMA) as db:
            if not db.execute(f"UPDATE calls SET {assignments} WHERE {same}", row).rowcount:
                db.execute(f"INSERT INTO calls ({', '.join(row)}) VALUES ({marks})", row)

    def of(self, conversation: str) -> list[Call]:
        """The calls that led to one proposal, oldest first."""
        rows = self._rows("SELECT * FROM calls WHERE conversation = ? ORDER BY id", conversation)
        return [Call(*(*row[1:7], Cost(*row[7:]))) for row in rows]

    def conversations(self) -> list[str]:
        """Every conversation, oldest first."""
        rows = self._rows("SELECT conversation FROM calls GROUP BY conversation ORDER BY MIN(id)")
        return [name for (name,) in rows]

    def spent(self, who: str) -> Cost:
        """What all calls of a proposer, or of one of its models ("anthropic:claude-sonnet-5-5"), cost."""
        rows = self._rows(
            "SELECT TOTAL(calls), TOTAL(input_tokens), TOTAL(output_tokens), TOTAL(dollars), TOTAL(seconds) "
            "FROM calls WHERE model = ?1 OR SUBSTR(model, 1, LENGTH(?1) + 1) = ?1 || ':'",
            who,
        )
        calls, asked, answered, dollars, seconds = rows[0] if rows else (0, 0, 0, 0.0, 0.0)
        return Cost(int(calls), int(asked), int(answered), dollars, seconds)

    def by_role(self) -> dict[str, Cost]:
        """What the calls of each role of a brief cost; those of the proposer are its own."""
        rows = self._rows(
            "SELECT model, TOTAL(calls), TOTAL(input_tokens), TOTAL(output_tokens), TOTAL(dollars), "
            "TOTAL(seconds) FROM calls GROUP BY model"
        )
        found: dict[str, Cost] = {}
        for who, calls, asked, answered, dollars, seconds in rows:
            role = next((role for role in ROLES if who.endswith(f":{role}")), "proposer")
            cost = Cost(int(calls), int(asked), int(answered), dollars, seconds)
            found[role] = found.get(role, Cost()) + cost
        return found

    def unbilled(self, who: str, experiments: Iterable[Experiment], drafts: Iterable[Draft] = ()) -> Cost:
        """What was spent on calls that have led to no proposal yet.

        Args:
            who: A proposer, or one of its models.
            experiments: All of the search.
            drafts: Proposals that wait to become experiments.
        """
        made = [p for e in experiments for p in (e.proposal, *e.dropped) if p is not None]
        made += [draft.proposal for draft in drafts]
        theirs = (p.cost for p in made if p.proposer == who or p.proposer.startswith(f"{who}:"))
        return self.spent(who).beyond(sum(theirs, Cost()))

    def shorten(self, before: float, characters: int) -> bool:
        """Cut the texts of calls that began before a moment to their last characters; what they cost stays.

        Args:
            before: Unix time in seconds.
            characters: How much of each text stays.

        Returns:
            Whether anything was cut.
        """
        if not self.path.exists():
            return False
        with open_once(self.path, _SCHEMA) as db:
            cut = db.execute(
                "UPDATE calls SET asked = substr(asked, -:most), answered = substr(answered, -:most) "
                "WHERE started < :before AND max(length(asked), length(answered)) > :most",
                {"most": characters, "before": before},
            ).rowcount
            if cut:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return cut > 0

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            return []
        try:
            look = not writable(self.path)
            with open_read_only(self.path) if look else open_once(self.path, _SCHEMA) as db:
                return db.execute(query, values).fetchall()
        except sqlite3.Error:
            return []


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The text; if it is longer than `limit`, without its middle."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
