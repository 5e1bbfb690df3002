"""Start a jailed process, watch what it uses, and kill all of it.

Invariant: when `Jailed.kill` returns, no process of the tree is left, daemons included, wherever the backend
has a PID namespace or confines the process group (every backend but `none`). A tree that uses more memory,
processes or disk than its limits is killed, and `Jailed.breach` says so.

The kernel's own limits come first (see `launch.py`, `cgroup.py`); the watcher is what holds where those are
not to be had, and what explains a kill in a sentence.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from autoresearch.run.sandbox.base import Jail, Sandbox

INTERVAL = 0.1
"""Seconds between two looks at a tree."""

DISK_EVERY = 5
"""Looks between two measurements of the writable folders, which cost more."""


class Jailed:
    """A process tree inside a jail.

    Attributes:
        process: The outermost process; its exit status is the candidate's.
        breach: Which limit the tree broke, as a sentence; empty while it keeps within them.
        peak_memory: Most main memory that the whole tree was seen to use, in bytes.
    """

    def __init__(self, process: subprocess.Popen[bytes], jail: Jail) -> None:
        self.process = process
        self.breach = ""
        self.peak_memory = 0
        self._jail = jail
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="sandbox-watch", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Jailed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the whole tree and wait until it is gone; harmless if it already is."""
        self._stop.set()
        kill_tree(self.process)
        if threading.current_thread() is not self._watcher:
            self._watcher.join()

    def _watch(self) -> None:
        """Look at the tree until it ends or breaks a limit."""
        looks = 0
        while not self._stop.wait(INTERVAL) and self.process.poll() is None:
            looks += 1
            self.breach = self._broken(disk=looks % DISK_EVERY == 0)
            if self.breach:
                kill_tree(self.process)
                return

    def _broken(self, *, disk: bool) -> str:
        """The limit that the tree breaks now, as a sentence; empty if none."""
        limits = self._jail.limits
        tree = descendants(self.process.pid)
        memory = sum(_memory(process) for process in tree)
        self.peak_memory = max(self.peak_memory, memory)
        if memory > limits.memory_gb * 1e9:
            return f"used {memory / 1e9:.1f} GB of memory; the limit is {limits.memory_gb:g} GB"
        tasks = sum(_tasks(process) for process in tree)
        if tasks > limits.processes + 8:
            return f"ran {tasks} processes and threads; the limit is {limits.processes}"
        if disk:
            used = sum(folder_bytes(folder) for folder in self._jail.writable)
            if used > limits.file_gb * 1e9:
                return f"wrote {used / 1e9:.1f} GB of files; the limit is {limits.file_gb:g} GB"
        return ""


def start(
    sandbox: Sandbox,
    argv: Sequence[str],
    jail: Jail,
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Jailed:
    """Start `argv` in the jail, and watch it. Use it as a context: leaving kills the whole tree.

    Args:
        sandbox: How to confine it.
        argv: The command; its first word is looked up on the jail's PATH.
        jail: What it may touch.
        stdin: As for `subprocess.Popen`; nothing by default.
        stdout: As for `subprocess.Popen`.
        stderr: As for `subprocess.Popen`.
    """
    process = subprocess.Popen(
        sandbox.wrap(argv, jail),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=jail.fds,
        start_new_session=True,
        env={},
        cwd="/",
    )
    return Jailed(process, jail)


def kill_tree(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """Kill a process, its process group and all its descendants, and wait until they are gone.

    Killing the first process of a PID namespace kills everything in it, and it is not gone before all of it
    is; so waiting for the descendants seen from outside is waiting for the whole namespace.

    Args:
        process: Started with `start_new_session=True`.
        patience: Most seconds to wait for the kernel to clean up.
    """
    tree = descendants(process.pid) if process.returncode is None else []
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for member in tree:
        with contextlib.suppress(psutil.Error):
            member.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience)
    psutil.wait_procs([member for member in tree if member.pid != process.pid], timeout=patience)


def descendants(pid: int) -> list[psutil.Process]:
    """A process and everything below it; empty once it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def folder_bytes(folder: Path) -> int:
    """Bytes on disk of everything below a folder; links are not followed. Counts inodes as 4 KB each."""
    total = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    total += status.st_blocks * 512 + 4096
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return total


def _memory(process: psutil.Process) -> int:
    """Bytes of main memory that only processes hold: file pages, which can be dropped, are not counted."""
    try:
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0)) if info else 0
    except psutil.Error:
        return 0


def _tasks(process: psutil.Process) -> int:
    try:
        return int(process.num_threads())
    except psutil.Error:
        return 0
