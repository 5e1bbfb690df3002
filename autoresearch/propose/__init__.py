"""Proposers: who suggests the next change. One strategy a file; `create_proposer` makes one by name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from autoresearch.errors import UserError
from autoresearch.types import Proposer

PROPOSERS = {
    "anthropic": "AnthropicProposer",
    "optuna": "OptunaProposer",
    "random": "RandomProposer",
    "replay": "ReplayProposer",
}
"""Name -> class in the module of that name; imported only when asked for."""


def create_proposer(name: str, **options: Any) -> Proposer:
    """Make a proposer.

    Args:
        name: One of `PROPOSERS`.
        options: Its constructor's arguments.

    Raises:
        UserError: If there is no such proposer, or it cannot start (e.g. a missing key).
    """
    if name not in PROPOSERS:
        near = get_close_matches(name, PROPOSERS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"there is no proposer {name!r}", f"did you mean {near!r}? known: {', '.join(PROPOSERS)}"
        )
    module = import_module(f"{__name__}.{name}")
    proposer: Proposer = getattr(module, PROPOSERS[name])(**options)
    return proposer
