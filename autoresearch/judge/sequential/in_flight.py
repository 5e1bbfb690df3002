"""Which trial is next: the candidates in flight, on one place and on many.

With one place there is one candidate, and each step waits for the answers of the one before. With several
places many are in flight, so that no place waits: whenever one is free, the most promising candidate gets
another run, the incumbent one more replicate if it is due, or a new candidate is screened.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

from autoresearch.judge.base import Judge
from autoresearch.judge.requests import TrialRequest
from autoresearch.judge.sequential.candidates import Candidate, Earlier, Wait
from autoresearch.judge.sequential.incumbent import Incumbent
from autoresearch.judge.sequential.planning import wanted
from autoresearch.types import Arm, Verdict

PLANNED_RUNS = 2
"""Most runs of a candidate under way at a time, so that free places have something to do. While there are
enough candidates one is better: what it shows may save the next."""

MOST_IN_FLIGHT = 4
"""Candidates in flight for each place. More would only wait for a trial that hangs."""


class InFlight(Judge):
    """A judge that may have many candidates in flight.

    Attributes:
        active: The candidates in flight, by number.
        earlier: Number of a request -> the incumbent that its run is on top of, if that was replaced since.
        incumbent: The incumbent.
        screens: Screenings that were asked for.
        holds: Whether a candidate that would be kept must first be `passed`.
        device: Kind of device that the next trial would run on; empty: the first.
    """

    active: dict[int, Candidate]
    earlier: dict[int, Earlier]
    incumbent: Incumbent
    screens: int
    holds: bool = False
    device: str = ""

    @abstractmethod
    def _end(self, c: Candidate) -> None:
        """A candidate is not kept."""

    @abstractmethod
    def _decide(self, c: Candidate) -> Verdict | None:
        """Keep, discard, or go on."""

    def use_places(self, places: int) -> None:
        """Hold many candidates in flight if there are several places."""
        self.places = places

    @property
    def many(self) -> bool:
        """Whether candidates are in flight beside each other; also on several kinds of devices."""
        return self.places > 1 or len(self.active) > 1 or bool(self.device or self.incumbent.devices)

    def use_device(self, device: str) -> bool:
        """Ask for what can run on a kind of device; its seeds stay there."""
        self.device = device
        return True

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Numbers of the candidates that were announced and have no verdict."""
        return tuple(self.active)

    @property
    def wants_candidate(self) -> bool:
        """With several places a new one is wanted when the others leave nothing to ask."""
        if not self.active or not self.many:
            return not self.active
        in_reach = len(self.active) < MOST_IN_FLIGHT * self.places
        return in_reach and not self._requests.planned and self._wanted() is None

    @property
    def behind(self) -> tuple[int, ...]:
        """Those past the screening, or before it, that were made for an earlier incumbent; best first."""
        asked = {request.candidate for request in self._requests.under_way}
        found = (c for n, c in self.active.items() if c.behind and (c.seeds or n not in asked))
        return tuple(c.number for c in sorted(found, key=lambda c: (-c.z, c.number)))

    def hold_keeps(self, hold: bool) -> None:
        """Let each candidate that would be kept wait until it is passed."""
        self.holds = hold

    @property
    def held(self) -> tuple[int, ...]:
        """Candidates that would be kept, and wait to be passed; the best comes first."""
        waiting = (c for c in self.active.values() if c.waits_for is Wait.PASS)
        return tuple(c.number for c in sorted(waiting, key=lambda c: (-c.z, c.number)))

    def passed(self, number: int) -> list[tuple[int, Verdict]]:
        """Go on with a candidate that has passed the caller's check; see `Judge.passed`."""
        c = self.active[number]
        if c.waits_for is not Wait.PASS:
            return []  # another was kept meanwhile, or the machine has changed: it must pass again
        c.passed, c.waits_for = True, Wait.NOTHING
        verdict = self._decide(c)
        return [] if verdict is None else self._with_levels([(number, verdict)])

    def candidate(self, complexity: float = 0.0, kind: str = "", number: int = 0) -> None:
        """Announce a candidate; see `Judge.candidate`."""
        if number and 0 in self.active:  # from a state of an older version, which did not number them
            self.active[number] = replace(self.active.pop(0), number=number)
            self._requests.rename(0, number)
        known = self.active.setdefault(number, Candidate(number))
        known.complexity, known.kind = float(complexity), kind

    def rebased(self, number: int, complexity: float | None = None) -> None:
        """Go on with a candidate on top of the present incumbent."""
        known = self.active[number]
        known.behind = False
        known.complexity = known.complexity if complexity is None else float(complexity)

    def withdraw(self, number: int) -> None:
        """Forget a candidate in flight; its runs still tell about the noise."""
        if number in self.active:
            self._end(self.active[number])

    def next(self) -> TrialRequest | None:
        """The next trial to run, or None if the judge must see answers, or a new candidate, first."""
        if self.many and not self._requests.planned:
            if (request := self._wanted() or self._wanted(PLANNED_RUNS)) is None:
                return None
            seed = request.seed
            if request.arm is Arm.SCREEN:
                seed = self._screening_seed()
            elif seed < 0:
                seed = self._new_seed()
            self._requests.plan([replace(request, seed=seed, device=self.device)])
        return super().next()

    def _new_seed(self) -> int:
        seed = super()._new_seed()
        if self.device:
            self.incumbent.devices[seed] = self.device
        return seed

    def _wanted(self, ahead: int = 1) -> TrialRequest | None:
        """What to ask of the next free one of several places, with a seed below 0 for one to be chosen."""
        active, under_way = list(self.active.values()), self._requests.under_way
        return wanted(active, self.incumbent, under_way, self.options, self.places, ahead, self.device)

    def _screening_seed(self) -> int:
        """The incumbent's seeds on this kind of device in turn."""
        self.screens += 1
        seeds = [s for s in self.incumbent.runs if self.incumbent.devices.get(s, "") == self.device]
        return seeds[self.screens % len(seeds)]

    def _plan(self) -> list[TrialRequest]:
        """At one place: a step for the only candidate."""
        c = next(iter(self.active.values()), None) or Candidate()
        self.number = c.number
        if c.seeds:
            return self._confirmation(c)
        if self.incumbent.due(int(self.options["heartbeat"])):
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        n = len(self.incumbent.runs)
        missing = 0 if self.incumbent.failing else max(0, int(self.options["refresh"]) - n)
        requests = [TrialRequest(Arm.INCUMBENT, self._new_seed()) for _ in range(missing)]
        return [*requests, TrialRequest(Arm.SCREEN, self._screening_seed())]

    def _confirmation(self, c: Candidate) -> list[TrialRequest]:
        """The next trials of a screened candidate, on seeds on which the incumbent has run or will."""
        if c.waits_for is Wait.PASS:
            return []
        if c.waits_for is Wait.CONTROL_RUN or self.incumbent.outliers:
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        free = [seed for seed in self.incumbent.runs if seed not in c.seeds]
        if c.waits_for is Wait.THOROUGH_RUN:
            return [TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed(), thorough=True)]
        requests: list[TrialRequest] = []
        n = len(self.incumbent.runs)
        for k in range(len(c.seeds), len(c.seeds) + PLANNED_RUNS):
            if n < k + 1 and not self.incumbent.failing:
                free.append(self._new_seed())
                requests.append(TrialRequest(Arm.INCUMBENT, free[-1]))
                n += 1
            requests.append(TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed()))
        return requests
