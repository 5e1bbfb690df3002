"""A search in simulated time: trials and proposals take minutes by a clock that is moved, and cost nothing.

The loop, the journal, git and the judge are the real ones. What they cost is counted: the clock advances by
the processor time of this program and of git, and jumps to the next event when the search waits. So what
else the machine does hardly changes the figures. Not covered: what an executor costs.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Any

from autoresearch.execute.base import Finished, Place, Started, TrialSpec
from autoresearch.search.loop import Search
from autoresearch.types import Measurement, Outcome

Score = Callable[[TrialSpec], Measurement]
"""Measures a trial at once."""


MOMENT = 30.0
"""Most real seconds that a proposer which was asked, or whose time is over, may take on a busy machine."""


class SimulatedTime(SimpleQueue):  # type: ignore[type-arg]
    """The queue of events of a search, which moves the clock when the search waits.

    Attributes:
        jumped: Seconds that were jumped over.
        asked: Gives how many questions the proposer was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0
        self.asked: Callable[[], int] = lambda: 0
        self._later: list[tuple[float, int, Callable[[], bool]]] = []
        self._number = self._thinking = 0
        self._lock = threading.Condition()

    def now(self) -> float:
        """Simulated seconds."""
        used = os.times()
        return self.jumped + used.user + used.system + used.children_user + used.children_system

    def at(self, moment: float, do: Callable[[], bool]) -> None:
        """Do something at a moment; it says whether an event follows."""
        with self._lock:
            self._number += 1
            heappush(self._later, (moment, self._number, do))

    def think(self, seconds: float) -> None:
        """Let a proposer's thread wait for so many simulated seconds."""
        woken = threading.Event()

        def wake() -> bool:
            woken.set()
            return True

        self.at(self.now() + seconds, wake)
        with self._lock:
            self._thinking += 1
            self._lock.notify_all()
        woken.wait()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next event; the clock jumps to it."""
        with self._lock:  # until every question has begun
            self._lock.wait_for(lambda: self._thinking >= self.asked(), MOMENT)
        limit = self.now() + (timeout or 0.0)
        while True:
            with suppress(Empty):
                return super().get_nowait()
            with self._lock:
                if not self._later or self._later[0][0] > limit:
                    self.jumped += max(0.0, limit - self.now())
                    raise Empty
                moment, _, do = heappop(self._later)
            self.jumped += max(0.0, moment - self.now())
            if do():
                return super().get(timeout=MOMENT)


class SimulatedPlaces:
    """An executor whose trials take simulated time; see `autoresearch.execute.base.Executor`."""

    def __init__(self, count: int, clock: SimulatedTime, seconds: float, score: Score) -> None:
        self.places: Sequence[Place] = [Place(f"cpu:{i}", "simulated") for i in range(count)]
        self._clock, self._seconds, self._score = clock, seconds, score
        self._open: dict[int, Callable[[bool], bool]] = {}
        self._chance = random.Random(count)

    def submit(self, spec: TrialSpec, place: str, events: SimpleQueue[Any]) -> None:
        """Let the trial end later."""

        def end(useful: bool) -> bool:
            if self._open.pop(spec.trial, None) is None:
                return False
            events.put(Finished(spec, place, self._score(spec) if useful else None))
            return True

        self._open[spec.trial] = end
        events.put(Started(spec, place))
        lasts = self._seconds * self._chance.uniform(0.95, 1.05)
        self._clock.at(self._clock.now() + lasts, lambda: end(True))

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """End trials at once."""
        for trial in trials:
            if (end := self._open.get(trial)) is not None:
                end(False)

    def tryout(self, spec: TrialSpec) -> Measurement:
        """Every candidate gets through."""
        return Measurement(Outcome.OK)

    def close(self) -> None:
        """Nothing runs."""


def let_time_pass(search: Search, clock: SimulatedTime) -> None:
    """Let a search that has not begun wait for its events in simulated time."""
    search.scheduler.events = clock
    clock.asked = lambda: search.lookahead.questions
