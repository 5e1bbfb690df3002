"""Measures how much a process tree uses now: memory, tasks, disk, CPU time.

It measures from outside, so a candidate cannot lie about it. On Linux it reads the kernel's child lists
instead of the whole process table, because the watcher measures ten times a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import stat
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

INODE_BYTES = 1 << 16
"""Bytes that an empty file or folder counts for, because counting and removing many of them takes time."""


def descendants(pid: int) -> list[int]:
    """A process and everything below it; empty once it is gone."""
    if not Path("/proc/self/task").exists():
        with contextlib.suppress(psutil.Error):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return []
    found: list[int] = []
    pending = [pid]
    while pending:
        current = pending.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{current}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
            found.append(current)
    return found


def memory_bytes(pids: Iterable[int], limit: float) -> int:
    """Main memory that processes hold; pages of files, which can be dropped, do not count.

    Pages that several processes share (after a fork, for example) first count once for each process, which is
    quick. Only if the sum is above `limit` (bytes) are they counted in proportion, which walks all page
    tables.
    """
    pids = list(pids)
    total = sum(_kilobytes(pid, "status", ("RssAnon", "RssShmem", "VmSwap")) for pid in pids)
    if total * 1024 > limit:
        exact = sum(_kilobytes(pid, "smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss")) for pid in pids)
        total = exact or total
    return total * 1024


def _kilobytes(pid: int, file: str, keys: Iterable[str]) -> int:
    """Sum of some fields of a file in a process's /proc, in KiB; all its memory where there is no /proc."""
    try:
        lines = _lines(pid, file)
    except OSError:
        with contextlib.suppress(psutil.Error):
            return 0 if Path("/proc/self").exists() else psutil.Process(pid).memory_info().rss // 1024
        return 0
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(fields.get(key, "0").split()[0]) for key in keys)


def _lines(pid: int, file: str) -> list[str]:
    """Lines of a file in a process's /proc.

    The lines contain names of processes and files, which the candidate chooses: any bytes except a line feed,
    which the kernel escapes. So only a line feed ends a line, and a line need not be text.
    """
    return Path(f"/proc/{pid}/{file}").read_bytes().decode(errors="replace").split("\n")


def task_count(pids: Iterable[int]) -> int:
    """Threads of all these processes."""
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            count += sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    return count


def cpu_seconds(pids: Iterable[int], *, ended: bool = False) -> dict[int, float]:
    """CPU time of each process so far, to the nanosecond: what its own clock says, ended threads included.

    Args:
        pids: The processes.
        ended: Whether to add that of children which have ended and were waited for, however short they lived;
            it is counted in ticks, mostly of 10 ms.
    """
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            children = sum(map(int, fields[13:15])) / ticks if ended else 0.0
            found[pid] = time.clock_gettime(~pid << 3 | 2) + children  # as clock_getcpuclockid makes it
    return found


def waited_seconds(pids: Iterable[int]) -> dict[int, float]:
    """Time so far in which each thread could have computed, but others had the cores; empty if not known."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    found[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found


def disk_bytes(folders: Sequence[Path], pids: Iterable[int]) -> float:
    """Disk that the folders take, with files that were unlinked but are still open or mapped."""
    devices = {folder.stat().st_dev for folder in folders if folder.exists()}
    unlinked: dict[tuple[int, int], int] = {}
    for pid in pids:
        unlinked |= _open_unlinked(pid, devices)
    return sum(folder_bytes(folder) for folder in folders) + sum(unlinked.values())


def free_bytes(folders: Sequence[Path]) -> float:
    """Free space of the fullest disk on which the folders lie."""
    return min((shutil.disk_usage(folder).free for folder in folders if folder.exists()), default=math.inf)


def folder_bytes(folder: Path) -> float:
    """Disk that everything below a folder takes; links are not followed.

    A folder that cannot be read (no permission, or deeper than the longest path) counts as infinite; no
    training makes such folders.
    """
    total = 0.0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512 + INODE_BYTES
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return math.inf
    return total


def _open_unlinked(pid: int, devices: set[int]) -> dict[tuple[int, int], int]:
    """Bytes by (device, inode) of nameless files that one process keeps alive on these devices."""
    found: dict[tuple[int, int], int] = {}
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                status = fd.stat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev in devices:
                    found[status.st_dev, status.st_ino] = status.st_blocks * 512
    with contextlib.suppress(OSError):
        for line in _lines(pid, "maps"):
            if not line.endswith("(deleted)"):
                continue
            span, _, _, device, inode = line.split()[:5]
            number = os.makedev(*(int(part, 16) for part in device.split(":")))
            low, high = (int(end, 16) for end in span.split("-"))
            if number in devices:
                found[number, int(inode)] = max(found.get((number, int(inode)), 0), high - low)
    return found
