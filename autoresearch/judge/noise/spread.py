"""How much scores vary from seed to seed, and how a candidate compares given that.

The spread of runs of one configuration is pooled over a search; what candidate and incumbent share on a seed
is estimated in `pairs`. Multiplying all scores by a constant multiplies every gain and error by it and leaves
every z as it is. Effects are gains: positive is better.

The sampling error of a data split (tau) says how far a difference of two scores would move on other documents
(`documents`). More seeds do not shrink it, so the judge must know it: if it is as large as the noise and is
ignored, 500 trials without any gain lead to 16 false keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Z95 = 1.959963984540054
"""Half-width of a 95% interval in standard errors."""

Runs = dict[int, float]
"""Scores by seed, in the order in which they were measured."""

MAX_BETA = 0.99
"""Largest share of a seed's luck that candidate and incumbent are taken to have in common."""

LEAST_DF = 0.5
PRIOR_DF = 4
"""Weight of the pooled variance against a configuration's own, in degrees of freedom."""

MIN_SIGMA = 1e-9
"""Least standard deviation, as a share of the score: identical baselines do not prove that there is no
noise."""


def phi(z: float) -> float:
    """Standard normal distribution function; accurate far into the lower tail."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def squares(values: Iterable[float]) -> tuple[float, int]:
    """Sum of squared deviations from the mean, and its degrees of freedom (at least 0)."""
    data = list(values)
    if len(data) < 2:
        return 0.0, 0
    mean = math.fsum(data) / len(data)
    return math.fsum((x - mean) ** 2 for x in data), len(data) - 1


def z_from_t(t: float, df: float) -> float:
    """The standard normal value as likely as Student's `t` with `df` degrees of freedom (Wallace 1959).

    With few replicates a t of 4 is not rare. This keeps a noise estimate from two runs from being trusted too
    much.
    """
    size = (8 * df + 1) / (8 * df + 3) * math.sqrt(df * math.log1p(t * t / df))
    return math.copysign(size, t)


def t_from_z(z: float, df: float) -> float:
    """The inverse of `z_from_t`; within 1.3% of exact quantiles for df >= 3, on the wide side below."""
    size = z * (8 * df + 3) / (8 * df + 1)
    return math.copysign(math.sqrt(df * math.expm1(size * size / df)), z)


@dataclass(frozen=True)
class Noise:
    """The noise of single runs as estimated so far.

    Attributes:
        variance: Variance of one run around its configuration's mean.
        df: Degrees of freedom of that estimate.
    """

    variance: float
    df: float

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
        own_share: Part of the error's variance that comes from the candidate's own runs.
        sampling_share: Part of it that comes from the validation set.
    """

    gain: float
    error: float
    z: float
    df: float
    own_share: float
    sampling_share: float

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
    """Sums of squares within configurations."""

    ss: float = 0.0
    df: int = 0

    def with_runs(self, *configurations: Runs) -> Pool:
        """Add the spread of the runs of one configuration, or of each of several."""
        found = [squares(runs.values()) for runs in configurations]
        return Pool(self.ss + sum(ss for ss, _ in found), self.df + sum(df for _, df in found))

    def noise(self, level: float) -> Noise:
        """The noise that follows from these sums, for scores around `level`."""
        floor = (MIN_SIGMA * level) ** 2 or 1e-60  # its square must not vanish
        return Noise(max(self.ss / self.df if self.df else 0.0, floor), max(self.df, 1))


def compare(
    noise: Noise,
    incumbent: Runs,
    runs: Runs,
    *,
    pairs: Sequence[tuple[float, float]] = (),
    tau: float = 0.0,
    tau_df: float = math.inf,
    selection_bias: float = 0.0,
    level_runs: float | None = None,
) -> Comparison:
    """Compare a candidate's runs to the incumbent's.

    Where the incumbent has a run on the same seed, its deviation there is a control variate. The coefficient
    is the share of luck that a seed is expected to give both. The precision is averaged over what the spread
    of a pair may be; how much it varies gives the degrees of freedom (a gamma distribution of the same two
    moments makes the gain's distribution Student's). The rest is Satterthwaite's approximation.

    Args:
        noise: Of single runs, estimated from the pool, these runs included.
        incumbent: Its runs, at least one.
        runs: The candidate's, at least one.
        pairs: (Variance of a gap on a common seed, probability), before these runs; empty: seeds share
            nothing.
        tau: Standard error that the validation set adds to this difference, whatever the seeds.
        tau_df: Degrees of freedom of `tau`.
        selection_bias: How much too low the sum of the incumbent's scores is expected to be, because it was
            selected for low scores.
        level_runs: How many runs tell the incumbent's level as precisely as it is known; None: all.
    """
    n, k = len(incumbent), len(runs)
    mean = math.fsum(incumbent.values()) / n
    shared = [seed for seed in runs if seed in incumbent]
    gaps = [incumbent[seed] - runs[seed] for seed in shared]
    beliefs = updated(pairs, gaps) if gaps else []
    beta = common_luck(beliefs, noise)
    part = beta * len(shared) / k
    luck = math.fsum(incumbent[seed] - mean for seed in shared)
    gain = mean + selection_bias / n + beta * luck / k - math.fsum(runs.values()) / k
    unpaired = (len(shared) * (1 - beta) ** 2 + k - len(shared)) * excess_variance(runs, noise) / k**2
    single = (unpaired + (1 - part) ** 2 / (level_runs or n)) * noise.variance
    pair, pair_df = len(shared) * beta / k**2, math.inf
    rest = single + tau**2
    variance, spread = rest, noise.variance
    if pair > 0:
        precision, square = 0.0, 0.0
        for delta, weight in beliefs:
            one = 1 / (pair * delta + rest)
            precision += weight * one
            square += weight * one * one
        variance = 1 / precision
        pair_df = 2 / max(square / precision**2 - 1, 1e-9)
        spread = (variance - rest) / pair / 2
    own = (len(shared) * min(spread, noise.variance) + (k - len(shared)) * noise.variance) / k**2
    unsure = 1 / pair_df + (single / variance) ** 2 / noise.df + (tau**2 / variance) ** 2 / tau_df
    df = max(1 / unsure, LEAST_DF)
    error = math.sqrt(variance)
    return Comparison(gain, error, z_from_t(gain / error, df), df, own / variance, tau**2 / variance)


def updated(pairs: Sequence[tuple[float, float]], gaps: Sequence[float]) -> list[tuple[float, float]]:
    """What the spread of a candidate's pairs may be, once some are known."""
    ss, df = squares(gaps)
    if not df or not pairs:
        return list(pairs)
    logs = [math.log(weight) - 0.5 * (df * math.log(delta) + ss / delta) for delta, weight in pairs]
    top = max(logs)
    masses = [math.exp(value - top) for value in logs]
    total = math.fsum(masses)
    return [(delta, mass / total) for (delta, _), mass in zip(pairs, masses, strict=True)]


def common_luck(pairs: Sequence[tuple[float, float]], noise: Noise) -> float:
    """Share of a seed's luck that two programs have in common, from what the spread of a gap may be."""
    independent = 2 * noise.variance
    return (
        min(1 - math.fsum(w * min(delta / independent, 1.0) for delta, w in pairs), MAX_BETA)
        if pairs
        else 0.0
    )


def excess_variance(runs: Runs, noise: Noise) -> float:
    """The factor by which the variance of this configuration exceeds the pooled one; at least 1.

    Its own spread counts little while it has few runs. A smaller spread than usual is not used, since it is
    mostly chance.
    """
    ss, df = squares(runs.values())
    return max(1.0, (ss / noise.variance + PRIOR_DF) / (df + PRIOR_DF))
