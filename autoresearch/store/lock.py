"""The lease: which process runs a search.

Owns the invariant that at most one process runs a search. The lock is the kernel's, on `runs/<name>/lock`:
it ends with its owner, however that ends. What the file says (process, host, boot, since when) is for people,
and for the one case the kernel cannot judge: a lock kept alive by a child of an owner that is dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import psutil

from autoresearch.errors import UserError


@dataclass(frozen=True)
class Lease:
    """Who runs a search.

    Attributes:
        pid: Process id.
        host: Name of the machine.
        boot: Tells one start of the machine from the next; process ids mean nothing beyond it.
        born: When the process began, by a clock that nobody sets; tells it from a later one with its id.
        since: When it took the lease, Unix time in seconds.
        space: Where its process id means something: a container has ids of its own.
    """

    pid: int
    host: str
    boot: str
    born: float
    since: float
    space: str = ""

    @classmethod
    def ours(cls) -> Lease:
        """The lease of this process, from now on."""
        return cls(os.getpid(), socket.gethostname(), _boot(), _born(os.getpid()), time.time(), _space())

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Lease | None:
        """The inverse of `to_json`; None for what is not a lease, e.g. a file cut short by a full disk."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    @property
    def dead(self) -> bool:
        """Whether its owner is certainly gone. Of another machine or container nothing is certain."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return False
        if self.boot != _boot():
            return True
        try:
            return _born(self.pid) != self.born
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


@contextmanager
def lock(folder: Path) -> Iterator[Lease]:
    """Hold the right to run the search in `folder`; the kernel gives it back if this process dies.

    Raises:
        UserError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    with _taken(path) as file:
        lease = Lease.ours()
        file.seek(0)
        file.truncate(0)
        file.write(lease.to_json())
        file.flush()
        yield lease


@contextmanager
def _taken(path: Path) -> Iterator[TextIO]:
    """The lock file, open and locked."""
    for _ in range(3):
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = Lease.from_json(file.read())
                if owner is None or not owner.dead:
                    raise _busy(path.parent, owner) from None
                # Only a child that outlived its owner holds it still: a new file has a new lock.
                with _alone(path.parent):
                    if _same(path, file):
                        path.unlink(missing_ok=True)
                continue
            if _same(path, file):
                yield file
                return
    raise _busy(path.parent, None)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time takes a lock away: or it would be the new one of a rival that was faster."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _same(path: Path, file: TextIO) -> bool:
    """Whether the file we locked is the one that lies there now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _busy(folder: Path, owner: Lease | None) -> UserError:
    return UserError(
        f"The search {folder.name} is already running ({owner or 'process unknown'}).",
        f"Watch it with: autoresearch status name={folder.name}; or stop that process and run this again.",
        code=4,
    )


def _born(pid: int) -> float:
    """When a process began.

    Raises:
        psutil.NoSuchProcess: If there is none.
    """
    try:
        # In ticks since the machine started. Unix time would change whenever somebody sets the clock, and a
        # runner that lives would be taken for dead.
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return float(psutil.Process(pid).create_time())


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{psutil.boot_time():.0f}"


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
