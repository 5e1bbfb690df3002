"""Makes the data of the task `command` once: what candidates train on, and what only the scorer sees."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from autoresearch.config import Config
from autoresearch.errors import UserError
from autoresearch.store.files import digest
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.base import Dataset, refuse_visible
from autoresearch.tasks.command.processes import make_environment
from autoresearch.tasks.command.settings import CommandOptions, filled
from autoresearch.types import Split


def prepare(repository: Repository, options: CommandOptions, config: Config, cache: Path) -> Dataset:
    """Run the `prepare` command, unless its data are there; see `Task.prepare`.

    Raises:
        UserError: If it fails, or does not make the splits that are to be scored.
    """
    splits = frozenset(options.splits)
    cache.mkdir(parents=True, exist_ok=True)
    if options.prepare is None:
        folder = cache / "command"
        folder.mkdir(exist_ok=True)
        return Dataset(folder, {"splits": {split.value: {} for split in options.splits}}, splits)
    refuse_visible(str(cache))
    key = _key(repository, options, cache)
    folder = cache / f"command-{key}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="prepare-", dir=cache) as temporary:
            tree, made = Path(temporary, "tree"), Path(temporary, "data")
            repository.export("HEAD", ["."], tree)
            made.mkdir()
            _run(repository, options, config, tree, made)
            made.rename(folder)
    sizes = {split.value: _size(folder / split) for split in (Split.TRAIN, *options.splits)}
    about = {"prepared": key, "splits": {name: {"bytes": size} for name, size in sizes.items()}}
    return Dataset(folder, about, splits, ", ".join(f"{n}: {s / 1e6:,.1f} MB" for n, s in sizes.items()))


def _key(repository: Repository, options: CommandOptions, cache: Path) -> str:
    """Names the data by what they depend on: the command, and all that is committed and not editable."""
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=cache) as temporary:
        tree = Path(temporary)
        repository.export("HEAD", ["."], tree)
        for path in [*repository.matching("HEAD", options.editable), *(p.name for p in tree.glob("*.md"))]:
            (tree / path).unlink()
        return hashlib.sha256(f"{options.prepare} {digest(tree)}".encode()).hexdigest()[:16]


def _run(repository: Repository, options: CommandOptions, config: Config, tree: Path, folder: Path) -> None:
    command = options.prepare or ""
    around = make_environment(options, config, repository.root, "cpu")
    programs = ":".join([*map(str, around.programs), os.environ.get("PATH", "")])
    variables = {**os.environ, **around.variables, "PATH": programs, "AUTORESEARCH_DATA": str(folder)}
    argv = ["/bin/sh", "-c", filled(command, {"data": str(folder)})]
    done = subprocess.run(argv, cwd=tree, env=variables)
    if done.returncode != 0:
        raise UserError(
            f"task.prepare failed with status {done.returncode} (see above): {command}",
            "Mend it, or try it by hand: it gets the folder for its data as AUTORESEARCH_DATA.",
            code=3,
        )
    missing = [split.value for split in options.splits if not (folder / split).is_dir()]
    if missing:
        raise UserError(
            f"task.prepare made no folder {', '.join(missing)} in AUTORESEARCH_DATA; task.splits names it.",
            "It is to make train/, and a folder for each split that is scored.",
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
