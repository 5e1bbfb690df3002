"""Every call of a language model, kept in `runs/<name>/calls.db`: for traces, and for caps.

Owns the record of what was asked, answered and paid, failed calls included, which the journal only knows as
the cost of the proposals they led to. Invariants: writing never fails the search; secrets of the environment
are blotted out before anything is written; very long texts lose their middle.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from autoresearch.record.text import clean, scrub
from autoresearch.types import Call, Cost, Draft, Experiment

MAX_CHARACTERS = 200_000
"""Kept of a prompt or an answer."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, model TEXT NOT NULL, started REAL NOT NULL,
    asked TEXT NOT NULL, answered TEXT NOT NULL, problem TEXT NOT NULL, calls INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, dollars REAL NOT NULL,
    seconds REAL NOT NULL);
CREATE INDEX IF NOT EXISTS calls_by_conversation ON calls (conversation);
"""
_COLUMNS = "model, started, asked, answered, problem, calls, input_tokens, output_tokens, dollars, seconds"


class CallLog:
    """The calls of one search.

    Args:
        folder: Of the search; must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "calls.db"

    def record(self, call: Call) -> None:
        """Write a call down; a full disk or a broken file loses the record, never the search."""
        cost = call.cost
        texts = (shortened(scrub(clean(text))) for text in (call.asked, call.answered, call.problem))
        numbers = (cost.calls, cost.input_tokens, cost.output_tokens, cost.dollars, cost.seconds)
        try:
            with self._open() as db, db:
                db.execute(
                    f"INSERT INTO calls (conversation, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (call.conversation, call.model, call.started, *texts, *numbers),
                )
        except sqlite3.Error:
            return

    def of(self, conversation: str) -> list[Call]:
        """The calls that led to one proposal, oldest first."""
        return list(self._read("WHERE conversation = ?", (conversation,)))

    def conversations(self) -> list[str]:
        """Every conversation, oldest first."""
        return list(dict.fromkeys(call.conversation for call in self._read("", ())))

    def spent(self, proposer: str) -> Cost:
        """What all calls of a proposer cost."""
        return sum((call.cost for call in self._read("WHERE model LIKE ? || ':%'", (proposer,))), Cost())

    def unbilled(
        self, proposer: str, experiments: Iterable[Experiment], drafts: Iterable[Draft] = ()
    ) -> Cost:
        """What a proposer spent beyond the cost of its proposals: calls that have led to none so far."""
        paid = self.spent(proposer)
        prefix = f"{proposer}:"
        made = [p for e in experiments for p in (e.proposal, *e.dropped) if p is not None]
        made += [draft.proposal for draft in drafts]
        billed = sum((p.cost for p in made if p.proposer.startswith(prefix)), Cost())
        return Cost(
            max(paid.calls - billed.calls, 0),
            max(paid.input_tokens - billed.input_tokens, 0),
            max(paid.output_tokens - billed.output_tokens, 0),
            max(paid.dollars - billed.dollars, 0.0),
            max(paid.seconds - billed.seconds, 0.0),
        )

    def _read(self, where: str, values: tuple[str, ...]) -> Iterator[Call]:
        if not self.path.exists():
            return
        try:
            with self._open() as db:
                rows = db.execute(
                    f"SELECT conversation, {_COLUMNS} FROM calls {where} ORDER BY id", values
                ).fetchall()
        except sqlite3.Error:
            return
        for row in rows:
            conversation, model, started, asked, answered, problem, *cost = row
            yield Call(conversation, model, started, asked, answered, problem, Cost(*cost))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=5)) as db:
            with suppress(sqlite3.OperationalError):  # another process is at it; any mode will do
                db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            yield db


def shortened(text: str, limit: int = MAX_CHARACTERS) -> str:
    """The text; if it is longer than `limit`, without its middle."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
