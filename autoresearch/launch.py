"""From a configuration to a search that is ready to run: data, git, journal, and the rooms' parts.

Owns where things lie: `runs/cache` for prepared data, `runs/<name>/` for one search (journal, lock, worktree,
trusted tree, report). Everything that can be wrong before the first trial is found here, with one clear
message, and in an order that leaves nothing half made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoresearch.config import Config, load, resume
from autoresearch.errors import UserError
from autoresearch.record.git import Repository
from autoresearch.record.journal import Journal, SearchInfo, lock
from autoresearch.search import Search
from autoresearch.types import View


def runs_folder(config: Config, repository: Repository) -> Path:
    """Where everything a search writes goes.

    Raises:
        UserError: If it cannot be written.
    """
    folder = config.runs if config.runs.is_absolute() else repository.root / config.runs
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
    """The folder of the search that `name=` names, or of the latest one.

    Raises:
        UserError: If there is none.
    """
    config = load(overrides)
    repository = Repository(Path.cwd())
    runs = config.runs if config.runs.is_absolute() else repository.root / config.runs
    if any(o.startswith("name=") for o in overrides):
        folders = [runs / config.name]
    else:
        folders = sorted((p.parent for p in runs.glob("*/journal.db")), key=lambda p: p.stat().st_mtime)
    if not folders or not (folders[-1] / "journal.db").exists():
        known = ", ".join(sorted(p.parent.name for p in runs.glob("*/journal.db")))
        which = f"called {folders[-1].name}" if folders else f"in {runs}"
        raise UserError(
            f"There is no search {which}.",
            f"There are: {known}." if known else "Start one: autoresearch run",
        )
    return folders[-1]


def prepare_data(config: Config, runs: Path) -> tuple[Path, dict[str, Any]]:
    """The prepared corpus, made if it is not there yet: its folder, and its description.

    Raises:
        UserError: If it cannot be made.
    """
    arguments = [
        f"--{key.replace('_', '-')}={value}" for key, value in config.data.items() if value is not None
    ]
    # In a process of its own: preparing takes memory that a search should not hold all night.
    command = [sys.executable, "-m", config.task.prepare, "prepare", f"--cache={runs / 'cache'}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise UserError(f"The corpus {config.choices['data']!r} could not be prepared (see above).", code=2)
    meta = json.loads(done.stdout.splitlines()[-1])
    return Path(meta.pop("path")), meta


@contextmanager
def open_search(overrides: list[str], view_kind: str = "auto") -> Iterator[Search]:
    """A search that is ready to run, begun or found again by its name; closed at the end.

    Raises:
        UserError: For anything that a person can mend before the first trial.
    """
    config = load(overrides)
    repository = Repository(Path.cwd())
    runs = runs_folder(config, repository)
    folder = runs / config.name
    with lock(folder):
        found = (folder / "journal.db").exists()
        if found:
            recorded = Journal(folder / "journal.db").info()
            config = resume(_recorded_config(recorded), overrides)
        brief = config.brief_path.read_text(encoding="utf-8")
        cache, meta = prepare_data(config, runs)
        if found:
            journal = _reopen(folder, repository)
        else:
            journal = _begin(config, repository, folder, brief, meta)
        try:
            with _view(config, journal, view_kind) as view:
                with _assemble(config, repository, journal, folder, cache, view) as search:
                    yield search
        finally:
            journal.close()


def _recorded_config(info: SearchInfo) -> Config:
    return load(info.config["overrides"], environment={})


def _begin(config: Config, repository: Repository, folder: Path, brief: str, meta: dict[str, Any]) -> Journal:
    branch = f"autoresearch/{config.name}"
    if repository.resolve(f"refs/heads/{branch}"):
        raise UserError(
            f"The branch {branch} exists already, but no search of that name is recorded in {folder.parent}.",
            f"Choose another name=, or delete the branch if you do not need it: git branch -D {branch}",
        )
    base = repository.resolve("HEAD")
    assert base, "Repository() has checked that there is a commit"
    repository.sources(base, config.task.editable)
    return Journal.create(
        folder / "journal.db",
        SearchInfo(
            name=config.name,
            base_commit=base,
            branch=branch,
            created=time.time(),
            task=config.task.name,
            brief=config.brief,
            brief_text=brief,
            config=config.model_dump(mode="json"),
            data=meta,
            device=device_words(config),
        ),
    )


def _reopen(folder: Path, repository: Repository) -> Journal:
    journal = Journal(folder / "journal.db")
    info = journal.info()
    tip = repository.resolve(f"refs/heads/{info.branch}")
    ours = {info.base_commit, *(e.commit for e in journal.experiments() if e.commit)}
    if tip and tip not in ours:
        raise UserError(
            f"The branch {info.branch} was moved by somebody else to {tip[:10]}; the search would overwrite that.",
            f"Keep that work on another branch (git branch mine {tip[:10]}), then delete {info.branch}.",
        )
    return journal
