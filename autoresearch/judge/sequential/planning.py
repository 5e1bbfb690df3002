"""Which trial a free one of many places makes next.

The candidate with the most evidence gets another run, the incumbent one more replicate if it is due, or a new
candidate is screened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from autoresearch.judge.requests import TrialRequest
from autoresearch.judge.sequential.candidates import Candidate, Wait
from autoresearch.judge.sequential.incumbent import Incumbent
from autoresearch.types import Arm

REPLICATES_AHEAD, MOST_REPLICATES = 1, 12
"""With several places, the incumbent is to have so many more runs than any candidate in flight, and at most
so many because of that."""

PLACES_FOR_REPLICATE = 8
"""One in so many places may run replicates of the incumbent ahead of need."""

LIKELY_Z = 1.5
"""Evidence of a candidate that will probably need a run of the incumbent beside its own: both are made at the
same time, so that it need not wait."""

PLACES_FOR_HEARTBEAT = 16
"""The heartbeat is stretched by one in so many places: more candidates are screened in the same time."""

PLACES_FOR_PAIRS = 8
"""From so many places on, a candidate is confirmed by two runs at a time: each change that is kept meanwhile
may be one that it conflicts with, and that costs more than a run which the first of them might have saved."""


def wanted(
    active: Sequence[Candidate],
    incumbent: Incumbent,
    under_way: Sequence[TrialRequest],
    options: Mapping[str, float],
    places: int,
    ahead: int = 1,
    device: str = "",
) -> TrialRequest | None:
    """The next trial for a free one of many places; seed -1: to be chosen. None: nothing is left to ask.

    Args:
        active: Candidates in flight.
        incumbent: Of now.
        under_way: Requests whose answers were not read.
        options: The judge's.
        places: How many there are.
        ahead: Runs of one candidate that may be under way at a time.
        device: Kind of device of the place: a candidate meets only the incumbent's runs there.
    """

    def here(seeds: Iterable[int]) -> list[int]:
        return [seed for seed in seeds if incumbent.devices.get(seed, "") == device]

    replicates = [r.seed for r in under_way if r.arm is Arm.INCUMBENT]
    asked: dict[int, list[TrialRequest]] = {}
    for request in under_way:
        if request.arm is not Arm.INCUMBENT:
            asked.setdefault(request.candidate, []).append(request)
    if _replicate(active, asked, incumbent, replicates, options, places, here):
        return TrialRequest(Arm.INCUMBENT, -1)
    if not here(incumbent.runs):
        return None  # first its own runs there must tell the level
    seeds = here([*incumbent.runs, *replicates])
    for c in sorted((c for c in active if c.seeds and not c.behind), key=lambda c: (-c.z, c.number)):
        mine = asked.get(c.number, [])
        spent = len(c.seeds) + len(mine) >= options["limit"] and (len(c.runs) >= c.runs_needed or mine)
        if c.waits_for in (Wait.CONTROL_RUN, Wait.PASS) or spent:
            continue
        second = places >= PLACES_FOR_PAIRS and len(mine) == 1 and len(c.seeds) % 2 == 1
        if len(mine) < (1 if c.waits_for else 2 if second else ahead):
            used = {*c.seeds, *(request.seed for request in mine)}
            free = [seed for seed in seeds if seed not in used]
            thorough = c.waits_for is Wait.THOROUGH_RUN
            return TrialRequest(Arm.CONFIRM, free[-1] if free else -1, 0, thorough, c.number)
    for c in sorted(active, key=lambda c: c.number):
        if not c.seeds and not c.behind and c.number not in asked:
            return TrialRequest(Arm.SCREEN, -1, candidate=c.number)
    return None


def _replicate(
    active: Sequence[Candidate],
    asked: Mapping[int, Sequence[TrialRequest]],
    incumbent: Incumbent,
    replicates: Sequence[int],
    options: Mapping[str, float],
    places: int,
    here: Callable[[Iterable[int]], list[int]],
) -> bool:
    """Whether the incumbent must be run again now; `here` says which seeds belong to the place's device."""
    if incumbent.outliers or any(c.waits_for is Wait.CONTROL_RUN for c in active):
        return not replicates
    if not replicates and incumbent.due(int(options["heartbeat"]) * max(1, places // PLACES_FOR_HEARTBEAT)):
        return True
    if incumbent.failing:
        return False
    likely = (c for c in active if c.seeds and not c.behind and c.z >= LIKELY_Z)
    if not (replicates or incumbent.steady) and any(not c.controls for c in likely):
        return True
    n = len(here([*incumbent.runs, *replicates]))
    if n < options["refresh"]:
        return True
    if len(replicates) >= max(1, places // PLACES_FOR_REPLICATE):
        return False
    known = ([*c.seeds, *(r.seed for r in asked.get(c.number, ()))] for c in active if c.seeds)
    most = max((len(here(seeds)) for seeds in known), default=0)
    return n < min(MOST_REPLICATES, most + REPLICATES_AHEAD)
