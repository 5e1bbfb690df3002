"""Jails for tests: every backend under test, and ways to take one of its protections away.

`Weakened` is the mutation switch: a test that claims a protection runs its attack a second time with that
protection removed, and the attack must then succeed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.sandbox import Jail, Jailed, Limits, Sandbox, create_sandbox, start
from autoresearch.execute.sandbox.landlock import LandlockSandbox
from autoresearch.execute.sandbox.launch import read_spec
from autoresearch.execute.sandbox.visible import LAUNCHER, as_word
from autoresearch.tasks.gpt.program import CORPORA, PACKAGES

BACKENDS = ("bwrap", "landlock", "landlock-bare")
"""The last one is Landlock where no namespace is to be had, as inside most containers."""

LIMITS = Limits(memory_gb=4.0, processes=256, file_gb=1.0, open_files=256)


def tracing_is_forbidden() -> bool:
    """Whether this host keeps an ordinary user's processes from reading each other's memory anyway (Yama)."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() != 0 and scope.exists() and scope.read_text().strip() != "0"


def sandbox_or_skip(name: str) -> Sandbox:
    """The backend; skips the test, or fails it in CI, where it does not work."""
    try:
        sandbox = create_sandbox(name.removesuffix("-bare"))
    except UserError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs {name}: {error} {error.hint}")
    return LandlockSandbox(namespaces=False, proc=False) if name.endswith("-bare") else sandbox


def make_jail(scratch: Path, **changes: Any) -> Jail:
    """A jail with one writable folder, which is made if missing."""
    scratch.mkdir(exist_ok=True)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    values: dict[str, Any] = {
        "read_only": (),
        "writable": (scratch,),
        "env": env,
        "cwd": scratch,
        "fds": (),
        "gpu": False,
        "limits": LIMITS,
        "packages": PACKAGES,
        "hidden": CORPORA,
    }
    return Jail(**{**values, **changes})


def start_python(sandbox: Sandbox, code: str, jail: Jail, *words: str, isolated: bool = True) -> Jailed:
    """Start Python code in a jail, its output and errors on one pipe."""
    options = ["-I", "-S"] if isolated else []
    argv = [sys.executable, *options, "-c", code, *words]
    return start(sandbox, argv, jail, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_python(
    sandbox: Sandbox, code: str, jail: Jail, *words: str, isolated: bool = True, timeout: float = 60.0
) -> tuple[str, int, str]:
    """What the code printed, its exit status, and the limit it broke."""
    with start_python(sandbox, code, jail, *words, isolated=isolated) as jailed:
        output = jailed.process.communicate(timeout=timeout)[0].decode(errors="replace")
    return output, jailed.process.returncode, jailed.breach


Change = Callable[[list[str], dict[str, Any]], None]
"""Alters bubblewrap's arguments (empty elsewhere) and the launcher's specification, in place."""


@dataclass(frozen=True)
class Weakened:
    """A sandbox with something taken away."""

    sandbox: Sandbox
    change: Change

    @property
    def name(self) -> str:
        return self.sandbox.name

    @property
    def means(self) -> Mapping[str, str]:
        return self.sandbox.means

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        words = self.sandbox.wrap(argv, jail)
        at = next(i for i, word in enumerate(words) if word == str(LAUNCHER) and words[i - 1] == "-S")
        outer, spec = words[: at - 3], read_spec(words[at + 1])
        self.change(outer, spec)
        return [*outer, *words[at - 3 : at + 1], as_word(spec), *words[at + 2 :]]


def no_landlock(outer: list[str], spec: dict[str, Any]) -> None:
    spec["landlock"] = None


def no_seccomp(outer: list[str], spec: dict[str, Any]) -> None:
    spec["seccomp"] = None


def no_namespaces(outer: list[str], spec: dict[str, Any]) -> None:
    """Bubblewrap keeps its mounts and process numbers, which it cannot do without."""
    if outer:
        outer[outer.index("--unshare-all")] = "--unshare-pid"
    spec["namespaces"] = []


def no_mounts(outer: list[str], spec: dict[str, Any]) -> None:
    """Everything of the host's visible and writable."""
    if outer:
        outer[outer.index("--remount-ro") : outer.index("--chdir")] = [
            "--dev-bind",
            "/",
            "/",
            "--proc",
            "/proc",
        ]
        spec["fixed"] = []
    spec["namespaces"] = [name for name in spec.get("namespaces", []) if name != "mount"]


def without(sandbox: Sandbox, *changes: Change) -> Weakened:
    """The sandbox with these protections taken away."""

    def change(outer: list[str], spec: dict[str, Any]) -> None:
        for each in changes:
            each(outer, spec)

    return Weakened(sandbox, change)
