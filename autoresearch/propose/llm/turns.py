"""A conversation with a model as plain values: how far it has come, and one turn of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.propose.llm.prompt import Prompt
from autoresearch.types import Cost, Proposal

Message = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass
class Talk:
    """One conversation with one model, as far as it has come.

    Attributes:
        model: Who is asked.
        name: What its calls are filed under.
        asked: How it began.
        limit: Of the next answer, in tokens.
        ledger: Budget of the history in `asked`, in tokens.
        replies: What was said since.
        tries: Answers that led to nothing.
        bounded: Whether there is no more room for an answer.
    """

    model: str
    name: str
    asked: Prompt
    limit: int
    ledger: int
    replies: list[Message] = field(default_factory=list)
    tries: int = 0
    bounded: bool = False


@dataclass
class Turn:
    """One request of a conversation, and what came of it."""

    answer: Answer = field(default_factory=dict)
    proposal: Proposal | None = None
    trouble: Exception | None = None
    cost: Cost | None = None


def words(message: Message) -> str:
    """The text of a message that we sent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text") or block.get("content") or "") for block in blocks)
