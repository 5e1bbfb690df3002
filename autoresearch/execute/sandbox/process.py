"""Start a jailed process, watch what it uses, and kill all of it.

Invariant: when `Jailed.kill` returns, no process of the tree is left, daemons included. The launcher stays as
the tree's first process and adopts orphans; in a PID namespace, its end ends all processes (see `launch.py`).
Where there is a control group, every process still in it is killed. A tree that uses more memory, processes
or disk than its limits is killed too, and `Jailed.breach` says so.

The kernel enforces limits first (`launch.py`, `cgroup.py`). The watcher enforces them where the kernel
cannot, and explains a kill in a sentence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO

import psutil

from autoresearch.execute.sandbox import cgroup, usage
from autoresearch.execute.sandbox.base import Jail, Sandbox

INTERVAL = 0.1
"""Seconds between two checks of a tree."""

DISK_EVERY = 3
"""Looks between two measurements of the writable folders, which cost more."""

LEAST_FREE = 1 << 29
"""Bytes of the disk that stay free: a tree that leaves less is ended, so that the journal can be written."""

MUCH = 1 << 26
"""Bytes from which a tree's own files can be the reason."""

OWN_PROCESSES = 4
"""Processes of the sandbox itself in the tree: shell, bubblewrap, launcher, first process."""


class Jailed:
    """A process tree inside a jail. Use it as a context: leaving kills the whole tree.

    Attributes:
        process: The outermost process. It ends when the candidate does, with the same exit status; one that
            died of signal n exits with 128 + n.
        breach: Which limit the tree broke, as a sentence; empty while it keeps within them.
        peak_memory: Most main memory that the whole tree was seen to use, in bytes.
        waited_seconds: Time in which its threads could have computed, but others had the cores, in all; None
            where the kernel does not say.
    """

    def __init__(self, process: subprocess.Popen[bytes], jail: Jail, group: cgroup.Cgroup | None) -> None:
        self.process = process
        self.breach = ""
        self.peak_memory = 0
        self.waited_seconds: float | None = None
        self._cpu: dict[int, float] = {}
        self._cpu_seconds = 0.0
        self._waited: dict[int, float] = {}
        self._jail, self._group = jail, group
        self._memory_breach = f"used more than {jail.limits.memory_gb:g} GB of memory"
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="sandbox-watch", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Jailed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the whole tree so far, in seconds, processes that were seen and have ended included."""
        self._count_cpu()
        return self._cpu_seconds

    def kill(self, *, empty: bool = True) -> None:
        """Kill the whole tree and wait until it is gone; harmless if it already is.

        Args:
            empty: Whether to drop from memory what only this tree used, its own files included; if not, the
                next call does.
        """
        self._stop.set()
        self._count_cpu()
        kill_tree(self.process)
        self._watcher.join()
        if self._group is not None:
            if not self.breach and self._group.out_of_memory():
                self.breach = self._memory_breach
            self._group.kill()
            self._count_cpu()
            if empty:
                self._group.remove()
                self._group = None

    def _watch(self) -> None:
        """Check the tree until it ends or breaks a limit; a failed check counts as a breach."""
        looks = 0
        while not self._stop.wait(INTERVAL) and self.process.poll() is None:
            looks += 1
            try:
                self.breach = self._broken(disk=looks % DISK_EVERY == 0)
            except Exception as error:  # any error: without a watcher there would be no limits
                self.breach = f"could not be watched ({type(error).__name__}: {error})"
            if self.breach:
                kill_tree(self.process)
                return

    def _broken(self, *, disk: bool) -> str:
        """The limit that the tree breaks now, as a sentence; empty if none."""
        limits = self._jail.limits
        tree = usage.descendants(self.process.pid)
        most = limits.memory_gb * 1e9
        memory = usage.memory_bytes(tree, most)
        self.peak_memory = max(self.peak_memory, memory)
        if memory > most or (self._group is not None and self._group.out_of_memory()):
            return self._memory_breach
        self._count_cpu()
        if disk:
            self._waited |= usage.waited_seconds(tree)
            if self._waited:
                self.waited_seconds = max(self.waited_seconds or 0.0, sum(self._waited.values()))
        tasks = usage.task_count(tree)
        if tasks > limits.processes + OWN_PROCESSES:
            return f"ran more than {limits.processes} processes and threads"
        written = usage.disk_bytes(self._jail.writable, tree) if disk else 0.0
        if written > limits.file_gb * 1e9:
            return f"wrote more than {limits.file_gb:g} GB of files"
        if written > MUCH and usage.free_bytes(self._jail.writable) < LEAST_FREE:
            left = f"left less than {LEAST_FREE / 1e9:.2g} GB of the disk"
            return f"wrote {written / 1e9:.2g} GB of files, and {left}"
        return ""

    def _count_cpu(self) -> None:
        """Count the CPU time so far: by the control group, or else of the processes that are seen."""
        group = self._group
        used = group.cpu_seconds() if group is not None else 0.0
        if not used and self.process.poll() is None:
            tree = usage.descendants(self.process.pid)
            self._cpu = {**self._cpu, **usage.cpu_seconds(tree)}
            used = max(sum(self._cpu.values()), sum(usage.cpu_seconds(tree, ended=True).values()))
        self._cpu_seconds = max(self._cpu_seconds, used)


def start(
    sandbox: Sandbox,
    argv: Sequence[str],
    jail: Jail,
    *,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Jailed:
    """Start `argv` in the jail, and watch it.

    The tree dies with the thread that started it (the kernel's parent-death signal belongs to a thread), so
    start it from a thread that stays.

    Args:
        sandbox: How to confine it.
        argv: The command; its first word is looked up on the jail's PATH.
        jail: What it may touch.
        stdin: As for `subprocess.Popen`; None: an empty pipe. (/dev/null is the host's: who has it open can
            change its times or its mode, which later jails and the host would see.)
        stdout: As for `subprocess.Popen`.
        stderr: As for `subprocess.Popen`.
    """
    command = sandbox.wrap(argv, jail)
    group = cgroup.create(jail.limits)
    empty, end = os.pipe()
    os.close(end)
    try:
        process = subprocess.Popen(
            command if group is None else group.enter(command),
            stdin=empty if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=jail.fds,
            start_new_session=True,
            env={},
            cwd="/",
        )
    except BaseException:
        if group is not None:
            group.remove()
        raise
    finally:
        os.close(empty)
    return Jailed(process, jail, group)


def kill_tree(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """Kill a process that leads a session, its group and its descendants, and wait for their end.

    Killing the first process of a PID namespace kills all processes in it, and it ends after all of them. So
    waiting for the descendants that are visible from outside means waiting for the whole namespace.

    Args:
        process: The outermost process. If it was waited for already, nothing happens, since another process
            may have its number now.
        patience: Most seconds to wait for the kernel to clean up.
    """
    if process.poll() is not None:
        return
    tree = _handles(usage.descendants(process.pid))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in tree:
        with contextlib.suppress(psutil.Error):
            member.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience)
    deadline = time.monotonic() + patience
    while any(map(_lives, tree)) and time.monotonic() < deadline:
        time.sleep(0.005)


def _lives(process: psutil.Process) -> bool:
    """Whether a process still runs; a dead one may wait for its parent for a while."""
    try:
        status, threads = process.status(), process.num_threads()
    except psutil.Error:
        return False
    return bool(process.is_running() and (status != psutil.STATUS_ZOMBIE or threads > 1))


def _handles(pids: Sequence[int]) -> list[psutil.Process]:
    """Handles that notice when another process takes over a process number."""
    handles = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            handles.append(psutil.Process(pid))
    return handles
