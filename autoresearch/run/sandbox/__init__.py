"""Rooms without doors for candidate code: `create_sandbox` picks the strongest that works here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.run.sandbox.base import Jail, Limits, Protection, Sandbox
from autoresearch.run.sandbox.bwrap import BwrapSandbox
from autoresearch.run.sandbox.plain import PlainSandbox
from autoresearch.run.sandbox.process import Jailed, kill_tree, start

__all__ = ["Jail", "Jailed", "Limits", "Protection", "Sandbox", "create_sandbox", "kill_tree", "start"]


@cache
def _why_not_bwrap() -> str:
    """Empty if bubblewrap really runs a command here, else what it said."""
    if not sys.platform.startswith("linux") or shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    limits = Limits(memory_gb=1.0, processes=64, file_gb=0.1, open_files=64)
    jail = Jail((), (), {}, Path("/"), (), False, limits)
    command = BwrapSandbox().wrap([sys.executable, "-I", "-S", "-c", "print('ok')"], jail)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.stdout == "ok\n" else done.stderr.strip()


def create_sandbox(backend: str) -> Sandbox:
    """The sandbox called `backend`: "bwrap", "landlock", "none", or "auto" for the best that works here.

    Raises:
        UserError: If there is no such backend, or it cannot work here.
    """
    if backend == "none":
        return PlainSandbox()
    if backend in ("bwrap", "auto"):
        why = _why_not_bwrap()
        if not why:
            return BwrapSandbox()
        if backend == "auto":
            return PlainSandbox()
        raise UserError(
            f"The sandbox bwrap does not work here: {why}", "Install it: apt-get install bubblewrap."
        )
    raise UserError(f"There is no sandbox {backend!r}.", "Choose auto, bwrap, landlock or none.")
