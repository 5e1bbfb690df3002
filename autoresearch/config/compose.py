"""Composes a configuration with Hydra, and explains what it refuses by the nearest key that exists."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from copy import deepcopy
from functools import cache, lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from autoresearch.config.files import CONFIGS, OPEN, folders, quoted
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

TEXTS = (
    *("name", "brief", "ideas", "runs", "data.path", "data.other_path", "data.text_column"),
    *("task.prepare", "task.train", "task.score", "task.metrics", "task.python"),
    *("proposer.path", "proposer.base_url", "tracking.uri", "tracking.experiment"),
    *("executor.address", "executor.cache", "executor.time", "executor.account", "executor.partition"),
    "executor.gres",
)
"""Keys whose values are texts, whatever they look like: `name=1e5`, `data.path=a=b,c.txt`."""
CLOSED = ("sandbox.backend", "judge.name", "proposer.name", "executor.name")
"""Keys that only the choice of their group sets."""
GIVEN = ("config", "baseline", "tau", "services", "column")
"""Parameters of constructors that the framework gives; they are no options."""
ONE_AT_A_TIME = Lock()
"""Hydra has one state for the whole process, and the tools of `autoresearch mcp` run in threads."""


@lru_cache(maxsize=64)  # a command asks for the same more than once, and a tenth of a second each time
def compose_tree(
    overrides: tuple[str, ...], places: tuple[Path, ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compose all groups.

    Args:
        overrides: As Hydra has them.
        places: What `folders` says now; it decides the result, so it is part of what is remembered.

    Returns:
        The values, and the choice of each group.

    Raises:
        UserError: If an override is malformed, or names what there is not.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    for override in overrides:
        _check_override(override)
    spelled = [_spelled(override) for override in overrides]
    chosen = [override for override in spelled if _is_choice(override)]
    try:
        with ONE_AT_A_TIME:
            composed, choices = _compose_choices(tuple(chosen), places)
        tree = deepcopy(composed)
        for override in _parser().parse_overrides([o for o in spelled if not _is_choice(o)]):
            key = override.key_or_group
            try:
                OmegaConf.update(tree, key, override.value(), merge=True, force_add=key in OPEN)
            except (ConfigAttributeError, ConfigKeyError):
                raise _unknown(key) from None
        values = OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        said = str(error).splitlines()[0].strip().rstrip(".")
        raise UserError(f"The settings cannot be read: {said}.", QUOTING) from None
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}, dict(choices)


def _is_choice(override: str) -> bool:
    """Whether an override chooses a file of a group; any other one sets a value."""
    return (CONFIGS / override.partition("=")[0]).is_dir()


@lru_cache(maxsize=64)  # a tenth of a second each time; values that are set on top of it take a hundredth
def _compose_choices(chosen: tuple[str, ...], places: tuple[Path, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Compose the files that some overrides choose; `places` is part of what is remembered.

    Returns:
        What they hold, in which no key can be added, and the choice of each group.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    _look_in_all_folders()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config", overrides=list(chosen), return_hydra_config=True)
    found = composed.hydra.runtime.choices.items()
    choices = {str(k): str(v) for k, v in found if not k.startswith("hydra/")}
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    OmegaConf.set_struct(composed, True)
    return composed, choices


@cache
def _look_in_all_folders() -> None:
    """Make Hydra look where `folders` says; its own setting for this cannot put a folder before the first."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class UserFolder(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            places = folders()
            main = places.index(CONFIGS)
            for place in places[:main]:
                search_path.prepend("user", f"file://{place}")
            for place in places[main + 1 :]:
                search_path.append("user", f"file://{place}")

    Plugins.instance().register(UserFolder)


QUOTING = (
    "Text with signs goes in quotes, and the whole in those of the shell: 'proposer.models=[\"a:b\"]'. "
    "All settings: autoresearch config"
)


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _spelled(override: str) -> str:
    """An override as Hydra's grammar spells it: text that it cannot read is quoted.

    Raises:
        UserError: If it cannot be read, or holds several values.
    """
    from hydra.errors import HydraException

    key, _, value = override.partition("=")
    marked = value[:1] in ("'", '"', "[", "{") or "${" in value
    if key in TEXTS and value and value != "null" and not (marked and value[0] not in "[{"):
        return f"{key}={quoted(value)}"
    try:
        parsed = _parser().parse_override(override)
    except HydraException:
        if marked:
            raise UserError(f"{override} cannot be read.", QUOTING) from None
        return f"{key}={quoted(value)}"
    if parsed.is_sweep_override():
        raise UserError(f"{override}: one value is needed here.", f"A list goes in brackets: '{key}=[...]'")
    return override


def _check_override(override: str) -> None:
    """Refuse what Hydra would take silently or explain badly."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        named = (CONFIGS / key).is_dir() or key in _keys()
        hint = f"Did you mean {key}=VALUE?" if named else f"Did you mean name={key}?"
        raise UserError(f"{override!r} is no setting: those are key=value.", hint)
    if key[0] in "+~" or "@" in key:
        raise UserError(
            f"{override!r}: keys cannot be added or removed.", suggest(key.strip("+~"), _keys(), "keys")
        )
    group, _, _ = key.partition(".")
    if key in CLOSED:
        raise UserError(f"{override}: the choice of the {group} sets that.", f"Choose it: {group}={value}")
    if (CONFIGS / key).is_dir():
        options = {p.stem for folder in folders() for p in (folder / key).glob("*.yaml")}
        if value in options or _registered(key, value):
            return
        options |= set(entry_points(group=f"autoresearch.{key}s").names)
        raise UserError(
            f"There is no {key} {value!r}.", suggest(value, sorted(options), f"choices for {key}")
        )


def _registered(group: str, name: str) -> bool:
    """Make a part that another package registers (`autoresearch.registry`) a choice of its group.

    Its options are those of its constructor that have a default; an executor has those of the local one.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    found = next(iter(entry_points(group=f"autoresearch.{group}s", name=name)), None)
    if found is None:
        return False
    if group == "executor":
        options = dict(OmegaConf.load(CONFIGS / "executor" / "local.yaml"))
    else:
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(found.load()).parameters.values()
            if parameter.name not in GIVEN and isinstance(parameter.default, str | int | float | None)
        }
    ConfigStore.instance().store(name=name, group=group, node={**options, "name": name}, provider=found.value)
    return True


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
    files = sorted(path for folder in folders() for path in (folder / group).glob("*.yaml"))
    owners = list(dict.fromkeys(path.stem for path in files if name in OmegaConf.load(path)))
    if owners:
        choices = " or ".join(f"{group}={owner}" for owner in owners)
        return UserError(f"{key} is not a key of the {group} that is chosen.", f"It belongs to {choices}.")
    return UserError(f"There is no configuration key {key!r}.", suggest(key, _keys(), "keys"))


def suggest(wrong: str, valid: Sequence[str], what: str) -> str:
    """A hint: the valid name nearest to a wrong one, or all that there are."""
    begun = [name for name in valid if wrong and name.startswith(wrong)]
    near = begun[:1] if len(begun) == 1 else difflib.get_close_matches(wrong, valid, n=1, cutoff=0.6)
    if len(begun) > 1:
        return f"There are these {what}: {', '.join(begun[:40])}."
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
