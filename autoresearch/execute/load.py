"""How busy this machine is with other programs, and what that means for limits on time.

A limit on time must not turn load into a verdict. So this module measures, while trials run, how many cores
other programs use (the kernel's count of all, less that of our own processes), and how long a fixed
computation takes. `Clock` counts a trial's time: that in which it waited for a core does not count where the
kernel tells it, else a part of that on a machine without room. Not covered: memory and the network; GPUs
(`health`).

Where the kernel does not count (no /proc/stat), the machine counts as quiet.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from autoresearch.execute.sandbox.usage import cpu_seconds, descendants
from autoresearch.text import count

EVERY = 0.5
"""Seconds between two looks."""
WINDOW = 5.0
"""Seconds of looks that say how busy the machine is now."""
BUSY_SHARE, FULL_SHARE = 0.1, 0.9
"""The machine has no room if others use more than the first share of its cores, and all use the second."""
LEAST = 0.25
"""Least share of the time that counts on a machine without room where it is not known who had the cores."""
MOST_STRETCH = 8.0
"""Largest factor by which a limit on a wall clock is longer on a machine without room."""
MOST_TAKEN = 0.95
"""Largest share of the time that does not count, however many others compute: a trial ends some day."""
SPOILS = 2.0
"""Seconds without room after which a trial that exceeds a limit is repeated, not judged."""
REFERENCE = bytes(1 << 20)
"""What the fixed computation hashes."""


@dataclass(frozen=True)
class Look:
    """The kernel's counts at one moment, all in CPU seconds but the first.

    Attributes:
        time: By a monotonic clock, in seconds.
        used: By all programs on the cores that we may use.
        ours: By this process and everything it started.
        reference: That the fixed computation took.
    """

    time: float
    used: float
    ours: float
    reference: float


class LoadMeter:
    """Looks at the machine while it is used as a context, however many contexts there are.

    Attributes:
        cores: Cores that we may use.
    """

    def __init__(self, look: Callable[[], Look] | None = None, cores: int | None = None) -> None:
        """Prepare; `look` replaces the kernel's counts."""
        self.cores = cores or len(_cores())
        self._look = look or _Kernel().look
        self._looks: deque[Look] = deque(maxlen=int(WINDOW / EVERY) + 1)
        self._full_seconds = self._taken = 0.0
        self._lock = threading.Lock()
        self._watching = 0
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the machine until the context ends."""
        with self._lock:
            self._watching += 1
            if self._watching == 1:
                self._over = threading.Event()
                threading.Thread(target=self._run, args=(self._over,), name="load", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1
                if not self._watching:
                    self._over.set()

    def look(self) -> None:
        """Take one more look."""
        with suppress(OSError, ValueError):
            now = self._look()
            with self._lock:
                if self._looks and now.time - self._looks[-1].time > WINDOW:
                    self._looks.clear()  # of a trial some time ago
                passed = now.time - self._looks[-1].time if self._looks else 0.0
                self._looks.append(now)
            if self.full:
                self._full_seconds += passed
                self._taken += passed * self.others

    @property
    def mark(self) -> tuple[float, float]:
        """A moment, for `blame`: seconds without room so far, and CPU seconds that others used in them."""
        return self._full_seconds, self._taken

    def blame(self, since: tuple[float, float]) -> str:
        """What other programs did since a moment, if it may have spoiled a trial; else empty."""
        seconds, taken = self._full_seconds - since[0], self._taken - since[1]
        if seconds < SPOILS:
            return ""
        return f"other programs used {taken / seconds:.1f} of {count(self.cores, 'core')} for {seconds:.0f} s"

    @property
    def others(self) -> float:
        """Cores that other programs used in the last seconds."""
        return self._rates()[0]

    @property
    def full(self) -> bool:
        """Whether other programs leave no room: nearly all cores are used, and by them a part of these."""
        others, used = self._rates()
        return others > BUSY_SHARE * self.cores and used > FULL_SHARE * self.cores

    def problem(self) -> str:
        """What other programs do while they leave no room; else empty."""
        return str(self) if self.full else ""

    @property
    def stretch(self) -> float:
        """By what factor a limit on a wall clock is longer now than on a quiet machine."""
        free = max(self.cores - self.others, self.cores / MOST_STRETCH)
        return self.cores / free if self.full else 1.0

    @property
    def reference(self) -> float:
        """CPU seconds that the fixed computation takes now; 0 if that is not known."""
        with self._lock:
            return median(look.reference for look in self._looks) if self._looks else 0.0

    def __str__(self) -> str:
        return f"other programs use {self.others:.1f} of {count(self.cores, 'core')}"

    def _rates(self) -> tuple[float, float]:
        """Cores that others used, and that all used, in the last seconds."""
        with self._lock:
            if len(self._looks) < 2:
                return 0.0, 0.0
            first, last = self._looks[0], self._looks[-1]
        span = max(last.time - first.time, 1e-9)
        used, ours = last.used - first.used, last.ours - first.ours
        return max(0.0, used - ours) / span, used / span

    def _run(self, over: threading.Event) -> None:
        self.look()
        while not over.wait(EVERY):
            self.look()


@cache
def this_machine() -> LoadMeter:
    """The meter that all trials of this process share."""
    return LoadMeter()


class Clock:
    """The time of one phase of a trial, as limits count it. Call `tick` about twice a second.

    Attributes:
        seconds: Counted seconds: all, less those in which others had the cores that it waited for.
        cpu: CPU seconds that the program used.
        wall: Seconds by the wall clock.
        full: Seconds of them in which the machine had no room.
        exact: Whether the kernel tells how long the program waits. If not, `seconds` is an estimate.
    """

    def __init__(
        self,
        load: LoadMeter,
        cpu: Callable[[], float],
        threads: int = 1,
        waited: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Start it.

        Args:
            load: Says how busy the machine is.
            cpu: CPU seconds of the program so far.
            threads: Cores that the program would use on a quiet machine.
            waited: Seconds that its threads have waited for a core so far, in all; None: not known.
        """
        self._load, self._cpu, self._threads, self._waited = load, cpu, threads, waited
        self._begun, self._now, self._seen, self._owed = cpu(), time.monotonic(), waited() or 0.0, 0.0
        self.seconds = self.cpu = self.wall = self.full = 0.0
        self.exact = False

    def tick(self) -> None:
        """Count the time since the last call."""
        now, cpu = time.monotonic(), max(self._cpu() - self._begun, self.cpu)
        passed, used = now - self._now, cpu - self.cpu
        self._now, self.cpu, self.wall = now, cpu, self.wall + passed
        waited = self._waited()
        self.exact = waited is not None
        self.full += passed if self._load.full else 0.0
        if waited is not None:  # for programs of others, or for ours, such as a quick test beside it
            self._owed = min(self._owed + max(0.0, waited - self._seen) / self._threads, WINDOW)
            self._seen = waited
            # Threads beyond those it was given wait for each other; what they compute counts all the same.
            taken = min(self._owed, MOST_TAKEN * passed, max(0.0, passed - used / self._threads))
            self._owed, passed = self._owed - taken, passed - taken  # the rest counts at the next calls
        elif self._load.full:  # our own programs beside it are no excuse: they were there at the baseline
            passed = min(passed, max(used / self._threads, LEAST * passed))
        self.seconds += passed

    def __str__(self) -> str:
        taken = f", {self.full:.0f} s of them without room on the machine" if self.full >= 1 else ""
        return f"{self.cpu:.3g} s of CPU time in {self.wall:.3g} s{taken}"


class _Kernel:
    """Reads the kernel's counts."""

    def __init__(self) -> None:
        self._ours: dict[int, float] = {}
        self._ended = 0.0

    def look(self) -> Look:
        now = cpu_seconds(descendants(os.getpid()))
        # What has ended counts on, else its time would seem to be that of others.
        self._ended += sum(seconds for pid, seconds in self._ours.items() if pid not in now)
        self._ours = now
        ticks = os.sysconf("SC_CLK_TCK")
        used, wanted = 0.0, {f"cpu{core}" for core in _cores()}
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name in wanted:  # all but idle, waiting for the disk, and guests, which count as user already
                used += sum(int(fields[i]) for i in (0, 1, 2, 5, 6)) / ticks
        begun = time.thread_time()
        hashlib.sha256(REFERENCE).digest()
        spent = time.thread_time() - begun
        return Look(time.monotonic(), used, self._ended + sum(now.values()), spent)


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
