"""What was paid for calls that have led to no proposal yet: the journal's note of it.

A proposal carries what its author has cost since the author's last one. Where none follows, this note is what
keeps the totals right. Invariant: it holds what no proposal carries, by who was asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Protocol

from autoresearch.types import Cost

KEY = "owed"


class Notes(Protocol):
    """What is needed of a journal to read."""

    def get(self, key: str) -> str | None:
        """A note."""


class Written(Notes, Protocol):
    """What is needed of a journal to write."""

    def set(self, key: str, value: str) -> None:
        """Change a note."""


def read_owed(journal: Notes) -> dict[str, Cost]:
    """Who was paid in vain so far ("anthropic:claude-sonnet-5-5"), and how much."""
    return {who: Cost(**cost) for who, cost in json.loads(journal.get(KEY) or "{}").items()}


def write_owed(journal: Written, owed: Mapping[str, Cost]) -> None:
    """Write it down, if it is not what is there."""
    text = json.dumps({who: asdict(cost) for who, cost in owed.items()})
    if text != (journal.get(KEY) or "{}"):
        journal.set(KEY, text)
