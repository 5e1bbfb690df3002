"""What judges say: verdicts, where the search stands, and what guards show.

Guards are further metrics beside the deciding one, on which a kept change may not lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.types.choices import Direction, Metric, VerdictKind
from autoresearch.types.plain import Plain


@dataclass(frozen=True)
class GuardMetric(Plain):
    """A further metric, which a trusted scorer measures.

    Attributes:
        name: Such as "rare".
        text: What it measures, in words.
        metric: Its name among the metrics of a measurement.
        items: Name of the file with its losses of single items; empty: it has none.
        definition: What the task is asked to measure, as data; empty: it measures that anyway.
        direction: Which way is better.
        margin: Share of its value that a change may cost without being a loss.
    """

    name: str
    text: str
    metric: str
    items: str = ""
    definition: Mapping[str, Any] = field(default_factory=dict)
    direction: Direction = Direction.MINIMIZE
    margin: float = 0.0

    @property
    def sign(self) -> int:
        """By which a value is multiplied so that lower is better."""
        return 1 if self.direction is Direction.MINIMIZE else -1


@dataclass(frozen=True)
class GuardGain(Plain):
    """What a change does to a guard.

    Attributes:
        guard: Its name.
        gain: Positive is better; None if it was not measured.
        interval: Of `gain`, wide enough for all guards together; None if the noise is not known.
        runs: Runs of the candidate with this metric.
        lost: Whether the change loses beyond the noise and the margin.
    """

    guard: str
    gain: float | None = None
    interval: tuple[float, float] | None = None
    runs: int = 0
    lost: bool = False


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        mean: Expected score.
        interval: 95% interval; None if the noise is unknown.
        trials: Number of runs behind the mean.
    """

    mean: float
    interval: tuple[float, float] | None
    trials: int


@dataclass(frozen=True)
class Levels:
    """The judge's estimates of where a search stands, without the luck of selection.

    Attributes:
        baseline: Score of the start, as it would be on the machine of now.
        incumbent: Score of the incumbent.
        noise: Standard deviation of a score from seed to seed.
        freedom: Degrees of freedom of `noise`.
    """

    baseline: Estimate
    incumbent: Estimate
    noise: float
    freedom: int

    def in_unit(self, metric: Metric) -> Levels:
        """A judge's levels, which are losses, as scores of the metric; its own inverse."""

        def turned(level: Estimate) -> Estimate:
            ends = level.interval and sorted(map(metric.loss, level.interval))
            return replace(level, mean=metric.loss(level.mean), interval=(ends[0], ends[1]) if ends else None)

        return replace(self, baseline=turned(self.baseline), incumbent=turned(self.incumbent))


@dataclass(frozen=True)
class Verdict(Plain):
    """The decision about a candidate, and how sure it is.

    Attributes:
        kind: The decision. A judge says only KEEP or DISCARD; the search adds the others.
        effect: Estimated gain over the incumbent in score units (positive is better), if measured.
        interval: 95% interval of `effect`, if measured.
        evidence: The judge's test statistic (a z value unless the judge says otherwise).
        trials: Trainings of the candidate that the decision rests on.
        reason: A sentence that a person understands.
        levels: Where the search stands after it; None if the judge does not estimate it.
        paired: How many of `trials` have a seed on which the incumbent was run too.
        pairs: As measured, for each of those: the seed, the incumbent's score, the candidate's.
        guards: What it does to the guards of the search, if it was to be kept.
    """

    kind: VerdictKind
    effect: float | None = None
    interval: tuple[float, float] | None = None
    evidence: float | None = None
    trials: int = 0
    reason: str = ""
    levels: Levels | None = None
    paired: int = 0
    pairs: tuple[tuple[int, float, float], ...] = ()
    guards: tuple[GuardGain, ...] = ()
