"""A control group for one process tree, where this machine allows one.

The kernel then counts memory and processes exactly, page cache and memory files included, and itself refuses
a fork or kills a process that uses too much. The runner can find every process that started in the group,
even under the plain sandbox. Where the CPU is controlled too, each tree gets the same share of it, however
many of its threads spin. Version 2 (one tree, systemd's delegation) and version 1 (one tree per resource, as
root) both work. Without a control group, rlimits and the watcher limit the tree less exactly (`process.py`).

When a group is removed, the kernel drops what it cached for its members alone. Otherwise names that do not
exist would be notes for later jails: the kernel remembers for which ones a process asked, and then answers in
half the time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from autoresearch.execute.sandbox.base import Limits

PREFIX = "autoresearch-"
EVERYTHING = "1T"
CPU = ("cpu", "cpuacct")
"""What shares out the CPU, and what counts its time, in version 1."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cgroup:
    """One group: a folder in version 2, a folder per resource in version 1.

    Attributes:
        memory: Where memory is limited.
        pids: Where processes are limited.
        cpu: Where the CPU is shared out; None if it is not.
        account: Where CPU time is counted; None if it is not.
    """

    memory: Path
    pids: Path
    cpu: Path | None = None
    account: Path | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Its folders, each once."""
        return tuple(dict.fromkeys(filter(None, (self.memory, self.pids, self.cpu, self.account))))

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The command that first moves itself into the group, so that no child can escape it."""
        script = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 125; shift; done; shift; exec "$@"'
        files = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["/bin/sh", "-c", script, "sh", *files, "--", *argv]

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a member for memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                words = (self.memory / name).read_text().split()
                return int(words[words.index("oom_kill") + 1]) > 0 if "oom_kill" in words else False
        return False

    def cpu_seconds(self) -> float:
        """CPU time of every process that was ever a member; 0 where this group does not count it."""
        with contextlib.suppress(OSError):
            if self.account is not None:
                return int((self.account / "cpuacct.usage").read_text()) / 1e9
            words = (self.memory / "cpu.stat").read_text().split()
            return int(words[words.index("usage_usec") + 1]) / 1e6 if "usage_usec" in words else 0.0
        return 0.0

    def kill(self) -> None:
        """Kill every member, until none is left or five seconds have passed."""
        with contextlib.suppress(OSError):
            (self.pids / "cgroup.kill").write_text("1")
        for _ in range(500):
            members = self.members()
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def members(self) -> list[int]:
        """Processes in the group now."""
        with contextlib.suppress(OSError):
            return [int(word) for word in (self.pids / "cgroup.procs").read_text().split()]
        return []

    def empty(self) -> None:
        """Have the kernel drop what it cached for the members, who are dead: pages of files, and names."""
        for name, words in (("memory.force_empty", "0"), ("memory.reclaim", EVERYTHING)):
            with contextlib.suppress(OSError):  # version 2 says so when nothing is left
                if (self.memory / name).exists():
                    (self.memory / name).write_text(words)

    def remove(self) -> None:
        """Kill what is left, drop what it left in memory, and remove the group."""
        self.kill()
        self.empty()
        for folder in self.folders:
            for _ in range(50):  # the kernel frees a dead member a moment later
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
                else:
                    break


def create(limits: Limits) -> Cgroup | None:
    """A new group with these limits; None where this user may not make one."""
    if not Path("/proc/self/cgroup").exists():
        return None
    name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    for parents in _parents():
        for parent in parents.folders:
            _sweep(parent)
        group = Cgroup(*(parent and parent / name for parent in astuple(parents)))
        try:
            for folder in group.folders:
                folder.mkdir()
            _set_limits(group, limits)
        except OSError:
            group.remove()
            continue
        return group
    return None


def _parents() -> Iterator[Cgroup]:
    """Groups below which to try, best first."""
    own = {
        controller: path
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        for _, controllers, path in [line.split(":", 2)]
        for controller in controllers.split(",")
    }
    mounts = dict(_mounts())
    if "memory" in mounts and "pids" in mounts:
        candidates = [
            [mounts[kind] / own.get(kind, "/").lstrip("/"), mounts[kind]] for kind in ("memory", "pids")
        ]
        rest = [mounts[kind] / own.get(kind, "/").lstrip("/") if kind in mounts else None for kind in CPU]
        for cpu, account in dict.fromkeys(((rest[0], rest[1]), (rest[0], None), (None, None))):
            for memory, pids in itertools.product(*candidates):
                yield Cgroup(memory, pids, cpu, account)
    if "" in mounts and "" in own:
        here = mounts[""] / own[""].lstrip("/")
        for parent in dict.fromkeys((here.parent, here, mounts[""])):
            with contextlib.suppress(OSError):
                controlled = set((parent / "cgroup.subtree_control").read_text().split())
                if {"memory", "pids"} <= controlled:
                    yield Cgroup(parent, parent, parent if "cpu" in controlled else None)


def _mounts() -> Iterator[tuple[str, Path]]:
    """(controller, where it is mounted); version 2 is the controller ""."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2":
            yield "", Path(folder)
        elif kind == "cgroup":
            yield from (
                (option, Path(folder)) for option in options.split(",") if option in ("memory", "pids", *CPU)
            )


def _set_limits(group: Cgroup, limits: Limits) -> None:
    size = str(int(limits.memory_gb * 1e9))
    if (group.memory / "memory.max").exists():
        (group.memory / "memory.max").write_text(size)
        (group.memory / "memory.oom.group").write_text("1")
        with contextlib.suppress(OSError):
            (group.memory / "memory.swap.max").write_text("0")
    else:
        (group.memory / "memory.limit_in_bytes").write_text(size)
        with contextlib.suppress(OSError):
            (group.memory / "memory.memsw.limit_in_bytes").write_text(size)
    (group.pids / "pids.max").write_text(str(limits.processes))
    if group.cpu is not None:
        with contextlib.suppress(OSError):  # a new group has these values anyway
            weight = ("cpu.weight", "100") if (group.cpu / "cpu.weight").exists() else ("cpu.shares", "1024")
            (group.cpu / weight[0]).write_text(weight[1])


def _sweep(parent: Path) -> None:
    """Remove the groups of killed runners."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
