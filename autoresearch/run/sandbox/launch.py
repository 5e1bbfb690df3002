"""The last trusted code before a candidate: sets its limits, closes descriptors, and becomes it.

Run as a file by an isolated interpreter (`python -I -S launch.py SPEC -- COMMAND...`), so it must import
nothing but the standard library. SPEC is JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any


def set_limits(limits: dict[str, float], *, gpu: bool, fresh_user: bool) -> None:
    """Set the system's resource limits for this process and all that it starts.

    Args:
        limits: The fields of `Limits`.
        gpu: CUDA reserves address space far beyond what it uses, so no memory limit can be set here.
        fresh_user: Whether this runs in a user namespace of its own, where processes are counted from zero.
            Elsewhere the limit counts everything its user runs, so what runs already is added.
    """
    already = 0 if fresh_user else count_tasks()
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: int(limits["file_gb"] * 1e9),
        resource.RLIMIT_NOFILE: int(limits["open_files"]),
        resource.RLIMIT_NPROC: int(limits["processes"]) + already,
    }
    if not gpu:
        wanted[resource.RLIMIT_DATA] = int(limits["memory_gb"] * 1e9)
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def count_tasks() -> int:
    """Threads that this user runs now; 0 where there is no /proc."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.getuid():
                count += sum(1 for _ in (process / "task").iterdir())
    return count


def close_descriptors(keep: list[int]) -> None:
    """Close every descriptor but 0, 1, 2 and `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, os.sysconf("SC_OPEN_MAX")))


def main() -> None:
    """Carry out the specification, then become the command."""
    spec: dict[str, Any] = json.loads(sys.argv[1])
    command = sys.argv[sys.argv.index("--") + 1 :]
    os.chdir(spec["cwd"])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    close_descriptors(spec["fds"])
    set_limits(spec["limits"], gpu=spec["gpu"], fresh_user=spec.get("fresh_user", False))
    os.execvpe(command[0], command, spec["env"])


if __name__ == "__main__":
    main()
