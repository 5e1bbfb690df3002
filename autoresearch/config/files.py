"""Where configuration lies: the shipped `configs/`, and what a user keeps beside a repository.

`autoresearch.yaml` holds values, under the same keys as on the command line:

    budget: smoke                   # a choice of a group
    budget.max_seconds: 90          # an option of it
    guards: {memory_mb: 2, weights_mb: null}
    experiments: 20

`configs/` holds more choices of the groups (`configs/data/mine.yaml` is `data=mine`) and more briefs
(`configs/briefs/mine.md` is `brief=mine`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "configs"
"""The shipped defaults: inside the package where it is installed, beside it in a checkout."""
BRIEFS = CONFIGS / "briefs"

OPEN = ("proposer.prices", "executor.options")
"""Mappings whose keys are names of the user's: an override adds to them."""

WORDS = ("true", "false", "null", "nan", "inf")
"""What Hydra reads as something else than text, unless it is quoted."""


@dataclass(frozen=True)
class UserFiles:
    """What a user configures beside the repository that a command runs in.

    Attributes:
        values: `autoresearch.yaml`: a mapping of the same keys as on the command line; None if there is none.
        folder: `configs/`: more choices of the groups, and `briefs/*.md`; None if there is none.
    """

    values: Path | None
    folder: Path | None


def user_files() -> UserFiles:
    """Look in the top folder of the repository around the current folder, or there if there is none."""
    here = Path.cwd()
    top = next((p for p in (here, *here.parents) if (p / ".git").exists()), here)
    values, folder = top / "autoresearch.yaml", top / "configs"
    known = folder.is_dir() and folder.resolve() != CONFIGS
    return UserFiles(values if values.is_file() else None, folder if known else None)


def folders() -> list[Path]:
    """Where choices and briefs are looked up, in order.

    The user's come first, so that they can replace shipped ones. A folder with a `config.yaml` of its own was
    made for another program that uses Hydra: it may add choices, but replaces none.
    """
    own = user_files().folder
    if own is None:
        return [CONFIGS]
    return [CONFIGS, own] if (own / "config.yaml").exists() else [own, CONFIGS]


def overrides_of(path: Path, overrides: Sequence[str]) -> list[str]:
    """The values of a YAML file as overrides, without options of choices that the command line replaces.

    Raises:
        UserError: If the file is no mapping.
    """
    from omegaconf import DictConfig, OmegaConf

    try:
        read = OmegaConf.load(path)
    except Exception as error:  # YAML's and OmegaConf's have no common base
        said = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read: {said}", "Write it as YAML: key: value") from None
    if not isinstance(read, DictConfig):
        raise UserError(f"{path} is no mapping.", "Write it as YAML: key: value")
    values = OmegaConf.to_container(read)
    assert isinstance(values, dict)
    flat = [pair for key, value in values.items() for pair in _flat(str(key), value)]
    replaced = {key for key, _, _ in (o.partition("=") for o in overrides) if (CONFIGS / key).is_dir()}
    return [
        f"{key}={value if (CONFIGS / key).is_dir() else quoted(value)}"
        for key, value in flat
        if key.partition(".")[0] not in replaced
    ]


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Pairs of a dotted key and its value; mappings that users add keys to stay whole."""
    if isinstance(value, dict) and value and key not in OPEN:
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value


def replaced(
    overrides: Sequence[str],
    by: Sequence[str],
    *,
    choices: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> list[str]:
    """Overrides, then others in place of those of the same keys.

    Where another choice takes the place of one (`data=tinystories` of `data=file`), the options of the first
    (`data.path=...`) go with it: they mean nothing to another.

    Args:
        overrides: The first ones.
        by: What takes their place.
        choices: Group -> choice before; those that `overrides` name if it is not given.
        without: Keys of the first that are left out.
    """
    before = dict(o.partition("=")[::2] for o in overrides) if choices is None else choices
    keys = {o.partition("=")[0]: o.partition("=")[2] for o in by}
    other = {k for k, choice in keys.items() if (CONFIGS / k).is_dir() and before.get(k) != choice}
    gone = {*keys, *without} - set(OPEN)
    kept = ((o, o.partition("=")[0]) for o in overrides)
    return [*(o for o, key in kept if key not in gone and key.partition(".")[0] not in other), *by]


def quoted(value: Any) -> str:
    """A value as Hydra's grammar of overrides spells it."""
    if isinstance(value, dict):
        # Of a key, Hydra wants what is no letter or digit escaped.
        pairs = (
            re.sub(r"[^\w./-]", r"\\\g<0>", str(k), flags=re.ASCII) + ": " + quoted(v)
            for k, v in value.items()
        )
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(quoted, value)) + "]"
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_/][\w./-]*", value, re.ASCII) and value.lower() not in WORDS:
            return value
        # Inside quotes a backslash counts only before a quote, and at the end.
        escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
