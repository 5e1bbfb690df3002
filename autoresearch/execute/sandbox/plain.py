"""Without a sandbox: the environment is cleared and limits are set, nothing else.

It serves candidates where nothing better works (all but Linux), or whose code is trusted. They can read what
the user can read, use the network, and kill other processes; every start says so. It also serves programs of
the user, such as a coding agent, which are trusted like any other program that the user starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.execute.sandbox.base import Jail, Limits
from autoresearch.execute.sandbox.process import start
from autoresearch.execute.sandbox.visible import launcher

TOOL_LIMITS = Limits(memory_gb=32, processes=4096, file_gb=16, open_files=16384)
"""Against accidents."""


@dataclass(frozen=True)
class PlainSandbox:
    """Runs candidates as ordinary child processes with resource limits."""

    name = "none"

    @property
    def means(self) -> Mapping[str, str]:
        """How it keeps a candidate from each threat; see `Sandbox.means`."""
        chance = dict.fromkeys(("files", "changes", "network", "processes", "secrets"), "not by this sandbox")
        return chance | {"daemons": "the launcher adopts what is orphaned, and kills it"}

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command under limits; see `Sandbox.wrap`."""
        return [*launcher(jail), *argv]


def run_tool(
    argv: list[str], *, folder: Path, env: Mapping[str, str], output: Path, timeout: float
) -> int | None:
    """Run a program of the user's own until it ends or its time is up.

    Nothing of its tree is left afterwards, daemons included; if this process is killed, the kernel takes the
    tree along.

    Args:
        argv: The command; its first word is looked up on the PATH in `env`.
        folder: Where it starts.
        env: Its whole environment.
        output: File for what it prints; replaced.
        timeout: In seconds.

    Returns:
        Its exit status (128 + n if it died of signal n), or None if time was up.
    """
    # With gpu=True no limit is set on address space, of which some runtimes reserve more than they use.
    jail = Jail(read_only=(), writable=(folder,), env=env, cwd=folder, fds=(), gpu=True, limits=TOOL_LIMITS)
    with (
        output.open("wb") as file,
        start(PlainSandbox(), argv, jail, stdout=file, stderr=subprocess.STDOUT) as jailed,
    ):
        try:
            return jailed.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
