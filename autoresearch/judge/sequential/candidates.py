"""A candidate in flight: its runs on top of the present incumbent, and what earlier ones say.

When another candidate is kept, the others are merged onto it. Their runs so far are of other programs. What
these showed, their gain over the incumbent of then on the same seeds, is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from autoresearch.judge.noise.spread import Runs
from autoresearch.judge.sequential.incumbent import Incumbent

MERGED_RUNS = 2
"""So many runs on top of an incumbent that was kept after its first runs a candidate may always have; a
simplification must have them."""


class Wait(StrEnum):
    """What a candidate that would be kept still waits for; the values are written to JSON."""

    NOTHING = ""
    THOROUGH_RUN = "look"
    CONTROL_RUN = "check"
    PASS = "pass"


@dataclass(frozen=True)
class Past:
    """A run on top of an earlier incumbent, in relation to that.

    Attributes:
        gain: What it scored better than that incumbent's level of then.
        luck: What that incumbent scored worse than its level on the same seed; None if it was not run on it.
        items: What documents contribute to the run's score, if that is known.
        beside: The same of that incumbent's run on the same seed.
    """

    gain: float
    luck: float | None = None
    items: tuple[float, ...] = ()
    beside: tuple[float, ...] = ()


@dataclass(frozen=True)
class Earlier:
    """An incumbent that was replaced while a run on top of it was under way.

    Attributes:
        level: Its score.
        score: The same on the seed of the run; None if it was not run on that.
        items: What documents contribute to that.
    """

    level: float
    score: float | None = None
    items: tuple[float, ...] = ()

    @classmethod
    def of(cls, incumbent: Incumbent, seed: int) -> Earlier:
        """The incumbent, before it is replaced, as it is needed for a run on this seed."""
        return cls(incumbent.level(seed), incumbent.runs.get(seed), incumbent.items.get(seed, ()))

    def past(self, score: float, items: tuple[float, ...]) -> Past:
        """A run on top of it."""
        luck = None if self.score is None else self.score - self.level
        return Past(self.level - score, luck, items, self.items)


@dataclass
class Candidate:
    """A candidate in flight.

    Attributes:
        number: Under which it was announced.
        complexity: Its net growth in size.
        kind: Kind of its edit.
        runs: Its scores by seed, on top of the present incumbent.
        items: What documents contribute to these, by seed, where that is known.
        past: Its runs on top of earlier incumbents, by seed.
        spread: How differently it behaves on single documents, by its first run; 0 if that is not known.
        gain_ratio: The expected gain in standard errors, when it was screened.
        inspected: Whether a run looked for cheating more closely.
        controls: Seeds of the incumbent's runs that were made beside its own.
        waits_for: What it waits for.
        ordinal: How many candidates had been screened by then, itself included.
        z: Its evidence so far.
        behind: Whether it was made for an incumbent before the present one.
        moves: Changes that were kept since its first run.
        passed: Whether it was said to have passed the last check on top of the present incumbent.
        checked: Whether that check has run it, and the incumbent.
    """

    number: int = 0
    complexity: float = 0.0
    kind: str = ""
    runs: Runs = field(default_factory=dict)
    items: dict[int, tuple[float, ...]] = field(default_factory=dict)
    past: dict[int, Past] = field(default_factory=dict)
    spread: float = 0.0
    gain_ratio: float = 1.0
    inspected: bool = False
    controls: Sequence[int] = ()
    waits_for: Wait = Wait.NOTHING
    ordinal: int = 0
    z: float = 0.0
    behind: bool = False
    moves: int = 0
    passed: bool = False
    checked: bool = False

    @property
    def seeds(self) -> list[int]:
        """Of all its runs, in order; empty until its screening has ended."""
        return [*self.past, *self.runs]

    @property
    def runs_needed(self) -> int:
        """On top of the present incumbent before the limit ends it: beside another change it may be lost."""
        return MERGED_RUNS if self.past else 1

    def seen_before(self, level: float) -> Runs:
        """Its runs on top of earlier incumbents, as if measured on the present one, which scores `level`."""
        return {seed: level - run.gain for seed, run in self.past.items()}

    def beside(self, level: float) -> Runs:
        """The earlier incumbents on the seeds of its past runs, as if they scored `level`."""
        return {seed: level + run.luck for seed, run in self.past.items() if run.luck is not None}

    def gaps(self, before: Mapping[int, Sequence[float]], seeds: Sequence[int]) -> list[list[float]]:
        """What documents contribute to its gain on each of these seeds on which that is known.

        Args:
            before: What they contribute to the present incumbent's scores, by seed.
            seeds: Of runs of its own.
        """
        pairs: list[tuple[Sequence[float], Sequence[float]]]
        pairs = [(run.beside, run.items) for seed, run in self.past.items() if seed in seeds]
        pairs += [(before.get(seed, ()), self.items.get(seed, ())) for seed in self.runs if seed in seeds]
        return [[b - a for b, a in zip(old, own, strict=True)] for old, own in pairs if old and own]

    def start_over(self) -> None:
        """Forget its runs; it will be screened again."""
        self.runs, self.items, self.past, self.spread, self.moves = {}, {}, {}, 0.0, 0
        self.inspected, self.controls, self.waits_for = False, (), Wait.NOTHING
        self.passed = self.checked = False

    def move(self, before: Incumbent) -> None:
        """Another candidate was kept: its runs on top of the incumbent before are past."""
        for seed, score in self.runs.items():
            self.past[seed] = Earlier.of(before, seed).past(score, self.items.get(seed, ()))
        self.moves += bool(self.past or self.runs)
        self.runs, self.items = {}, {}
        self.behind, self.controls, self.waits_for = True, (), Wait.NOTHING
        self.passed = self.checked = False

    def add(self, seed: int, score: float, items: tuple[float, ...], earlier: Earlier | None) -> None:
        """Take a run; `earlier`: the incumbent that it is on top of, if that was replaced since."""
        if earlier is not None:
            self.past[seed] = earlier.past(score, items)
            return
        self.runs[seed] = score
        if items:
            self.items[seed] = items

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        runs = {"runs": list(self.runs.items()), "items": list(self.items.items())}
        return asdict(self) | runs | {"past": [(seed, asdict(run)) for seed, run in self.past.items()]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """The inverse of `to_dict`."""
        values = {
            **data,
            "waits_for": Wait(data.get("waits_for", "")),
            "runs": dict(map(tuple, data["runs"])),
        }
        values["items"] = {seed: tuple(parts) for seed, parts in data.get("items", ())}
        past = data.get("past", ())
        values["past"] = {seed: Past(**_with_tuples(run, "items", "beside")) for seed, run in past}
        return cls(**values)


def earlier_from_dict(data: Mapping[str, Any]) -> Earlier:
    """From JSON."""
    return Earlier(**_with_tuples(data, "items"))


def _with_tuples(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {**data, **{key: tuple(data[key]) for key in keys}}
