"""Looks at this machine before a night: git, disk, data, key, device; then tries the starting script out.

Says at the end which settings suit this machine, as a command to be copied. What it measures is what a search
would: the real script in the real sandbox, twice (`check`). Not covered: the sandbox itself (`describe`).
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import psutil

from autoresearch.config import LIMITS, Config, load, profiles
from autoresearch.errors import UserError
from autoresearch.execute import is_remote
from autoresearch.execute.health import Health
from autoresearch.execute.output import MEMORY
from autoresearch.execute.places import cores, device, fingerprint, places, threads
from autoresearch.search.baseline import FREE_MEMORY
from autoresearch.search.setup.check import NIGHT, check_task
from autoresearch.search.setup.plan import TRIALS, Line
from autoresearch.search.setup.settings import runs_of
from autoresearch.search.setup.trying import Tried
from autoresearch.store.git.repository import Repository
from autoresearch.tasks import create_task
from autoresearch.text import count

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
LITTLE_DISK = 2e9
"""Bytes: a search writes journal, losses and MLflow; a corpus for a GPU takes more."""
BUSY = 0.5
"""Share of the cores above which other programs make trials late."""
LOOK_SECONDS = 0.5


def examine(
    overrides: Sequence[str], folder: Path, say: Callable[[str], None], *, quick: bool
) -> Iterator[Line]:
    """Look at the machine, as a search with these settings would use it.

    Args:
        overrides: Settings, as for `run`.
        folder: Where the user is.
        say: Is told what is done.
        quick: Whether to leave the trainings out.

    Yields:
        What was found, as lines of a heading and a text.

    Raises:
        UserError: If a search could not run here.
    """
    config = load(overrides)
    used = psutil.cpu_percent(LOOK_SECONDS) / 100
    yield from _device(config, used)
    yield from _keys(config, os.environ)
    try:
        repository, task = Repository(folder), create_task(config)
    except UserError as error:
        yield "warning", f"{error} {error.hint or ''}".strip()
        return
    head = (repository.resolve("HEAD") or "")[:10]
    changed = repository.is_modified(task.frozen)
    yield "git", f"{repository.root} at {head}" + (", with changes that no search sees" if changed else "")
    yield from _disk(runs_of(config, repository))
    yield "data", f"{config.choices.get('data', 'own')}; prepared when they are first needed"
    if profiles.small_corpus(config, overrides):
        yield "", f"chosen for a GPU; without a network {profiles.SMALL} is taken, with a warning"
    if quick:
        return
    try:
        tried = yield from check_task(overrides, folder, say)
    except UserError as error:
        if MEMORY in str(error):
            less = f" `run` would begin again with {less[0]}." if (less := profiles.smaller(config)) else ""
            yield "warning", f"The starting script needs more memory than is free: {FREE_MEMORY}{less}"
        raise
    given = " ".join(map(shlex.quote, ["autoresearch", "run", "name=night1", *overrides]))
    yield "for a night", " ".join([given, *suiting(config, tried, used, psutil.virtual_memory().available)])


def suiting(config: Config, tried: Sequence[Tried], used: float, free: float) -> list[str]:
    """Settings that suit this machine, beside those that were given.

    Args:
        config: With those that were given.
        tried: Trainings of the starting script, one at a time.
        used: Share of the cores that other programs use.
        free: Main memory that is free, in bytes.
    """
    given = {override.partition("=")[0] for override in config.overrides}
    found: dict[str, str] = {}
    remote = is_remote(config.executor.name)
    number = (config.executor.workers or tried[0].places) if remote else len(places(config))
    if device(config) == "cuda" and not remote and (memory := _gpu_memory(config)):
        found["budget"] = profiles.suiting(memory)
    if device(config) == "cpu" and not remote:
        each = max((t.metrics.get("memory_mb", 0.0) for t in tried), default=0.0) * 1e6
        fitting = max(1, int(free // (2 * each))) if each else number
        number = min(number, fitting, 1 if used > BUSY else number)
        found["executor.workers"] = str(number)
        if used > BUSY:  # limits on time that change no score
            limits = {key: config.budget.get(key) for key in LIMITS.get(config.budget.get("kind", ""), ())}
            found |= {f"budget.{key}": f"{2 * limit:g}" for key, limit in limits.items() if limit}
    decisions = NIGHT * number / fmean(t.seconds for t in tried) / fmean(TRIALS)
    found["experiments"] = str(max(1, round(decisions)))
    return [f"{key}={value}" for key, value in found.items() if key not in given]


def _gpu_memory(config: Config) -> float:
    """Bytes of the smallest GPU that is used; 0 on a CPU, or if the driver does not tell."""
    found = (Health.find(where) for where in places(config).values() if where.startswith("cuda"))
    return min((health.memory for health in found if health and health.memory), default=0)


def _disk(runs: Path) -> Iterator[Line]:
    there = next(path for path in (runs, *runs.parents) if path.exists())
    free = shutil.disk_usage(there).free
    yield "disk", f"{free / 1e9:,.1f} GB free in {there}"
    if not os.access(there, os.W_OK):
        yield "warning", f"{there} cannot be written: choose another folder with runs="
    if free < LITTLE_DISK:
        yield "warning", f"Less than {LITTLE_DISK / 1e9:g} GB are free: make room, or set runs="


def _keys(config: Config, environment: Mapping[str, str]) -> Iterator[Line]:
    known = [key for key in KEYS if environment.get(key)]
    said = f"{', '.join(known)} is set" if known else f"none of {', '.join(KEYS)} is set"
    yield "key", f"{said}; proposer {config.proposer['name']}"


def _device(config: Config, used: float) -> Iterator[Line]:
    memory = psutil.virtual_memory()
    where, number = device(config), len(places(config))
    yield (
        "device",
        f"{fingerprint(where)}; {count(number, 'trial')} at a time, {count(threads(config), 'thread')} each",
    )
    if found := _gpu_memory(config):
        yield "GPU memory", f"{found / 1e9:.0f} GB; the profile for it is budget={profiles.suiting(found)}"
    yield "cores", f"{cores()}, of which other programs use {used * cores():.1f}"
    yield "main memory", f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free"
    if used > BUSY:
        yield (
            "warning",
            "Other programs use most of the cores: trials take longer. Limits on time allow for it.",
        )
