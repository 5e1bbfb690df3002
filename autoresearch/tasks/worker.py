"""Makes the executor of a task; describes the task as plain data for workers on other machines.

The runner calls `create_executor`; a worker imports this module and calls `make_measurer`. Each worker serves
one place, so there the configuration has one place: the device that the engine gave it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoresearch.config import Config
from autoresearch.errors import UserError
from autoresearch.execute import EXECUTORS
from autoresearch.execute.base import Executor, Measurer, Place
from autoresearch.execute.local import Export
from autoresearch.execute.places import require_device
from autoresearch.execute.remote import kind
from autoresearch.execute.sandbox import Sandbox, create_sandbox
from autoresearch.execute.sandbox import describe as describe_sandbox
from autoresearch.execute.sandbox.gpu import UNUSABLE
from autoresearch.execute.sandbox.gpu import describe as describe_gpu
from autoresearch.execute.worker.files import list_folder
from autoresearch.execute.worker.messages import Setup
from autoresearch.execute.worker.worker import installed
from autoresearch.store.git.repository import Repository
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Dataset, Task, refuse_visible
from autoresearch.text import count
from autoresearch.types import Split

MAKER = "autoresearch.tasks.worker:make_measurer"


def create_executor(
    config: Config,
    task: Task,
    data: Dataset,
    sandbox: Sandbox | None,
    trusted: Path,
    export: Export,
    say: Callable[[str], None],
) -> Executor:
    """Make the configured executor.

    Args:
        config: Of the search.
        task: Of the search.
        data: Its prepared data.
        sandbox: How candidates are confined on this machine; None if they run elsewhere.
        trusted: The tree of the starting commit, in the folder of the search.
        export: Writes the tree of a candidate.
        say: Tells a person something.

    Raises:
        UserError: If its engine cannot be used.
    """
    make, runs = EXECUTORS.load(config.executor.name), trusted.parent.parent
    made: Executor
    if sandbox is None:
        made = make(describe(config, data, trusted), config.executor, runs, export, say)
    else:
        measurers = {p: task.measurer(p, data, sandbox, trusted, say) for p in task.places()}
        made = make(measurers, runs, export)
    return made


def about_places(executor: Executor) -> list[str]:
    """What is known of remote places, a line for each kind; empty if trials run on this machine."""
    kinds = Counter(map(kind, getattr(executor, "about", {}).values()))
    return [f"{count(number, 'place')} so far: {text}" for text, number in kinds.items()]


def describe(config: Config, data: Dataset, trusted: Path) -> Setup:
    """What workers need to measure candidates of a search; nothing of proposers and stores, which have keys.

    Args:
        config: Of the search.
        data: Its prepared data.
        trusted: The tree of the starting commit.
    """
    prepared = {"about": json.loads(json.dumps(dict(data.about))), "splits": sorted(data.splits)}
    tracking = config.tracking.model_copy(update={"enabled": False, "uri": None})
    public = config.model_copy(update={"proposer": {}, "tracking": tracking, "overrides": ()})
    folder = str(Repository(Path.cwd()).root)
    options = {"config": public.model_dump(mode="json"), "data": prepared, "folder": folder}
    folders, versions = {"data": list_folder(data.path)}, installed(create_task(config).packages)
    return Setup(config.name, MAKER, options, folders, list_folder(trusted), versions)


def make_measurer(
    place: Place, folders: Mapping[str, Path], options: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[Measurer, Mapping[str, str]]:
    """Make the measurer of the only place of this process; implements `execute.worker.worker.Maker`.

    Raises:
        UserError: If this machine cannot run trials of the task as the search wants it.
    """
    config = _with_one_place(Config.model_validate(options["config"]))
    require_device(config)
    refuse_visible(str(folders["data"]))
    _enter(Path(options["folder"]), folders["trusted"])
    sandbox = create_sandbox(config.sandbox["backend"], say)
    about = {"sandbox": sandbox.name}
    if warning := describe_sandbox(sandbox).warning:
        say(warning)
    if config.executor.device == "cuda":
        about["GPU"] = said = describe_gpu(sandbox)
        if said.startswith(UNUSABLE):
            raise UserError(
                f"No trial can use the GPU: {said}.", "Train on the CPU: executor.device=cpu", code=3
            )
    task = create_task(config)
    known = options["data"]
    data = Dataset(folders["data"], known["about"], frozenset(map(Split, known["splits"])))
    return task.measurer(task.places()[0], data, sandbox, folders["trusted"], say), about


def _with_one_place(config: Config) -> Config:
    """The configuration as a search on the device of this process alone would have it."""
    workers = 1 if config.executor.device == "cpu" else None
    changes = {"name": "local", "workers": workers, "devices": None}
    executor = config.executor.model_copy(update=changes)
    return config.model_copy(update={"executor": executor})


def _enter(folder: Path, trusted: Path) -> None:
    """Go to the user's repository; where it cannot be seen, to a new one of the starting commit's files."""
    if (folder / ".git").exists():
        os.chdir(folder)
        return
    copy = trusted.with_name("repository")
    shutil.copytree(trusted, copy, symlinks=True)
    os.chdir(copy)
    who = ("-c", "user.name=autoresearch", "-c", "user.email=autoresearch@localhost")
    for words in (("init", "-q"), ("add", "-A", "-f"), (*who, "commit", "-q", "-m", "start")):
        done = subprocess.run(["git", *words], capture_output=True, text=True)
        if done.returncode != 0:
            raise UserError(f"git {words[-1]} failed on a worker: {done.stderr.strip()}", code=3)
