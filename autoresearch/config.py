"""Configuration: Hydra groups in `configs/`, composed from `key=value` overrides, checked, frozen.

YAML holds every default; the models here hold types and ranges only. A key or a choice that does not exist
is refused with the nearest one that does. Groups whose options belong to one room (task, budget, data,
proposer, judge, sandbox) stay plain mappings: that room's constructor checks them (by `parse`, or itself).
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoresearch.errors import UserError

M = TypeVar("M", bound=BaseModel)

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
BRIEFS = CONFIGS / "briefs"
DEV = Path("/dev")
FIXED = ("task", "budget", "data", "judge", "guards", "baselines", "seed")
"""Keys that decide what a score means: they cannot change while a search goes on."""


OPEN = ("proposer.prices",)
"""Mappings whose keys are names of the user's: an override adds to them."""


class Options(BaseModel):
    """Values of one configuration group: typed, frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Executor(Options):
    """Where trials run."""

    device: Literal["auto", "cpu", "cuda"]
    threads: int | None = Field(ge=1)
    workers: int | None = Field(ge=1, le=64)
    devices: tuple[int, ...] | None
    weights_gb: float = Field(gt=0)
    probes: int = Field(ge=8)
    standby: bool


class Tracking(Options):
    """Which MLflow store mirrors the journal."""

    enabled: bool
    uri: str | None
    experiment: str


class Guards(Options):
    """Largest multiples of the baseline's; None switches a guard off."""

    memory_mb: float | None = Field(ge=1)
    weights_mb: float | None = Field(ge=1)
    score_seconds: float | None = Field(ge=1)


class Config(Options):
    """One search, fully specified."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    brief: str
    ideas: str | None
    experiments: int = Field(ge=0)
    minutes: float | None = Field(gt=0)
    lookahead: int = Field(ge=0, le=16)
    keep_logs: int = Field(ge=0)
    alarm: int | None = Field(ge=2)
    baselines: int = Field(ge=2, le=32)
    seed: int = Field(ge=0)
    claim: int = Field(ge=0, le=64)
    guards: Guards
    runs: Path
    task: dict[str, Any]
    budget: dict[str, Any]
    executor: Executor
    tracking: Tracking
    data: dict[str, Any]
    proposer: dict[str, Any]
    judge: dict[str, Any]
    sandbox: dict[str, Any]
    choices: dict[str, str]
    overrides: tuple[str, ...]

    @cached_property
    def idea_paths(self) -> list[Path]:
        """The patches to try before anything else, in order.

        Raises:
            UserError: If there is none where there should be some.
        """
        return _patches(self.ideas) if self.ideas else []

    @cached_property
    def brief_path(self) -> Path:
        """The Markdown file of the brief.

        Raises:
            UserError: If there is none.
        """
        if self.brief.endswith(".md"):
            path = Path(self.brief).expanduser().resolve()
            if not path.is_file():
                raise UserError(
                    f"There is no brief at {path}.", "Give a Markdown file, or the name of a shipped brief."
                )
            return path
        path = BRIEFS / f"{self.brief}.md"
        if not path.is_file():
            names = sorted(p.stem for p in BRIEFS.glob("*.md"))
            raise UserError(f"There is no brief {self.brief!r}.", _suggest(self.brief, names, "briefs"))
        return path


def _patches(folder: str) -> list[Path]:
    place = Path(folder).expanduser().resolve()
    found = sorted(place.glob("*.patch"))
    if not found:
        raise UserError(
            f"There are no patches in {place}.",
            "ideas= names a folder of NAME.patch files, such as configs/shelf: a line, and a diff below it.",
        )
    return found


def load(overrides: Sequence[str], environment: Mapping[str, str] | None = None) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: Hydra overrides such as `budget=smoke` or `proposer.repairs=1`; later ones win.
        environment: Process environment; decides the defaults of `proposer` and `budget`.

    Raises:
        UserError: For an unknown key or choice, a wrong type, or a value out of range.
    """
    environment = os.environ if environment is None else environment
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    automatic = []
    if "proposer" not in given and environment.get("ANTHROPIC_API_KEY"):
        automatic.append("proposer=anthropic")
    if "budget" not in given and "executor.device=cpu" not in overrides and has_gpu():
        automatic.append("budget=gpu_5min")
    tree, choices = deepcopy(_compose((*automatic, *overrides)))
    name = str(tree["name"] if tree["name"] is not None else time.strftime("%b%d").lower())
    try:
        # What the environment chose is recorded too: a search goes on as it was begun, on any machine.
        return Config(**{**tree, "name": name, "choices": choices, "overrides": (*automatic, *overrides)})
    except ValidationError as error:
        raise _explained(error) from None


def parse(model: type[M], values: Mapping[str, Any], group: str) -> M:
    """Check the values of one group by a model of the room that they belong to.

    Args:
        model: Types and ranges.
        values: The group, such as `Config.budget`.
        group: Its name, for messages.

    Raises:
        UserError: If a value is missing, unknown, of a wrong type, or out of range.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise _explained(error, group) from None


def _explained(error: ValidationError, group: str = "") -> UserError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in ([group] if group else []) + list(first["loc"]))
    given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
    return UserError(f"{key}: {_lower(first['msg'])}{given}.", f"See configs/ for what {key} means.")


def resume(recorded: Config, overrides: Sequence[str]) -> Config:
    """The configuration of a search that goes on: as it was begun, plus new overrides.

    Raises:
        UserError: If an override would change what a score means.
    """
    # The options of one choice mean nothing to another.
    given = dict(override.partition("=")[::2] for override in overrides)
    chosen = {key for key, choice in given.items() if recorded.choices.get(key, choice) != choice}
    kept = [o for o in recorded.overrides if o.partition("=")[0].partition(".")[0] not in chosen]
    config = load([*kept, *overrides])
    for key in FIXED:
        if getattr(config, key) != getattr(recorded, key):
            raise UserError(
                f"The search {recorded.name} was begun with another {key}: scores would not be comparable.",
                f"Leave {key} as it was, or start a search under another name.",
            )
    return config


def has_gpu() -> bool:
    """Whether this machine has a GPU and shows it; asking torch would cost a second at every start."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    # Containers are given any of several: the first need not be nvidia0.
    return any(DEV.glob("nvidia[0-9]*")) or any((DEV / name).exists() for name in ("kfd", "dxg"))


@lru_cache(maxsize=64)  # a command asks for the same more than once, and a tenth of a second each time
def _compose(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check_override(override)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            forced = [f"++{o}" if o.partition("=")[0] in OPEN else o for o in overrides]
            composed = compose("config", overrides=forced, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        choices = {k: str(v) for k, v in composed.hydra.runtime.choices.items() if not k.startswith("hydra/")}
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        tree = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        if unknown := re.search(r"Could not override '([^']+)'", str(error)):
            raise _unknown(unknown.group(1)) from None
        raise UserError(str(error).splitlines()[0], "See configs/ for what there is.") from None
    assert isinstance(tree, dict)
    return {str(k): v for k, v in tree.items()}, choices


def _check_override(override: str) -> None:
    """Refuse what Hydra would take silently or explain badly."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is not an override.", "Write key=value, for example: experiments=20")
    if key[0] in "+~" or "@" in key:
        raise UserError(
            f"{override!r}: keys cannot be added or removed.", _suggest(key.strip("+~"), _keys(), "keys")
        )
    group = CONFIGS / key
    if group.is_dir():
        options = sorted(p.stem for p in group.glob("*.yaml"))
        if value not in options:
            raise UserError(f"There is no {key} {value!r}.", _suggest(value, options, f"choices for {key}"))


def _keys() -> list[str]:
    """Every key that can be overridden, from the YAML files themselves."""
    from omegaconf import OmegaConf

    found = set()
    for path in CONFIGS.rglob("*.yaml"):
        prefix = "" if path.parent == CONFIGS else f"{path.parent.relative_to(CONFIGS).as_posix()}."
        found |= {prefix + str(k) for k in OmegaConf.load(path) if k != "defaults"}
        found |= {prefix.rstrip(".")} - {""}
    return sorted(found)


def _unknown(key: str) -> UserError:
    """What to say of a key that there is not, or not with the choice that was made."""
    from omegaconf import OmegaConf

    group, _, name = key.partition(".")
    owners = [path.stem for path in sorted((CONFIGS / group).glob("*.yaml")) if name in OmegaConf.load(path)]
    if owners:
        choices = " or ".join(f"{group}={owner}" for owner in owners)
        return UserError(f"{key} is not a key of the {group} that is chosen.", f"It belongs to {choices}.")
    return UserError(f"There is no configuration key {key!r}.", _suggest(key, _keys(), "keys"))


def _suggest(wrong: str, valid: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(wrong, valid, n=1, cutoff=0.5)
    # `reparis` should find `proposer.repairs`: people leave the group out.
    near = (
        near
        or [k for k in valid if difflib.get_close_matches(wrong.split(".")[-1], [k.split(".")[-1]], 1, 0.7)][
            :1
        ]
    )
    if near:
        return f"Did you mean {near[0]}?"
    shown = ", ".join(valid[:40])
    return f"There are these {what}: {shown}."


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
