"""How good a commit is, how far a search has come, and how sure that is, as values.

Not covered: where the numbers come from (`standing`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from autoresearch.judge.noise import t_from_z
from autoresearch.types import Estimate, Experiment


@dataclass(frozen=True)
class Level:
    """The estimated score of one commit.

    Attributes:
        mean: Validation bits per byte.
        runs: Trials that the mean rests on.
        reach: Half of its 95% interval, by the judge; None if the judge reckons none.
    """

    mean: float
    runs: int
    reach: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Level:
        """The judge's estimate."""
        low, high = estimate.interval or (math.nan, math.nan)
        return cls(estimate.mean, estimate.trials, (high - low) / 2 if estimate.interval else None)


@dataclass(frozen=True)
class Step:
    """One incumbent: from which experiment on it reigned, and how good it is by all that was measured."""

    experiment: Experiment
    level: Level


@dataclass(frozen=True)
class Standing:
    """How far a search has come.

    Attributes:
        steps: The incumbents in order, the baseline first; those without a single score are left out.
        noise: Standard deviation of the score over seeds, pooled over repeated trainings of the same
            commit; None with no repetition.
        freedom: Degrees of freedom of `noise`.
        start: The starting point, by the judge; None if the judge reckons none.
    """

    steps: tuple[Step, ...]
    noise: float | None
    freedom: int
    start: Level | None = None

    @property
    def baseline(self) -> Level | None:
        """The starting point, once it has been scored."""
        first = self.steps[0] if self.steps else None
        if self.start is not None:
            return self.start
        return first.level if first and first.experiment.number == 0 else None

    @property
    def best(self) -> Step | None:
        """The incumbent."""
        return self.steps[-1] if self.steps else None

    @property
    def gain(self) -> float | None:
        """Baseline minus incumbent, in bits per byte; None before anything was kept."""
        if self.baseline is None or len(self.steps) < 2:
            return None
        return self.baseline.mean - self.steps[-1].level.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of `gain`, by what both sides are unsure of.

        Without the judge, Student's for independent runs with the pooled noise. Runs of both sides on the
        same seeds are positively correlated, which makes it conservative.
        """
        if self.gain is None or self.noise is None or self.baseline is None:
            return None
        if (reach := joint_reach(self.baseline, self.steps[-1].level)) is not None:
            return self.gain - reach, self.gain + reach
        error = self.noise * math.sqrt(1 / self.baseline.runs + 1 / self.steps[-1].level.runs)
        reach = error * student_quantile(0.975, self.freedom)
        return self.gain - reach, self.gain + reach


def joint_reach(before: Level, after: Level) -> float | None:
    """Half of the 95% interval of a difference: the variances add up. None if the judge reckons none.

    What the validation set adds, for each change that was kept, is part of the later level's.
    """
    if before.reach is None or after.reach is None:
        return None
    return math.hypot(before.reach, after.reach)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    try:
        from scipy.special import stdtrit
    except ImportError:  # a box that only trains: within 1.3%, and wider below 3 degrees of freedom
        return t_from_z(NormalDist().inv_cdf(probability), freedom)
    return float(stdtrit(freedom, probability))
