"""Proposers: who suggests the next change. One strategy a file; `create_proposer` makes one by name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from autoresearch.errors import UserError
from autoresearch.types import Proposer

PROPOSERS = {
    "anthropic": "AnthropicProposer",
    "optuna": "OptunaProposer",
    "random": "RandomProposer",
    "replay": "ReplayProposer",
}
"""Name -> class in the module of that name; imported only when asked for."""

TUNERS = ("optuna", "random")


def create_proposer(name: str, *, column: int, **options: Any) -> Proposer:
    """Make a proposer.

    Args:
        name: One of `PROPOSERS`.
        column: Which argument of `at(cpu, gpu)` is tuned: 0 for CPU, 1 for GPU. For those that tune knobs.
        options: The other arguments of its constructor.

    Raises:
        UserError: If there is no such proposer, an option is wrong, or it cannot start (e.g. a missing key).
    """
    if name not in PROPOSERS:
        near = get_close_matches(name, PROPOSERS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"there is no proposer {name!r}", f"did you mean {near!r}? known: {', '.join(PROPOSERS)}"
        )
    module = import_module(f"{__name__}.{name}")
    if name in TUNERS:
        options["column"] = column
    try:
        proposer: Proposer = getattr(module, PROPOSERS[name])(**options)
    except ValidationError as error:
        wrong = "; ".join(f"proposer.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(
            f"the proposer {name!r} cannot be set up so: {wrong}", "see configs/proposer"
        ) from None
    return proposer
