"""Keeps all files that jails can read in memory, so that it tells nothing which of them are there.

A process that reads a file brings it into memory, and how long a read takes tells another process whether it
is there. So one jail could leave notes for the next in the interpreter's own files. The system-call filter
(`system_calls`) lets no jail drop a page from memory. If in addition all pages are in memory before a jail
starts, then reading changes nothing.

`read_in` reads all files once. Later it looks whether the kernel has dropped anything since, which counters
in /proc/vmstat tell, and reads them again only then. That makes it free where memory is plenty. The counters
of the last time lie in a file of the temporary folder, so a new process does not start over.

Not covered: names that do not exist. The kernel remembers for which of them a process asked, and answers
faster the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MADV_POPULATE_READ = 22
SMALL = 1 << 18
"""Bytes up to which a file is read; a larger one is mapped, which copies nothing."""
SHARE = 0.5
"""Share of the free memory that the files may take; what exceeds it is left out."""
COUNTERS = ("pgsteal_kswapd", "pgsteal_direct", "pgsteal_khugepaged", "drop_", "kswapd_inodesteal")
"""What the kernel drops for want of memory on the machine, or when it is told to."""
GROUP_COUNTERS = ("pgsteal_file",)
"""What it drops for want of memory in a control group as well, also where `cgroup` empties one."""
LIMITS = ("memory/{}/memory.limit_in_bytes", "{}/memory.max", "unified/{}/memory.max")
_lock = threading.Lock()


@dataclass
class ReadIn:
    """What was read.

    Attributes:
        files: How many files are there.
        size: Their bytes.
        left_out: Bytes of files that memory had no room for.
    """

    files: int = 0
    size: int = 0
    left_out: int = 0


def read_in(paths: Sequence[Path]) -> ReadIn | None:
    """Bring all files below these paths into memory; None if they are there already.

    Args:
        paths: Files and folders, without those of other file systems below them, such as /proc.
    """
    key = hashlib.sha256("\0".join(map(str, paths)).encode()).hexdigest()
    with _lock:
        before = _counters()
        if before and _remembered().get(key) == before:
            return None
        done = ReadIn()
        room = SHARE * _free_memory()
        for path in _files(paths):
            with contextlib.suppress(OSError, ValueError):  # it was removed, or cannot be read
                _read(path, done, room)
        if before:
            _remember({**_remembered(), key: before})
        return done


def _read(path: str, done: ReadIn, room: float) -> None:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  tens of thousands of them
        size = os.fstat(file.fileno()).st_size
        if done.size + size > room:
            done.left_out += size
            return
        if size <= SMALL:
            file.readall()
        elif size:
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                try:
                    mapped.madvise(MADV_POPULATE_READ)
                except OSError:  # before Linux 5.14
                    while file.read(1 << 20):
                        pass
        done.files += 1
        done.size += size


def _files(paths: Sequence[Path]) -> Iterator[str]:
    """All plain files. Reads links and folders too, so that all times of access are as new as can be."""
    pending, seen = [str(path) for path in paths], set()
    while pending:
        path = pending.pop()
        try:
            status = os.lstat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            if stat.S_ISLNK(status.st_mode):
                os.readlink(path)  # noqa: PTH115
            elif stat.S_ISREG(status.st_mode):
                yield path
            elif stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as entries:
                    pending += [entry.path for entry in entries]
        except OSError:  # it was removed, or cannot be read
            continue


def _counters() -> dict[str, str]:
    """What the kernel counts when it drops pages, and the start of the machine; empty if it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
        names = COUNTERS + (GROUP_COUNTERS if _memory_is_limited() else ())
        found = dict(line.split() for line in lines if line.startswith(names))
        return {**found, "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()} if found else {}
    except OSError:
        return {}


def _memory_is_limited() -> bool:
    """Whether this process is in a control group with less memory than the machine, as in a container."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            group = line.split(":", 2)[2].strip("/")
            for limit in LIMITS:
                path = Path("/sys/fs/cgroup", limit.format(group))
                # Version 1 writes a number near 2^63 for no limit, version 2 the word "max".
                if path.exists() and (word := path.read_text().strip()) != "max" and int(word) < 1 << 60:
                    return True
    return False


def _free_memory() -> float:
    """Bytes that can be used; without a limit where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def _memory_file() -> Path:
    return Path(tempfile.gettempdir(), f"autoresearch-{os.getuid()}-read-in.json")


def _remembered() -> dict[str, dict[str, str]]:
    """The counters of the last time, for each set of paths."""
    try:
        descriptor = os.open(_memory_file(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor) as file:
            if os.fstat(descriptor).st_uid != os.getuid():
                return {}
            found = json.load(file)
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _remember(found: dict[str, dict[str, str]]) -> None:
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix=".read-in-", dir=_memory_file().parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump(dict(list(found.items())[-8:]), file)
        Path(name).replace(_memory_file())
