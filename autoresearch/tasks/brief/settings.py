"""The settings of inner searches: what each may use and cost, how its model is reached, what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, get_args

from autoresearch.config import Config, load
from autoresearch.config.files import quoted, user_files
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository

OWN = ("name", "runs", "brief", "seed", "experiments", "minutes")
"""Settings of an inner search that follow from what it is for."""
DEFAULTS = ("tracking=none", "alarm=null", "earlier_noise=false")
"""Unless the settings say otherwise: the outer search is tracked; a brief that makes all fail has no gain;
and what an inner search gains does not depend on those before it."""
Connection = Literal["base_url", "key_variable", "timeout", "retries"]
CONNECTION: tuple[Connection, ...] = get_args(Connection)
"""Options of a proposer that say how its model is reached: they change no result, and may change later."""
SERVER = ("name", "base_url", "key_variable")
"""Which server a proposer asks."""


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


def is_connection(override: str) -> bool:
    """Whether a setting says only how a model is reached."""
    return override.partition("=")[0] in {f"proposer.{name}" for name in CONNECTION}


def shared(settings: Sequence[str], outer: Mapping[str, Any]) -> list[str]:
    """The options of `CONNECTION` that inner searches and the outer one have in common.

    There are none if their models are not the same server's.

    Args:
        settings: Of the inner searches.
        outer: The group `proposer` of the outer search.
    """
    inner = load(list(settings)).proposer
    if any(inner.get(name) != outer.get(name) for name in SERVER):
        return []
    return [name for name in CONNECTION if name in inner and inner[name] == outer[name]]


def connection(settings: Sequence[str], names: Sequence[str], outer: Mapping[str, Any]) -> list[str]:
    """Settings by which inner searches reach their model as the outer search does now.

    Args:
        settings: Of the inner searches.
        names: The options that both share; without effect if the outer search has another proposer now.
        outer: The group `proposer` of the outer search.
    """
    if load(list(settings)).proposer["name"] != outer.get("name"):
        return []
    return [f"proposer.{name}={quoted(outer[name])}" for name in names if name in outer]


def most_paid(each: float | None, total: float | None, name: str) -> str:
    """What inner searches may pay for models, in words; empty if they ask none.

    Args:
        each: Most that one may pay; None: no limit.
        total: Most that all together may pay; None: no limit.
        name: Of the setting that says so.
    """
    if each == 0:
        return ""
    one, every = (f"at most ${most:g}" if most is not None else "without a limit" for most in (each, total))
    return f"Models of each inner search: {one}; of all together: {every} ({name})"


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


def check_texts(config: Config, repository: Repository) -> None:
    """Refuse text that inner searches would not find, before any of them begins.

    A relative path is one of a commit's, since they run in a copy of it.

    Args:
        config: Of the inner searches.
        repository: The user's.
    """
    committed = repository.files(repository.resolve("HEAD") or "", (".",))
    for key in ("path", "other_path"):
        if not (text := config.data.get(key)):
            continue
        path = Path(text).expanduser()
        if path.is_absolute():
            top = Path(path.anchor)
            found, hint = any(top.glob(str(path.relative_to(top)))), "Name a file, a folder or a glob."
            said = f"data.{key}={text}: there is no such file."
        else:
            name = path.as_posix()
            found = any(fnmatch(file, name) or file.startswith(f"{name}/") for file in committed)
            said = f"Git does not hold data.{key}={text}: the inner searches would not find it."
            hint = "Commit it, or name it by its absolute path."
        if not found:
            raise UserError(said, hint)
