"""What settings mean, by the comments in `configs/`, and where the value of each one comes from.

Comments are read from the shipped YAML itself, so there is one text for each setting. Reading them needs no
library, so that shells can complete keys at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.config.files import CONFIGS, folders, overrides_of, user_files

if TYPE_CHECKING:
    from autoresearch.config import Config

LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>(?: [^#]*)?)(?:#\s*(?P<comment>.*))?$")
"""A line of YAML that begins a value."""

AUTOMATIC = "chosen by what is here (a key, a GPU, the task)"
RECORDED = "recorded when the search was begun"
"""Sources of what nobody sets now."""

LEFT_OUT = ("choices", "overrides")
"""What is made of the other settings."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: Such as "budget.amount"; of a group, such as "budget".
        value: Its value; of a group, the choice.
        source: Where that comes from.
        comment: What it means; empty if nobody says.
    """

    key: str
    value: Any
    source: str
    comment: str


def settings(overrides: Sequence[str], recorded: Config | None = None) -> list[Setting]:
    """Every setting that `run` would have, and where it comes from.

    Args:
        overrides: As for `run`.
        recorded: What a search was begun with, if one is to go on.

    Raises:
        UserError: If they are wrong.
    """
    from autoresearch.config import load, resume

    config = load(overrides) if recorded is None else resume(recorded, overrides)
    path = user_files().values
    of_file = overrides_of(path, overrides) if path and recorded is None else []
    automatic = AUTOMATIC if recorded is None else RECORDED
    sources: dict[str, str] = {}
    for override in config.overrides:  # the last one wins
        key = override.partition("=")[0]
        told = "command line" if override in overrides else str(path) if override in of_file else automatic
        sources[key] = told
    found = [_group(name, choice, sources) for name, choice in sorted(config.choices.items())]
    tree = config.model_dump(mode="json")
    for key, value in _flat({k: v for k, v in tree.items() if k not in LEFT_OUT}):
        group, _, inside = key.partition(".")
        whole = next(
            (k for k in sources if k == key or (key.startswith(f"{k}.") and k not in config.choices)), ""
        )
        shipped = _file(group, config.choices.get(group, "")) if inside else "configs/config.yaml"
        found.append(
            Setting(key, value, sources.get(whole, shipped), comment(key, config.choices.get(group, "")))
        )
    return found


def _group(name: str, choice: str, sources: Mapping[str, str]) -> Setting:
    return Setting(name, choice, sources.get(name, "configs/config.yaml"), comment(name))


def _file(group: str, choice: str) -> str:
    """The file of a choice, as a person finds it."""
    for folder in folders():
        if (folder / group / f"{choice}.yaml").is_file():
            return f"configs/{group}/{choice}.yaml" + ("" if folder == CONFIGS else " beside the repository")
    return "configs/config.yaml" if not (CONFIGS / group).is_dir() else f"the package of {group}={choice}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def comment(key: str, choice: str = "") -> str:
    """What the shipped files say of a setting; empty if nothing.

    Args:
        key: Such as "budget.amount".
        choice: Of its group; without it only what all choices say counts.
    """
    group, _, inside = key.partition(".")
    path = CONFIGS / group / f"{choice}.yaml"
    if choice and path.is_file():
        return dict(_read(path)).get(inside, "")
    return _comments().get(key, "")


def keys() -> list[str]:
    """Every key that a shipped file sets."""
    return sorted(_comments())


@cache
def _comments() -> dict[str, str]:
    """Key -> comment, of every shipped file; empty where choices of a group say different things."""
    found: dict[str, str] = {}
    for path in sorted(CONFIGS.rglob("*.yaml"), key=lambda path: (path.parent != CONFIGS, path)):
        group = "" if path.parent == CONFIGS else path.parent.relative_to(CONFIGS).as_posix()
        for key, said in _read(path):
            name = f"{group}.{key}" if group else key
            found[name] = said if found.get(name, said) == said else ""
        if group:
            found.setdefault(group, "")
    return found


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Dotted key and comment of each value in a file; its list of defaults has neither."""
    outer: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if not match:
            continue
        indent = len(match["indent"])
        outer = [*(o for o in outer if o[0] < indent), (indent, match["key"])]
        dotted = ".".join(name for _, name in outer)
        if not dotted.startswith("defaults"):
            yield dotted, (match["comment"] or "").strip()
