"""How messages travel between an executor and a worker: through a folder that both see.

An engine with connections of its own (Ray) has its own channel. In a folder, each side appends lines to a
file that the other reads; nothing is lost if either side stops for a while, and a new executor can go on
reading.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from autoresearch.execute.worker.messages import Wire, from_line, to_line

TO_WORKER, FROM_WORKER = "to-worker.jsonl", "from-worker.jsonl"
LOOK = 0.05
"""Seconds between two looks at a file that the other side writes."""


class WorkerLost(Exception):
    """The worker is gone, or cannot be reached; says why. Without words, it has ended as it should.

    Attributes:
        interrupted: Whether neither the trial nor the place can be to blame.
    """

    def __init__(self, why: str, *, interrupted: bool = False) -> None:
        super().__init__(why)
        self.interrupted = interrupted


class Channel(Protocol):
    """The connection of an executor with one worker. Messages arrive in order, or the worker is lost."""

    def send(self, message: Wire) -> None:
        """Send a message; may be called from any thread.

        Raises:
            WorkerLost: If the worker is gone.
        """

    def receive(self, seconds: float) -> Wire | None:
        """The next message of the worker; None if there is none within so many seconds.

        Raises:
            WorkerLost: If the worker is gone; all that it sent before has been received.
        """

    def close(self) -> None:
        """End the worker, if it does not end by itself; returns when it is gone, or cannot be reached."""


class Follower:
    """Reads the lines that another process appends to a file, also on a file system of the network."""

    def __init__(self, path: Path) -> None:
        """The file may come later."""
        self._path, self._place, self._rest = path, 0, b""
        self._lines: list[Wire] = []

    def next(self, seconds: float, alive: Callable[[], object] = lambda: None) -> Wire | None:
        """The next message; None if none comes in time. `alive` is called at each look and may raise."""
        deadline = time.monotonic() + seconds
        while not self._lines:
            self._look()
            if not self._lines:
                alive()
                if time.monotonic() >= deadline:
                    return None
                time.sleep(LOOK)
        return self._lines.pop(0)

    def _look(self) -> None:
        try:
            with self._path.open("rb") as stream:  # opened anew: NFS shows what was written before
                stream.seek(self._place)
                new = stream.read()
        except FileNotFoundError:
            return
        self._place += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            with suppress(ValueError):  # the rest of a line whose writer was killed
                self._lines.append(from_line(line))


class Appender:
    """Appends messages to a file that another process follows."""

    def __init__(self, path: Path) -> None:
        """The file may come later."""
        self._path = path
        self._sending = threading.Lock()
        if path.exists() and path.stat().st_size:
            self._write(b"\n")  # an earlier writer may have been killed within a line

    def send(self, message: Wire) -> None:
        """Append a message; may be called from any thread."""
        line = to_line(message)
        with self._sending:
            self._write(line)

    def _write(self, line: bytes) -> None:
        # Opened and closed each time: only then does NFS show the line to others.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(file, left) :]
        finally:
            os.close(file)
