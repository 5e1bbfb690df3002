"""The settings of inner searches: what each may use, what it can cost, and what cannot be set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.config import Config, load
from autoresearch.config.files import user_files
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository

OWN = ("name", "runs", "brief", "seed", "experiments", "minutes")
"""Settings of an inner search that follow from what it is for."""
DEFAULTS = ("tracking=none", "alarm=null")
"""Unless the settings say otherwise: the outer search is tracked; a brief that makes all fail has no gain."""


@dataclass(frozen=True)
class Spend:
    """What one inner search may use.

    Attributes:
        experiments: Candidates that it tries.
        minutes: Or so long; None: no limit.
        dollars: Most that it may pay for language models; None: what its proposer's own settings say.
    """

    experiments: int
    minutes: float | None = None
    dollars: float | None = None


def cap(settings: Sequence[str], spend: Spend) -> float | None:
    """Most that one inner search can pay for language models; None if nothing limits it.

    Raises:
        UserError: If `spend.dollars` is given and its proposer has no such limit.
    """
    config = load(list(settings))
    limits = [_limit(config.proposer)]
    if fallback := config.proposer.get("fallback"):
        limits.append(_limit(load([f"proposer={fallback}"]).proposer))
    if spend.dollars is not None:
        if config.proposer["name"] == "portfolio" or any(limits[1:]):
            raise UserError(
                "A cap in dollars for each inner search needs a proposer that is one model.",
                "For example, in the settings of the inner searches: proposer=anthropic",
            )
        if limits[0] != 0.0:
            limits[0] = spend.dollars
    return None if None in limits else sum(limit or 0.0 for limit in limits)


def _limit(proposer: dict[str, object]) -> float | None:
    """The cap of a proposer in dollars; 0 if it pays for nothing."""
    if proposer["name"] == "portfolio":
        return None  # each of its members has one
    value = proposer.get("max_dollars", 0.0)
    return None if value is None else float(str(value))


def check_settings(settings: Sequence[str], spend: Spend) -> Config:
    """The configuration of the inner searches.

    Raises:
        UserError: If something in it is wrong, or follows from what they are for.
    """
    for override in settings:
        key = override.partition("=")[0]
        if key in OWN:
            raise UserError(f"{key} of an inner search cannot be set here.", "budget says how long it is.")
    config = load(list(settings))
    if config.task["name"] == "brief":
        raise UserError("An inner search cannot be one of briefs.", "Name another task: task=nanomodel")
    if not config.claim:
        raise UserError("An inner search needs a claim: its gain is what it claims.", "For example: claim=4")
    _check_choices(config)
    cap(settings, spend)
    return config


def _check_choices(config: Config) -> None:
    """Refuse choices of the user's that git does not hold: inner searches run in a copy of a commit."""
    own = user_files().folder
    used = [f"{group}/{choice}.yaml" for group, choice in config.choices.items()]
    files = [f"{own.name}/{file}" for file in used if (own / file).is_file()] if own else []
    if own and files and (missing := Repository(own.parent).uncommitted(files)):
        raise UserError(
            f"Git does not hold {' and '.join(missing)}: the inner searches would not find it.", "Commit it."
        )
