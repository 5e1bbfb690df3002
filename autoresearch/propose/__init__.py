"""Proposers suggest the next change. Each file holds one strategy; `create_proposer` makes one by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from autoresearch.config import CONFIGS, explained
from autoresearch.errors import UserError
from autoresearch.propose.base import Proposer, SearchServices
from autoresearch.registry import Registry

PROPOSERS = Registry(
    "proposer",
    {
        "anthropic": "autoresearch.propose.llm.providers.anthropic:AnthropicProposer",
        "command": "autoresearch.propose.agent:CommandProposer",
        "openai": "autoresearch.propose.llm.providers.openai:OpenAIProposer",
        "optuna": "autoresearch.propose.tune.optuna:OptunaProposer",
        "portfolio": "autoresearch.propose.bandit:BanditProposer",
        "queue": "autoresearch.propose.queue:QueueProposer",
        "random": "autoresearch.propose.tune.knobs:RandomProposer",
        "replay": "autoresearch.propose.queue:ReplayProposer",
    },
)


def create_proposer(
    name: str,
    *,
    column: int,
    fallback: str | None = None,
    services: SearchServices | None = None,
    **options: Any,
) -> Proposer:
    """Make a proposer.

    Args:
        name: One of `PROPOSERS`.
        column: Which argument of `at(cpu, gpu)` is tuned: 0 for CPU, 1 for GPU. For those that tune knobs.
        fallback: The proposer that stands in while that one cannot propose, with its shipped settings; None:
            none.
        services: What the search lends; None for proposers that need nothing.
        options: The other arguments of its constructor.

    Raises:
        UserError: If there is no such proposer, an option is wrong, or it cannot start (e.g. a missing key).
    """
    first = member(name, column, services, options)
    second = None
    if fallback == name:
        raise UserError(f"proposer.fallback: {name!r} cannot stand in for itself", "optuna needs no network")
    if fallback is not None:
        PROPOSERS.load(str(fallback))
        second = member(fallback, column, services, settings(fallback))
    if services is None and second is None:
        return first
    from autoresearch.propose.portfolio import Portfolio

    if services is None:
        return Portfolio(first, second)
    return Portfolio(first, second, services.inbox, services.say, services.refused)


def followed(brief: str, proposer: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a brief the proposals can depend on.

    Args:
        brief: Its text.
        proposer: The configuration group of that name.
    """
    members = proposer.get("members") or [proposer]
    names = (member if isinstance(member, str) else str(member["name"]) for member in members)
    return tuple(PROPOSERS.load(name).followed(brief) for name in names)


def settings(name: str) -> dict[str, Any]:
    """The shipped settings of a proposer, without its name and its stand-in; empty if there are none."""
    from omegaconf import OmegaConf

    path = CONFIGS / "proposer" / f"{name}.yaml"
    loaded = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key not in ("name", "fallback")}


def member(name: str, column: int, services: SearchServices | None, options: dict[str, Any]) -> Proposer:
    """Make one proposer, without a stand-in; see `create_proposer`."""
    kind = PROPOSERS.load(name)
    lent = {"column": column, "services": services}
    wanted = inspect.signature(kind).parameters
    try:
        proposer: Proposer = kind(**options, **{key: lent[key] for key in lent.keys() & wanted.keys()})
    except ValidationError as error:
        raise explained(error, "proposer") from None
    return proposer
