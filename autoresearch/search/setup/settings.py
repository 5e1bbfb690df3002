"""Which search a command means, where it lies, and which settings it has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoresearch.config import Config, load
from autoresearch.errors import UserError
from autoresearch.store.connection import JOURNAL, holds_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.store.searches import meant, unnamed


def runs_of(config: Config, repository: Repository) -> Path:
    """The folder for everything that searches write; it need not exist."""
    return config.runs if config.runs.is_absolute() else repository.root / config.runs


def runs_folder(config: Config, repository: Repository) -> Path:
    """The folder for everything that searches write.

    Raises:
        UserError: If it cannot be written.
    """
    folder = runs_of(config, repository)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written: {error.strerror}.",
            "Free some space, mend its permissions, or choose another: runs=/some/folder",
            code=3,
        ) from None
    return folder


def search_folder(overrides: list[str]) -> Path:
    """The folder of the search that `name=` names; without it, of the one that runs or was begun last.

    Raises:
        UserError: If there is none, or if several run.
    """
    config = load(overrides)
    runs = runs_of(config, Repository(Path.cwd()))
    if not any(o.startswith("name=") for o in overrides):
        return meant(runs)[0].folder
    if not holds_search(runs / config.name):
        known = ", ".join(sorted(p.parent.name for p in runs.glob(f"*/{JOURNAL}")))
        raise UserError(
            f"There is no search called {config.name}.",
            f"There are: {known}." if known else "Start one: autoresearch run",
        )
    return runs / config.name


def place_of(overrides: Iterable[str]) -> Config:
    """The settings that say where a search lies: its name and the folder of searches."""
    return load([o for o in overrides if o.startswith(("name=", "runs="))])


def meant_by(overrides: Sequence[str], repository: Repository) -> Config:
    """The settings of `run` as far as they can be read without those of a search that goes on.

    Of such a search they say only its name and its place: its options are those of its own choices.

    Raises:
        UserError: If the settings of a new search are wrong.
    """
    place = place_of(overrides)
    known = holds_search(runs_of(place, repository) / place.name)
    return place if known else load(overrides)


def named(overrides: Sequence[str]) -> list[str]:
    """The settings of `run` with the name of the search that they mean, if they name none."""
    if any(o.startswith("name=") for o in overrides):
        return list(overrides)
    config, repository = load([o for o in overrides if o.startswith("runs=")]), Repository(Path.cwd())
    taken = repository.refs("refs/heads/autoresearch") | repository.refs("refs/autoresearch")
    names = {re.sub(r"^refs/(heads/)?autoresearch/?", "", ref).partition("/")[0] for ref in taken}
    return [f"name={unnamed(runs_of(config, repository), names)}", *overrides]


def recorded_config(folder: Path) -> Config:
    """The configuration that a search was last run with, with what was chosen by itself when it was begun."""
    with Journal.of(folder) as journal:
        info = journal.info()
    given = [o for o in info.config["overrides"] if o != "executor.device=auto"]
    keys = {override.partition("=")[0] for override in given}
    found = info.config.get("choices", {}) | chosen_at_start(info)
    automatic = [f"{key}={value}" for key, value in found.items() if key not in keys]
    return load([*automatic, *given], environment={}, own_file=False)


def chosen_at_start(info: SearchInfo) -> dict[str, str]:
    """The device, and how many trials share it where that changes scores: the same until a search ends."""
    kind, *more = info.device.split(", ")
    found = {"executor.device": kind} if kind in ("cpu", "cuda") else {}
    if kind == "cpu" and info.config["budget"].get("kind") == "seconds":  # as many as share the machine
        found["executor.workers"] = next((part.split()[0] for part in more if "at a time" in part), "1")
    return found
