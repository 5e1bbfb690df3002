"""Text of others in what a model reads: it cannot pass for ours.

Invariant: what a candidate printed reaches a model only through `quoted`, whatever way it takes; the rules
that every model is told say what that mark means.
"""

from __future__ import annotations

import re

from autoresearch.propose.llm.answer import clean


def quoted(text: str) -> str:
    """Text from a candidate, marked so that it cannot pass for anything else."""
    return f"<data>\n{inert(text)}\n</data>"


def inert(text: str) -> str:
    """Text that cannot open or close one of our tags, nor break the encoding."""
    return re.sub(r"<(?=/?(experiment|data|diff|script|brief|note|idea)\b)", "‹", clean(text))
