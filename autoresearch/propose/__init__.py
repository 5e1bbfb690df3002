"""Proposers: who suggests the next change. One strategy a file; `create_proposer` makes one by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from autoresearch.config import CONFIGS
from autoresearch.errors import UserError
from autoresearch.propose.base import Proposer
from autoresearch.types import Call, Cost

if TYPE_CHECKING:
    from autoresearch.propose.agent import Tool
    from autoresearch.propose.queue import Inbox

PROPOSERS = {
    "anthropic": "llm.anthropic:AnthropicProposer",
    "command": "agent:CommandProposer",
    "openai": "llm.openai:OpenAIProposer",
    "optuna": "tune.optuna:OptunaProposer",
    "queue": "queue:QueueProposer",
    "random": "tune.random:RandomProposer",
    "replay": "replay:ReplayProposer",
}
"""Name -> module of this room and class in it; imported only when asked for."""

TUNERS = ("optuna", "random")
PAID = ("anthropic", "openai", "command")


@dataclass(frozen=True)
class Desk:
    """What the search that proposers work for lends them.

    Attributes:
        folder: Where an agent may work; emptied at will.
        tree: Writes the task's files into a folder.
        tool: Runs programs; see `autoresearch.execute.tool`.
        inbox: Where people's ideas wait; None if nobody can leave any.
        record: Where calls are written down.
        spent: What a proposer of that name, or a model of it ("anthropic:claude-sonnet-5-5"), spent before,
            beyond what the history tells.
        say: Tells a person something.
    """

    folder: Path
    tree: Callable[[Path], None]
    tool: Tool
    inbox: Inbox | None
    record: Callable[[Call], None]
    spent: Callable[[str], Cost]
    say: Callable[[str], None]


def create_proposer(
    name: str, *, column: int, fallback: str | None = None, desk: Desk | None = None, **options: Any
) -> Proposer:
    """Make a proposer.

    Args:
        name: One of `PROPOSERS`.
        column: Which argument of `at(cpu, gpu)` is tuned: 0 for CPU, 1 for GPU. For those that tune knobs.
        fallback: Who proposes while that one cannot, with the settings of its file; None: nobody.
        desk: What the search lends; None for those that need nothing of it.
        options: The other arguments of its constructor.

    Raises:
        UserError: If there is no such proposer, an option is wrong, or it cannot start (e.g. a missing key).
    """
    first = _create(name, column, desk, options)
    second = None if fallback is None else _create_fallback(name, fallback, column, desk)
    if desk is None and second is None:
        return first
    from autoresearch.propose.portfolio import Line

    return Line(first, second, desk.inbox if desk else None, desk.say if desk else lambda text: None)


def settings(name: str) -> dict[str, Any]:
    """The shipped settings of a proposer, without its name."""
    from omegaconf import OmegaConf

    loaded = OmegaConf.to_container(OmegaConf.load(CONFIGS / "proposer" / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key != "name"}


def _create_fallback(name: str, fallback: str, column: int, desk: Desk | None) -> Proposer:
    if fallback == name:
        raise UserError(f"proposer.fallback: {name!r} cannot stand in for itself", "optuna needs no network")
    _known(fallback)
    options = settings(fallback)
    return create_proposer(fallback, column=column, desk=desk, **{**options, "fallback": None})


def _create(name: str, column: int, desk: Desk | None, options: dict[str, Any]) -> Proposer:
    _known(name)
    place, _, kind = PROPOSERS[name].partition(":")
    module = import_module(f"{__name__}.{place}")
    if name in TUNERS:
        options = {**options, "column": column}
    if desk is not None and name in PAID:
        options = {**options, **_spent(name, options, desk), "record": desk.record}
    if name in ("command", "queue"):
        assert desk is not None, f"{name} needs a search to work for"
    if desk is not None and name == "command":
        options = {**options, "folder": desk.folder, "tree": desk.tree, "tool": desk.tool}
    if desk is not None and name == "queue":
        options = {**options, "inbox": desk.inbox}
    try:
        proposer: Proposer = getattr(module, kind)(**options)
    except ValidationError as error:
        wrong = "; ".join(f"proposer.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UserError(
            f"the proposer {name!r} cannot be set up so: {wrong}", "see configs/proposer"
        ) from None
    return proposer


def _spent(name: str, options: dict[str, Any], desk: Desk) -> dict[str, Any]:
    """What was spent before, and on whom; what belongs to nobody who is asked now is the proposer's own."""
    total = desk.spent(name)
    models = options.get("models") or [Path(word).name for word in options.get("argv", ())[:1]]
    owed = {f"{name}:{model}": desk.spent(f"{name}:{model}") for model in models}
    owed[name] = total.beyond(sum(owed.values(), Cost()))
    return {"spent": total, "owed": {who: cost for who, cost in owed.items() if cost != Cost()}}


def _known(name: str) -> None:
    if name not in PROPOSERS:
        near = get_close_matches(name, PROPOSERS, n=1, cutoff=0.0)[0]
        raise UserError(
            f"there is no proposer {name!r}", f"did you mean {near!r}? known: {', '.join(PROPOSERS)}"
        )
