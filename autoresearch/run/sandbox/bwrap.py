"""Bubblewrap: namespaces, a read-only world, and the launcher's walls inside.

Invariant: the candidate sees a new root with the interpreter, the system libraries, and what its jail
lists, at the same paths as outside; its own empty /tmp, /dev, /proc; no network; no capabilities. Killing
bwrap kills everything inside, daemons included, since the candidate's PID namespace dies with it.

Mounts are made in the order given, and a later one hides what an earlier one put below it: so /tmp, /dev
and /proc come first, then the jail's paths (which often lie below /tmp).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict

from autoresearch.run.sandbox import gpu
from autoresearch.run.sandbox.base import Jail, Protection
from autoresearch.run.sandbox.world import LAUNCHER, WALLS, launcher, python_paths, system_paths

TMP_BYTES = 1 << 28


class BwrapSandbox:
    """Runs candidates in bubblewrap.

    Args:
        executable: The bwrap program; found on PATH if not given.
    """

    name = "bwrap"

    def __init__(self, executable: str | None = None) -> None:
        self.executable = executable or shutil.which("bwrap") or "bwrap"

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command inside bubblewrap; see `Sandbox.wrap`."""
        command = [self.executable, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
        command += ["--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox"]
        command += ["--dev", "/dev", "--proc", "/proc"]
        for folder in ("/tmp", "/dev/shm"):
            command += ["--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", folder]
        command += _world()
        if jail.gpu:
            command += [word for node in gpu.device_nodes() for word in ("--dev-bind", str(node), str(node))]
            command += ["--ro-bind", "/sys", "/sys"]
        for flag, paths in (("--ro-bind", jail.read_only), ("--bind", jail.writable)):
            command += [word for path in paths for word in (flag, str(path), str(path))]
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(jail.cwd), "--"]
        return [*command, *launcher(json.dumps(_spec(jail))), *argv]

    def protections(self) -> tuple[Protection, ...]:
        """What bubblewrap holds."""
        return (
            Protection(
                "files", True, "a root of its own: interpreter, libraries and its scratch folder only"
            ),
            Protection("network", True, "a network namespace without interfaces; no sockets"),
            Protection("processes", True, "a PID namespace that dies with the trial"),
            Protection("environment", True, "cleared"),
            Protection("limits", True, "resource limits of the system, and a watcher"),
        )


def _world() -> list[str]:
    """Arguments that lay out the system and the interpreter, keeping symbolic links as links."""
    words: list[str] = []
    for path in system_paths():
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        else:
            words += ["--ro-bind", str(path), str(path)]
    for path in [*python_paths(), LAUNCHER, WALLS]:
        words += ["--ro-bind", str(path), str(path)]
    return words


def _spec(jail: Jail) -> dict[str, object]:
    """What the launcher still has to do inside."""
    return {
        "env": dict(jail.env),
        "cwd": str(jail.cwd),
        "fds": list(jail.fds),
        "gpu": jail.gpu,
        "limits": asdict(jail.limits),
        "fresh_user": True,
    }
