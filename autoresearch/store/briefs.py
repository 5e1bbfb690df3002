"""Which brief steered the search, and since when: it may be edited while the search runs.

Owns the journal's note of every text that the brief has had. Invariants: a proposer sees what is recorded
here; a brief that cannot be read just now (deleted, half written) counts as unchanged, since nobody is there
at night.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from autoresearch.store.journal import Journal

KEY = "briefs"


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


class Notes(Protocol):
    """What is needed of a journal to read."""

    def get(self, key: str) -> str | None:
        """A note."""


def read_briefs(journal: Notes) -> list[Brief]:
    """Every text that the brief has had, oldest first; empty for a search from before this was recorded."""
    return [Brief(**item) for item in json.loads(journal.get(KEY) or "[]")]


def current_brief(journal: Journal, path: Path, name: str = "") -> str:
    """The brief as it is now; a change since the last time is written down.

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
    if text != last.text or not journal.get(KEY):
        if text != last.text:
            known.append(Brief(time.time(), name or info.brief, text))
        journal.set(KEY, json.dumps([asdict(brief) for brief in known]))
        journal.update(brief=name or info.brief, brief_text=text)
    return text
