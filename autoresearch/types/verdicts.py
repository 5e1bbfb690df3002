"""What judges say: verdicts, and where the search stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autoresearch.types.choices import Metric, VerdictKind
from autoresearch.types.guards import GuardGain
from autoresearch.types.plain import Plain


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
