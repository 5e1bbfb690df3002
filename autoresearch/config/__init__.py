"""Configuration: Hydra groups in `configs/`, composed from `key=value` overrides, checked, frozen.

YAML holds every default; the models (`options`) hold types and ranges only. The last of these layers wins:
the shipped `configs/`, the user's own files (`files`), the command line. Where neither of the last two says
so, a GPU chooses the budget and the corpus, and an API key the proposer. What does not exist is refused with
the nearest name that does. Groups whose options belong to one room (task, budget, data, proposer, judge,
sandbox) stay plain mappings: that room's constructor checks them (by `parse`, or itself).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoresearch.config.check import explained as explained
from autoresearch.config.check import parse as parse
from autoresearch.config.compose import compose_tree
from autoresearch.config.files import BRIEFS as BRIEFS
from autoresearch.config.files import CONFIGS as CONFIGS
from autoresearch.config.files import folders, overrides_of, replaced, user_files
from autoresearch.config.options import OF_KEEPS, SandboxLimits
from autoresearch.config.options import Config as Config
from autoresearch.config.options import Executor as Executor
from autoresearch.config.options import Guards as Guards
from autoresearch.config.options import Options as Options
from autoresearch.config.options import Serve as Serve
from autoresearch.config.options import Tracking as Tracking
from autoresearch.config.profiles import GPU_PROFILE, LARGE, is_profile
from autoresearch.errors import UserError

DEV = Path("/dev")
FIXED = ("task", "budget", "data", "judge", "guards", "baselines", "seed")
"""Keys that decide what a score means: they cannot change while a search goes on."""
LIMITS = {
    "tokens": ("startup_seconds", "max_seconds", "slowdown", "score_seconds"),
    "seconds": ("startup_seconds", "score_seconds"),
    "own": ("max_seconds", "slowdown", "score_seconds", "total_dollars"),
}
"""Kind of budget -> options of it and of the guards that limit time but change no score: they may change."""

OF_TASKS = ("budget", "data")
"""Groups of which a task may have a choice of its own, named like itself: configs/budget/TASK.yaml."""

RESERVED = ("cache", "mlflow", "readme.md", "swarm")
"""What else lies in the folder of searches: no search can have such a name."""


def load(
    overrides: Sequence[str], environment: Mapping[str, str] | None = None, *, own_file: bool = True
) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: Hydra overrides such as `budget=smoke` or `proposer.repairs=1`; later ones win.
        environment: Process environment; decides the defaults of `proposer` and `budget`.
        own_file: Whether the user's `autoresearch.yaml` counts. What a search was begun with is among its
            recorded overrides; what the file says now need not be the same.

    Raises:
        UserError: For an unknown key or choice, a wrong type, or a value out of range.
    """
    environment = os.environ if environment is None else environment
    path = user_files().values if own_file else None
    if path is None:
        return _load(overrides, environment)
    defaults = overrides_of(path, overrides)
    try:
        return _load([*defaults, *overrides], environment)
    except UserError as error:
        _load(overrides, environment)  # if this fails, too, the file is not to blame
        raise UserError(f"{path}: {error}", error.hint) from None


def _load(overrides: Sequence[str], environment: Mapping[str, str]) -> Config:
    given = {override.partition("=")[0].lstrip("+~") for override in overrides}
    automatic = []
    if "proposer" not in given and environment.get("ANTHROPIC_API_KEY"):
        one = any(key.startswith("proposer.") for key in given)  # settings of a single proposer
        automatic.append("proposer=anthropic" if one else "proposer=portfolio")
    task = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("task=")), "")
    own = [g for g in OF_TASKS if any((f / g / f"{task}.yaml").is_file() for f in folders())]
    automatic += [f"{group}={task}" for group in own if group not in given]
    if "executor.device=cpu" not in overrides and not own and has_gpu():
        budget = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("budget=")), "")
        automatic += [] if budget else [f"budget={GPU_PROFILE}"]
        if "data" not in given and (not budget or is_profile(budget)):
            automatic.append(f"data={LARGE}")
    tree, choices = deepcopy(compose_tree((*automatic, *overrides), tuple(folders())))
    name = str(tree["name"] if tree["name"] is not None else time.strftime("%b%d").lower())
    if name.lower() in RESERVED:
        raise UserError(
            f"name={name}: the folder of searches has something else of that name.", "Choose another."
        )
    if "limits" in tree["sandbox"]:
        limits = parse(SandboxLimits, tree["sandbox"]["limits"], "sandbox.limits")
        tree["sandbox"]["limits"] = limits.model_dump()
    try:
        # What the environment chose is recorded too: a search goes on as it was begun, on any machine.
        return Config(**{**tree, "name": name, "choices": choices, "overrides": (*automatic, *overrides)})
    except ValidationError as error:
        raise explained(error) from None


def resume(recorded: Config, overrides: Sequence[str], *, scored: bool = True) -> Config:
    """The configuration of a search that goes on: as it was begun, plus new overrides.

    Nothing is chosen by what the environment or the machine shows now: neither a proposer that costs money
    nor a device on which scores mean something else.

    Args:
        recorded: As it was begun.
        overrides: New ones.
        scored: Whether it has a score. If not, budget and data may still change.

    Raises:
        UserError: If an override would change what a score means.
    """
    given = dict(override.partition("=")[::2] for override in overrides if override != "executor.device=auto")
    device = f"executor.device={given.get('executor.device', recorded.executor.device)}"
    new = [*(o for o in overrides if o.partition("=")[0] != "executor.device"), device]
    config = load(replaced(recorded.overrides, new, choices=recorded.choices), {})
    shared = ("threads", "workers") if recorded.budget.get("kind") == "seconds" else ()
    fixed = [key for key in FIXED if scored or key not in OF_TASKS]
    for key in (*fixed, *(f"executor.{name}" for name in ("device", *shared))):
        if _meaning(config, key) != _meaning(recorded, key):
            raise UserError(
                f"The search {recorded.name} was begun with another {key}: scores would not be comparable.",
                f"Leave {key} as it was, or start a search under another name.",
            )
    return config


def _meaning(config: Config, key: str) -> object:
    """The value of a key, without what changes no score."""
    value: Any = attrgetter(key)(config)
    if key not in ("budget", "guards"):
        return value
    options = value if key == "budget" else value.model_dump()
    free = (*LIMITS.get(config.budget.get("kind", ""), ()), *OF_KEEPS)
    return {name: option for name, option in options.items() if name not in free}


def has_gpu() -> bool:
    """Whether this machine has a GPU and shows it; asking torch would cost a second at every start."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    # Containers are given any of several: the first need not be nvidia0.
    return any(DEV.glob("nvidia[0-9]*")) or any((DEV / name).exists() for name in ("kfd", "dxg"))
