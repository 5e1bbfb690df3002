"""Small records that the journal keeps as notes: the texts of the brief, and costs that led to no proposal.

Each is JSON under one key. The brief may be edited while a search runs; each text that proposers were given
is recorded with the time from which it was used. A proposal carries what its author has cost since the
author's last one; what no proposal carries is recorded here, so that the totals are right.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from autoresearch.store.journal import Journal
from autoresearch.types import Cost

BRIEFS, UNBILLED = "briefs", "owed"
"""The keys."""


class Notes(Protocol):
    """Texts by key; a journal, or a snapshot of one."""

    def get(self, key: str) -> str | None:
        """The note under a key, if there is one."""


class WritableNotes(Notes, Protocol):
    """Notes that can be changed; a journal."""

    def set(self, key: str, value: str) -> None:
        """Write or replace the note under a key."""


@dataclass(frozen=True)
class Brief:
    """One text of the brief.

    Attributes:
        time: Unix time from which it was used, in seconds.
        name: Of a shipped brief, or path.
        text: Its Markdown.
    """

    time: float
    name: str
    text: str


def read_briefs(notes: Notes) -> list[Brief]:
    """Every text that the brief has had, oldest first; empty for old searches, which did not record them."""
    return [Brief(**item) for item in json.loads(notes.get(BRIEFS) or "[]")]


def current_brief(journal: Journal, path: Path, name: str = "") -> str:
    """The brief as it is now; if it has changed since the last call, the new text is recorded.

    A file that cannot be read or is empty (deleted, or half written) counts as unchanged, so that no search
    ends at night because of it.

    Args:
        journal: Of the search.
        path: The file.
        name: What it is called in the configuration; empty if that has not changed.
    """
    info, known = journal.info(), read_briefs(journal)
    if not known:
        known = [Brief(info.created, info.brief, info.brief_text)] if info.brief_text else []
    last = known[-1] if known else Brief(info.created, info.brief, "")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return last.text
    if not text.strip() and last.text:
        return last.text
    if text != last.text or not journal.get(BRIEFS):
        if text != last.text:
            known.append(Brief(time.time(), name or info.brief, text))
        journal.set(BRIEFS, json.dumps([asdict(brief) for brief in known]))
        journal.update(brief=name or info.brief, brief_text=text)
    return text


def read_unbilled(notes: Notes) -> dict[str, Cost]:
    """Proposer and model ("anthropic:claude-sonnet-5-5") -> what it has cost that no proposal carries."""
    return {who: Cost(**cost) for who, cost in json.loads(notes.get(UNBILLED) or "{}").items()}


def write_unbilled(notes: WritableNotes, unbilled: Mapping[str, Cost]) -> None:
    """Record costs that no proposal carries; nothing is written if nothing has changed."""
    text = json.dumps({who: asdict(cost) for who, cost in unbilled.items()})
    if text != (notes.get(UNBILLED) or "{}"):
        notes.set(UNBILLED, text)
