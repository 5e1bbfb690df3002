"""Runs one command of a candidate or of a scorer in a jail: its environment, its clock, its end.

Invariant: a command sees an environment that is built here from nothing, the folders of its jail, and no
process of an earlier command; when `run` returns, no process of it is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from autoresearch.config import Config
from autoresearch.errors import UserError
from autoresearch.execute.load import Clock, LoadMeter
from autoresearch.execute.output import MEMORY, SANDBOX, Log, explain
from autoresearch.execute.places import places, threads
from autoresearch.execute.sandbox import Jail, Limits, Sandbox, start, visible
from autoresearch.execute.sandbox import gpu as gpus
from autoresearch.tasks.command.settings import CommandOptions, Environment
from autoresearch.text import is_secret

LOOK = 0.1
"""Seconds between two looks at a command."""
SYSTEM_PATH = "/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin"
OURS = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "AUTORESEARCH")
"""Variables, and beginnings of variables, that the user does not set: the runner or nobody does."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        reason: Why it did not end well, in one line; empty if it did.
        late: Whether the runner ended it because its time was over.
        log: What it printed.
        seconds: How long it ran, as limits count time.
        cpu_seconds: CPU time of all its processes.
        memory_mb: Most main memory of all its processes.
    """

    reason: str
    late: bool
    log: str
    seconds: float
    cpu_seconds: float
    memory_mb: float


def make_environment(options: CommandOptions, config: Config, checkout: Path, device: str) -> Environment:
    """What the commands of a place find around them.

    Args:
        options: Of the task.
        config: Of the search.
        checkout: Top folder of the user's repository.
        device: Of the place, such as "cpu" or "cuda:1".

    Raises:
        UserError: If a variable, a path or the interpreter cannot be passed on.
    """
    read_only = [_there(Path(path).expanduser(), "task.read_only") for path in options.read_only]
    read_only += [_there(checkout / path, "task.inputs") for path in options.inputs]
    programs, installed = _interpreter(options.python, checkout)
    kind, _, index = device.partition(":")
    gpu = options.gpu and kind != "cpu"
    return Environment(
        checkout=checkout,
        variables=_variables(options.env),
        programs=programs,
        read_only=tuple(dict.fromkeys([*read_only, *installed])),
        own=bool(installed),
        packages=options.packages,
        threads=threads(config),
        gpu=gpu,
        only=gpus.named(int(index)) if gpu and index else "",
        limits=Limits(**config.sandbox["limits"]),
    )


def devices(config: Config, options: CommandOptions) -> dict[str, str]:
    """Name of each place -> its device."""
    return places(config) if options.gpu else places(_on_cpu(config))


def _on_cpu(config: Config) -> Config:
    executor = config.executor.model_copy(update={"device": "cpu", "devices": None})
    return config.model_copy(update={"executor": executor})


def _there(path: Path, key: str) -> Path:
    if not path.exists():
        raise UserError(f"{key}: there is no {path}.", "Name what is there.")
    return path.resolve()


def _variables(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if name.startswith(OURS):
            raise UserError(f"task.env: {name} is not passed on.", "The sandbox sets it, or nobody does.")
        value = value if equals else os.environ.get(name, "")
        if is_secret(name, value):
            raise UserError(f"task.env: {name} holds a secret.", "No candidate gets one: leave it out.")
        if equals or name in os.environ:
            found[name] = value
    return found


def _interpreter(python: str | None, checkout: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Folders of programs, and what must be readable for them, of the interpreter of the repository.

    Raises:
        UserError: If there is no such interpreter.
    """
    if python is None:
        return (Path(sys.executable).parent,), ()
    given = checkout / Path(python).expanduser()
    environment = given if given.is_dir() else given.parent.parent
    program = environment / "bin" / "python"
    if not program.exists():
        raise UserError(
            f"task.python: there is no {program}.", "Name an environment, such as .venv, or its bin/python."
        )
    if environment.resolve() == Path(sys.prefix).resolve():
        return (environment / "bin",), ()  # ours
    shown = [environment.absolute()]
    settings = environment / "pyvenv.cfg"
    if settings.exists():
        about = dict(re.findall(r"^(\w+)\s*=\s*(.+?)\s*$", settings.read_text(), re.MULTILINE))
        base = Path(about.get("home", "/usr/bin")).parent
        version = ".".join((about.get("version") or about.get("version_info") or "").split(".")[:2])
        system = base in (Path("/usr"), Path("/usr/local"))
        needed = [base / "lib" / f"python{version}"] if system else [base]
        shown += [path.resolve() for path in (*needed, program.resolve().parent.parent) if path.exists()]
        known = (Path("/"), Path("/usr"), Path("/usr/local"), *(root.parent for root in visible.roots()))
        shown = [path for path in shown if path not in known]  # what every jail shows anyway
    return (shown[0] / "bin",), tuple(dict.fromkeys(shown))


def run(
    sandbox: Sandbox,
    command: str,
    around: Environment,
    *,
    cwd: Path,
    writable: Path,
    read_only: Sequence[Path],
    variables: Mapping[str, str],
    limit: float,
    load: LoadMeter,
    trained: bool,
    look: Callable[[float, str], None] = lambda seconds, log: None,
) -> Ended:
    """Run a command until it ends or its time is over.

    Args:
        sandbox: How to confine it.
        command: For `sh -c`.
        around: What it finds around it.
        cwd: Where it starts.
        writable: The only folder that it may write.
        read_only: What else it may read, beside what `around` says.
        variables: That tell it about this run.
        limit: Seconds that it may take; time that other programs took does not count.
        load: Says how busy the machine is.
        trained: Whether it is a candidate's; then only the named packages are shown.
        look: Called about ten times a second, with the seconds so far and what was printed; may raise.
    """
    (writable / "tmp").mkdir(parents=True, exist_ok=True)
    wanted = () if around.own else around.packages if trained else None
    jail = _jail(
        around,
        cwd,
        writable,
        read_only,
        variables,
        _all_packages(sandbox) if wanted is None else ((), wanted),
    )
    argv = ["/bin/sh", "-c", command]
    with start(sandbox, argv, jail, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as jailed:
        assert jailed.process.stdout is not None
        log, late = Log(jailed.process.stdout), False
        clock = Clock(load, lambda: jailed.cpu_seconds, around.threads, lambda: jailed.waited_seconds)
        while not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                jailed.process.wait(LOOK)
                break
            clock.tick()
            look(clock.seconds, log.text())
            late = clock.seconds > limit
        clock.tick()
        status = jailed.process.poll()
        jailed.kill(empty=False)
        text = log.text(wait=1.0)
    late_by = f"timeout: not done after {limit:.4g} s ({clock})" if late else ""
    reason = late_by or _failure(jailed.breach, status, text)
    return Ended(reason, late, text, clock.seconds, clock.cpu, jailed.peak_memory / 1e6)


def _jail(
    around: Environment,
    cwd: Path,
    writable: Path,
    read_only: Sequence[Path],
    variables: Mapping[str, str],
    shown: tuple[tuple[Path, ...], tuple[str, ...]],
) -> Jail:
    """The jail of a command; `shown` are the installed packages in it, as `_all_packages` gives them."""
    sites, packages = shown
    return Jail(
        read_only=tuple(dict.fromkeys([*around.read_only, *read_only, *sites])),
        writable=(writable,),
        env={**_base(around, writable), **around.variables, **variables},
        cwd=cwd,
        fds=(),
        gpu=around.gpu,
        limits=around.limits,
        only=around.only,
        packages=packages,
    )


def _failure(breach: str, status: int | None, log: str) -> str:
    """Why a command that was in time did not end well; empty if it did."""
    if breach:
        return f"{MEMORY if 'memory' in breach else SANDBOX}: it {breach}"
    return explain(log, status).replace(" before it submitted", "") if status != 0 else ""


def _all_packages(sandbox: Sandbox) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """How a sandbox shows all installed packages: as folders, else by their names."""
    if sandbox.name == "landlock":  # it shows single packages in what it hides
        return (), tuple(sorted({found.name for found in distributions()}))
    sites = [Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return tuple(site.resolve() for site in sites if site.is_dir()), ()


def _base(around: Environment, folder: Path) -> dict[str, str]:
    path = ":".join([*map(str, around.programs), SYSTEM_PATH])
    values = {
        "PATH": path,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "tmp" / "cache"),
        "MPLCONFIGDIR": str(folder / "tmp" / "matplotlib"),
        "USER": "candidate",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
    values |= {f"{name}_NUM_THREADS": str(around.threads) for name in names}
    if not around.gpu:
        return values | {"CUDA_VISIBLE_DEVICES": "-1"}
    values |= {name: os.environ[name] for name in gpus.VARIABLES if name in os.environ}
    return values | ({"CUDA_VISIBLE_DEVICES": gpus.inside(around.only)} if around.only else {})
