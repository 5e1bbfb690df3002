"""How much scores vary from seed to seed, learned from every replicate there is.

Two things are pooled over a search: the spread of runs of one configuration, and how far a candidate and
the incumbent move together when they share a seed. From these a candidate is compared to the incumbent.
Invariant: multiplying all scores by a constant multiplies every gain and error by it and leaves every z.
Not covered: what is done with a comparison.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoresearch.judge.stats import Z95, squares, t_from_z, z_from_t

Runs = dict[int, float]
"""Scores by seed, in the order in which they were measured."""

SHRINK = 6
"""Weight of "seeds tell nothing in common" (and of "no less noise left"), in pairs."""

MAX_BETA = 0.95
OWN = 4
"""Weight of the pooled variance against a candidate's own, in degrees of freedom."""

FLOOR = 1e-9
"""Least standard deviation, as a share of the score: identical baselines are no proof of certainty."""


@dataclass(frozen=True)
class Noise:
    """What the spread of scores looks like now.

    Attributes:
        variance: Of one run around its configuration's mean.
        df: Degrees of freedom behind it.
        beta: How much of the incumbent's luck on a seed a candidate shares; 0 if nothing.
        residual: Variance of a candidate's run once that is taken out.
    """

    variance: float
    df: int
    beta: float
    residual: float

    @property
    def sigma(self) -> float:
        """Standard deviation of one run."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Comparison:
    """A candidate against the incumbent.

    Attributes:
        gain: Estimated gain; positive is better.
        error: Its standard error, `tau` included.
        z: `gain / error`, corrected for how little is known of the noise.
        df: Degrees of freedom of `error`.
        share: Part of the error's variance that comes from the candidate's own runs.
        luck: Part of it that comes from the validation set.
    """

    gain: float
    error: float
    z: float
    df: int
    share: float
    luck: float

    def plus(self, by: float) -> Comparison:
        """The same with `by` added to the gain."""
        gain = self.gain + by
        return self if by == 0 else replace(self, gain=gain, z=z_from_t(gain / self.error, self.df))

    @property
    def widened(self) -> float:
        """The standard error that, taken as normal, gives the 95% interval of Student's t."""
        return self.error * t_from_z(Z95, self.df) / Z95

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the gain, as if nothing had been selected."""
        half = Z95 * self.widened
        return self.gain - half, self.gain + half


@dataclass(frozen=True)
class Pool:
    """Sums of squares within configurations, and of products within pairs on a common seed."""

    ss: float = 0.0
    df: int = 0
    cc: float = 0.0
    ci: float = 0.0
    ii: float = 0.0
    pairs: int = 0

    def with_runs(self, runs: Runs) -> Pool:
        """Add the spread of the runs of one configuration."""
        ss, df = squares(runs.values())
        return replace(self, ss=self.ss + ss, df=self.df + df)

    def with_pairs(self, runs: Runs, incumbent: Runs) -> Pool:
        """Add how a candidate's runs moved with the incumbent's on the seeds they share."""
        both = [(score, incumbent[seed]) for seed, score in runs.items() if seed in incumbent]
        if len(both) < 2:
            return self
        c0 = math.fsum(c for c, _ in both) / len(both)
        i0 = math.fsum(i for _, i in both) / len(both)
        return replace(
            self,
            cc=self.cc + math.fsum((c - c0) ** 2 for c, _ in both),
            ci=self.ci + math.fsum((c - c0) * (i - i0) for c, i in both),
            ii=self.ii + math.fsum((i - i0) ** 2 for _, i in both),
            pairs=self.pairs + len(both) - 1,
        )

    def noise(self, level: float) -> Noise:
        """The noise that these sums speak of, for scores around `level`.

        The share of common luck is shrunk towards none, so that it costs nothing where seeds share
        nothing: a control variate with an estimated coefficient.
        """
        floor = (FLOOR * level) ** 2 or 1e-300
        variance = max(self.ss / self.df if self.df else 0.0, floor)
        beta = min(max(self.ci / (self.ii + SHRINK * variance), 0.0), MAX_BETA)
        if beta == 0.0:
            return Noise(variance, max(self.df, 1), 0.0, variance)
        left = self.cc - 2 * beta * self.ci + beta * beta * self.ii
        residual = (left + SHRINK * (1 - beta * beta) * variance) / (self.pairs + SHRINK)
        return Noise(variance, max(self.df, 1), beta, residual)


def compare(
    noise: Noise, incumbent: Runs, runs: Runs, *, tau: float = 0.0, correction: float = 0.0
) -> Comparison:
    """Compare a candidate's runs to the incumbent's.

    Args:
        noise: From the pool, these runs included.
        incumbent: At least one run.
        runs: At least one run; those on a seed of the incumbent use its luck there as a control variate.
        tau: Standard error that the validation set adds to any difference, whatever the seeds.
        correction: What selection is expected to have taken off the sum of the incumbent's scores.
    """
    n, k = len(incumbent), len(runs)
    mean = math.fsum(incumbent.values()) / n
    shared = [incumbent[seed] - mean for seed in runs if seed in incumbent]
    part = noise.beta * len(shared) / k
    gain = mean + correction / n + noise.beta * math.fsum(shared) / k - math.fsum(runs.values()) / k
    own = (len(shared) * noise.residual + (k - len(shared)) * noise.variance) / k**2
    own *= restless(runs, noise)
    variance = own + (1 - part) ** 2 * noise.variance / n + tau**2
    error = math.sqrt(variance)
    z = z_from_t(gain / error, noise.df)
    return Comparison(gain, error, z, noise.df, own / variance, tau**2 / variance)


def restless(runs: Runs, noise: Noise) -> float:
    """By how much the variance of this configuration exceeds the pooled one; at least 1.

    Its own spread counts little while there are few runs of it. One that is calmer than the others gets no
    credit, since that is more often luck.
    """
    ss, df = squares(runs.values())
    return max(1.0, (ss / noise.variance + OWN) / (df + OWN))
