"""The time by a clock that nobody can set: for durations, deadlines, and what is recorded of when.

`time.time` jumps when the clock of the machine is set, and differences of it become wrong, or negative. This
clock starts with the machine's when the process does, and counts evenly from there, also while the machine
sleeps.
"""

from __future__ import annotations

import time


def _even() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_ORIGIN = time.time() - _even()


def now() -> float:
    """Unix time in seconds, as the machine had it when this process started, plus what has passed since."""
    return _ORIGIN + _even()
