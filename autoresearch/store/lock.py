"""The lock of a search: at most one process runs it.

The kernel holds the lock, on `runs/<name>/lock`, through the library `filelock`; it ends with the process,
however that ends, and forked children do not inherit it. What the file says (process, host, since when) is
for people, and for `status`, which must know whether that process still runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from autoresearch.errors import UserError
from autoresearch.store.connection import holds_search

LOCK = "lock"
"""File in the folder of a search."""

RUNS_ALREADY = 4
"""Exit code of a command whose search another process runs."""

WAITING = (["verify"], ["join"])
"""Commands that train only at times: while they hold the lock of a search."""

RUNNING = (["run"], ["claim"], ["audit"], ["ablate"], ["sample"], ["reproduce"], ["try"], *WAITING)
"""Commands that train."""


@dataclass(frozen=True)
class Lease:
    """Which process runs a search.

    Attributes:
        pid: Process id.
        host: Name of the machine.
        boot: Identifies one start of the machine; after another start, process ids mean something else.
        born: When the process began, by a clock that cannot be set; with the id it identifies the process.
        since: When it took the lock, Unix time in seconds.
        space: The namespace in which the process id is valid; a container has its own.
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
        """The inverse of `to_json`; None for anything else, e.g. a file cut short by a full disk."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    @property
    def dead(self) -> bool:
        """Whether the process is certainly gone; of another machine or container that is never certain."""
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
    """Hold the right to run the search in `folder`, until the block or this process ends.

    Raises:
        UserError: If another process holds it.
    """
    from filelock import FileLock, Timeout  # takes 50 ms

    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    held = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        held.acquire()
    except Timeout:
        owner = Lease.from_json(path.read_text(encoding="utf-8") if path.exists() else None)
        name = folder.name
        raise UserError(
            f"The search {name} is already running ({owner or 'process unknown'}).",
            f"Watch it with: autoresearch status name={name}; or stop that process and run this again.",
            code=RUNS_ALREADY,
        ) from None
    try:
        lease = Lease.ours()
        path.write_text(lease.to_json(), encoding="utf-8")
        yield lease
    finally:
        if made and not holds_search(folder):  # it was refused: leave nothing of it
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()  # if it is empty
        held.release()


def other_runners() -> dict[int, str]:
    """Other processes of this machine that run a search, by number: the name that it was given, and where."""
    found = {}
    family = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        commands = [word.rpartition("/")[2] == "autoresearch" for word in words]
        at = commands.index(True) + 1 if any(commands) else len(words)
        if process.pid in family or words[at : at + 1] not in RUNNING:
            continue
        with contextlib.suppress(psutil.Error, OSError):
            held = any(file.path.endswith(f"/{LOCK}") for file in process.open_files())
            if words[at : at + 1] in WAITING and not held:
                continue
            name = next((f" {word}" for word in words[at:] if word.startswith("name=")), "")
            found[process.pid] = f"process {process.pid}{name} in {process.cwd()}"
    return found


def _born(pid: int) -> float:
    """When a process began.

    Raises:
        psutil.NoSuchProcess: If there is none.
    """
    try:
        # In ticks since the machine started. Unix time changes when somebody sets the clock, and a
        # process that runs would be taken for dead.
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
