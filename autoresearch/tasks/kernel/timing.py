"""How fast a candidate is: interleaved pairs of runs, counted from outside, and what the pairs must agree on.

Each pair runs reference and candidate on the same new inputs, in alternating order. The speed-up is the
median over pairs of the ratio of their CPU times: on a busy machine its standard deviation is a fraction of
that of a ratio of wall times (`benchmarks/kernel_noise.py`). A run is charged with all that its process tree
uses until its next run begins, so threads and children that compute on after the answer cost it the same.

CPU time alone could be cheated by letting somebody else compute: the kernel, a process that is not counted.
But the process must wait meanwhile. So the time in which it neither computed nor waited for a core is
compared with that of the reference (`Cost.idle`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from autoresearch.tasks.kernel.process import KernelServer

GOLDEN = (math.sqrt(5) - 1) / 2
IDLE = 0.2
"""Largest share of the reference's time that a candidate may wait for something else than a core."""
IDLE_SECONDS = 0.001
"""So many seconds of waiting in a run are always allowed: two processes that talk wake each other."""


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Attributes:
        cpu: CPU seconds of the whole process tree, from the request to the next request.
        wall: Seconds from the request until its results were copied.
        waited: Seconds that threads of the tree, and the one that times it, waited for a core meanwhile.
    """

    cpu: float
    wall: float
    waited: float

    @property
    def idle(self) -> float:
        """Seconds in which the tree neither computed nor could have, had there been a core."""
        return max(0.0, self.wall - self.cpu - self.waited)


@dataclass(frozen=True)
class Pair:
    """Reference and candidate on the same inputs."""

    reference: Cost
    candidate: Cost


class Stopwatch:
    """Counts what the runs of one process cost."""

    def __init__(self, server: KernelServer) -> None:
        self._server = server
        self._open: tuple[float, float, float] | None = None
        self.costs: list[Cost] = []

    def begin(self) -> None:
        """A run begins; the one before it is charged with all that was used until now."""
        self.settle()
        self._cpu, self._waited = self._server.cpu, self._server.waited + _own_wait()
        self._begun = time.perf_counter()

    def end(self) -> None:
        """The results of the run have been copied."""
        wall = time.perf_counter() - self._begun
        self._open = self._cpu, wall, self._server.waited + _own_wait() - self._waited

    def settle(self) -> None:
        """Charge the last run."""
        if self._open is not None:
            cpu, wall, waited = self._open
            self.costs.append(Cost(self._server.cpu - cpu, wall, max(0.0, waited)))
            self._open = None


def _own_wait() -> float:
    """Seconds that this thread has waited for a core: it may be late to see an answer."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def speedup(pairs: Sequence[Pair], *, wall: bool = False) -> float:
    """Median ratio of the reference's time to the candidate's; above 1 the candidate is faster."""
    if wall:
        return median(pair.reference.wall / pair.candidate.wall for pair in pairs)
    return median(pair.reference.cpu / max(pair.candidate.cpu, 1e-6) for pair in pairs)


def too_idle(pairs: Sequence[Pair]) -> str:
    """Why CPU time does not tell what the candidate takes; empty if it does."""
    idle = median(pair.candidate.idle for pair in pairs) - median(pair.reference.idle for pair in pairs)
    usual = median(pair.reference.cpu for pair in pairs)
    if idle <= IDLE_SECONDS + IDLE * usual:
        return ""
    return (
        f"it waits {1000 * idle:.3g} ms in each run for something that its CPU time does not hold (the "
        f"reference takes {1000 * usual:.3g} ms): it must compute itself, in its own process"
    )


def sizes(bounds: Sequence[int], count: int, start: float, skip: int = 0) -> list[int]:
    """Sizes spread evenly on a log scale, each part of the sequence as well as the whole.

    Args:
        bounds: Smallest and largest size.
        count: How many.
        start: In [0, 1): where the sequence begins.
        skip: Left out at the beginning.
    """
    low, high = bounds
    width = math.log((high + 1) / max(low, 0.5))
    shares = [(start + GOLDEN * (skip + i)) % 1.0 for i in range(count)]
    return [min(high, max(low, int(max(low, 0.5) * math.exp(width * share)))) for share in shares]
