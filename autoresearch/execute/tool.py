"""Runs a program of the user's own, such as a coding agent, and ends it with all of its processes.

Invariant: when `run_tool` returns or raises, nothing of the program's tree is left, daemons included; if this
process is killed, the kernel takes the tree along. Only limits on resources are set: the program is trusted
like any other that its user starts.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from autoresearch.execute.sandbox import Jail, Limits, start
from autoresearch.execute.sandbox.plain import PlainSandbox

LIMITS = Limits(memory_gb=32, processes=4096, file_gb=16, open_files=16384)
"""Against accidents."""


def run_tool(
    argv: list[str], *, folder: Path, env: Mapping[str, str], output: Path, timeout: float
) -> int | None:
    """Run a program until it ends or its time is up.

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
    jail = Jail(read_only=(), writable=(folder,), env=env, cwd=folder, fds=(), gpu=True, limits=LIMITS)
    with (
        output.open("wb") as file,
        start(PlainSandbox(), argv, jail, stdout=file, stderr=subprocess.STDOUT) as jailed,
    ):
        try:
            return jailed.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
