"""The candidates in flight: what is known of each, and which trial a judge asks for next.

With one place there is one candidate, and each step waits for the answers of the one before. With several
places many are in flight, so that no place waits: whenever one is free, the most promising candidate gets
another run, the incumbent one more replicate if it is due, or a new candidate is screened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.noise import Runs
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm

PLANNED_RUNS = 2
"""Most runs of a candidate under way at a time, so that free places have something to do. While there are
enough candidates one is better: what it shows may save the next."""

REPLICATES_AHEAD, MOST_REPLICATES = 2, 12
"""With several places, the incumbent is to have so many more runs than any candidate in flight, and at most
so many because of that."""

PLACES_FOR_REPLICATE = 3
"""One in so many places may run replicates of the incumbent ahead of need."""

PLACES_FOR_HEARTBEAT = 16
"""The heartbeat is stretched by one in so many places: more candidates are screened in the same time."""

BY_SEED = ("runs", "items", "beside", "beside_items")
"""Attributes of a candidate that hold values by seed."""

MOST_IN_FLIGHT = 4
"""Candidates in flight for each place. More would only wait for a trial that hangs."""


class Wait(StrEnum):
    """What a candidate that would be kept still waits for; the values are written to JSON."""

    NOTHING = ""
    THOROUGH_RUN = "look"
    CONTROL_RUN = "check"


@dataclass
class Candidate:
    """A candidate in flight.

    Attributes:
        number: Under which it was announced.
        complexity: Its net growth in size.
        kind: Kind of its edit.
        runs: Its scores by seed, as if all had been measured on the present incumbent.
        items: What documents contribute to these, by seed, where that is known.
        spread: How differently it behaves on single documents, by its first run; 0 if that is not known.
        gain_ratio: The expected gain in standard errors, when it was screened.
        inspected: Whether a run looked for cheating more closely.
        controls: Seeds of the incumbent's runs that were made beside its own.
        waits_for: What it waits for.
        ordinal: How many candidates had been screened by then, itself included.
        z: Its evidence so far.
        behind: Whether it was made for an incumbent before the present one.
        here: Number of its runs on top of the present incumbent.
        beside: Scores of earlier incumbents on the seeds of its runs on top of those, shifted like these.
        beside_items: What documents contribute to them, not shifted.
    """

    number: int = 0
    complexity: float = 0.0
    kind: str = ""
    runs: Runs = field(default_factory=dict)
    items: dict[int, tuple[float, ...]] = field(default_factory=dict)
    spread: float = 0.0
    gain_ratio: float = 1.0
    inspected: bool = False
    controls: Sequence[int] = ()
    waits_for: Wait = Wait.NOTHING
    ordinal: int = 0
    z: float = 0.0
    behind: bool = False
    here: int = 0
    beside: Runs = field(default_factory=dict)
    beside_items: dict[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def unselected(self) -> Runs:
        """Its runs but the first, which was selected for being good."""
        return dict(list(self.runs.items())[1:])

    def start_over(self) -> None:
        """Forget its runs; it will be screened again."""
        self.runs, self.items, self.spread, self.here = {}, {}, 0.0, 0
        self.beside, self.beside_items = {}, {}
        self.inspected, self.controls, self.waits_for = False, (), Wait.NOTHING

    def move(self, before: Incumbent, shift: float) -> None:
        """See its runs as if they had been measured on the incumbent that was just kept.

        Each stays beside the run of the incumbent before on the same seed: what they share is not lost.

        Args:
            before: The incumbent before, as it was.
            shift: How much the new one scores above that.
        """
        for seed in self.runs:
            if seed not in self.beside and seed in before.runs:
                self.beside[seed] = before.runs[seed]
                self.beside_items[seed] = before.items.get(seed, ())
        self.runs = {seed: score + shift for seed, score in self.runs.items()}
        self.beside = {seed: score + shift for seed, score in self.beside.items()}
        self.items = {seed: parts for seed, parts in self.items.items() if seed in self.beside}
        self.behind, self.here, self.controls, self.waits_for = True, 0, (), Wait.NOTHING

    def add(self, seed: int, observation: Observation, earlier: Earlier | None) -> None:
        """Take a run that finished; `earlier`: what it is compared to if it is on an earlier incumbent."""
        assert observation.score is not None
        self.runs[seed] = observation.score
        if observation.items:
            self.items[seed] = observation.items
        if earlier is None:
            self.here += 1
            return
        self.runs[seed] += earlier.shift
        if earlier.score is None:
            self.items.pop(seed, None)
        else:
            self.beside[seed], self.beside_items[seed] = earlier.score, earlier.items

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {key: list(getattr(self, key).items()) for key in BY_SEED}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_dict`."""
        values = {**data, "waits_for": Wait(data.get("waits_for", ""))}
        for key in BY_SEED:
            pairs = data.get(key, ())
            values[key] = {s: tuple(x) if isinstance(x, list | tuple) else x for s, x in pairs}
        return cls(**values)


@dataclass(frozen=True)
class Earlier:
    """What a run is compared to that was asked for on top of an earlier incumbent.

    Attributes:
        shift: What makes a score on top of that incumbent one on top of the present one.
        score: Of that incumbent on the same seed, shifted; None if it was not run on that.
        items: What documents contribute to it, not shifted.
    """

    shift: float
    score: float | None = None
    items: tuple[float, ...] = ()

    @classmethod
    def of(cls, seed: int, before: Incumbent) -> Earlier:
        """For a run on this seed, before the incumbent is replaced."""
        return cls(0.0, before.runs.get(seed), before.items.get(seed, ()))

    def moved(self, shift: float) -> Earlier:
        """After a keep that moved the incumbent by so much."""
        score = None if self.score is None else self.score + shift
        return replace(self, shift=self.shift + shift, score=score)


def wanted(
    active: Sequence[Candidate],
    incumbent: Incumbent,
    under_way: Sequence[TrialRequest],
    options: Mapping[str, float],
    places: int,
    ahead: int = 1,
) -> TrialRequest | None:
    """The next trial for a free one of many places; seed -1: to be chosen. None: nothing is left to ask.

    Args:
        active: Candidates in flight.
        incumbent: Of now.
        under_way: Requests whose answers were not read.
        options: The judge's.
        places: How many there are.
        ahead: Runs of one candidate that may be under way at a time.
    """
    replicates = [r.seed for r in under_way if r.arm is Arm.INCUMBENT]
    asked: dict[int, list[TrialRequest]] = {}
    for request in under_way:
        if request.arm is not Arm.INCUMBENT:
            asked.setdefault(request.candidate, []).append(request)
    if _replicate(active, asked, incumbent, replicates, options, places):
        return TrialRequest(Arm.INCUMBENT, -1)
    seeds = [*incumbent.runs, *replicates]
    for c in sorted((c for c in active if c.runs and not c.behind), key=lambda c: (-c.z, c.number)):
        mine = asked.get(c.number, [])
        spent = len(c.runs) + len(mine) >= options["limit"] and (c.here or mine)
        if c.waits_for is Wait.CONTROL_RUN or spent:
            continue
        if len(mine) < (1 if c.waits_for else ahead):
            used = {*c.runs, *(request.seed for request in mine)}
            free = [seed for seed in seeds if seed not in used]
            thorough = c.waits_for is Wait.THOROUGH_RUN
            return TrialRequest(Arm.CONFIRM, free[-1] if free else -1, 0, thorough, c.number)
    for c in sorted(active, key=lambda c: c.number):
        if not c.runs and not c.behind and c.number not in asked:
            return TrialRequest(Arm.SCREEN, -1, candidate=c.number)
    return None


def _replicate(
    active: Sequence[Candidate],
    asked: Mapping[int, Sequence[TrialRequest]],
    incumbent: Incumbent,
    replicates: Sequence[int],
    options: Mapping[str, float],
    places: int,
) -> bool:
    """Whether the incumbent must be run again now."""
    if incumbent.outliers or any(c.waits_for is Wait.CONTROL_RUN for c in active):
        return not replicates
    if not replicates and incumbent.due(int(options["heartbeat"]) * max(1, places // PLACES_FOR_HEARTBEAT)):
        return True
    n = len(incumbent.runs) + len(replicates)
    if incumbent.failing or len(replicates) >= max(1, places // PLACES_FOR_REPLICATE):
        return False
    most = max((len(c.runs) + len(asked.get(c.number, ())) for c in active if c.runs), default=0)
    return n < options["refresh"] or n < min(MOST_REPLICATES, most + REPLICATES_AHEAD)
