"""How much scores vary, from seed to seed and from item to item, and how a candidate compares given that.

Two things are pooled over a search: the spread of runs of one configuration, and how far a candidate and
the incumbent move together when they share a seed. Multiplying all scores by a constant multiplies every gain
and error by it and leaves every z as it is. Effects are gains: positive is better.

The sampling error of a data split (tau) says how far a difference of two scores would move on other items.
More seeds do not shrink it, so the judge must know it: if it is as large as the noise and is ignored, 500
trials without any gain lead to 16 false keeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Z95 = 1.959963984540054
"""Half-width of a 95% interval in standard errors."""

Runs = dict[int, float]
"""Scores by seed, in the order in which they were measured."""

PRIOR_PAIRS = 6
"""Weight of the prior "runs on the same seed have nothing in common", in pairs of such runs."""

MAX_BETA = 0.95
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
    """The noise as estimated so far.

    Attributes:
        variance: Variance of one run around its configuration's mean.
        df: Degrees of freedom of that estimate.
        beta: Share of the incumbent's deviation on a seed that a candidate is expected to show, too.
        residual: Variance of a candidate's run once that share is taken out.
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
        own_share: Part of the error's variance that comes from the candidate's own runs.
        sampling_share: Part of it that comes from the validation set.
    """

    gain: float
    error: float
    z: float
    df: int
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
        """The noise that follows from these sums, for scores around `level`.

        `beta` is the estimated coefficient of a control variate. It is shrunk towards 0, so that it does no
        harm where runs on the same seed have nothing in common.
        """
        floor = (MIN_SIGMA * level) ** 2 or 1e-300
        variance = max(self.ss / self.df if self.df else 0.0, floor)
        beta = min(max(self.ci / (self.ii + PRIOR_PAIRS * variance), 0.0), MAX_BETA)
        if beta == 0.0:
            return Noise(variance, max(self.df, 1), 0.0, variance)
        left = self.cc - 2 * beta * self.ci + beta * beta * self.ii
        residual = (left + PRIOR_PAIRS * (1 - beta * beta) * variance) / (self.pairs + PRIOR_PAIRS)
        return Noise(variance, max(self.df, 1), beta, residual)


def compare(
    noise: Noise, incumbent: Runs, runs: Runs, *, tau: float = 0.0, selection_bias: float = 0.0
) -> Comparison:
    """Compare a candidate's runs to the incumbent's.

    Args:
        noise: Estimated from the pool, these runs included.
        incumbent: Its runs, at least one.
        runs: The candidate's, at least one. Where the incumbent has a run on the same seed, its deviation
            there is used as a control variate.
        tau: Standard error that the validation set adds to any difference, whatever the seeds.
        selection_bias: How much too low the sum of the incumbent's scores is expected to be, because it was
            selected for low scores.
    """
    n, k = len(incumbent), len(runs)
    mean = math.fsum(incumbent.values()) / n
    shared = [incumbent[seed] - mean for seed in runs if seed in incumbent]
    part = noise.beta * len(shared) / k
    gain = mean + selection_bias / n + noise.beta * math.fsum(shared) / k - math.fsum(runs.values()) / k
    own = (len(shared) * noise.residual + (k - len(shared)) * noise.variance) / k**2
    own *= excess_variance(runs, noise)
    variance = own + (1 - part) ** 2 * noise.variance / n + tau**2
    error = math.sqrt(variance)
    z = z_from_t(gain / error, noise.df)
    return Comparison(gain, error, z, noise.df, own / variance, tau**2 / variance)


def excess_variance(runs: Runs, noise: Noise) -> float:
    """The factor by which the variance of this configuration exceeds the pooled one; at least 1.

    Its own spread counts little while it has few runs. A smaller spread than usual is not used, since it is
    mostly chance.
    """
    ss, df = squares(runs.values())
    return max(1.0, (ss / noise.variance + PRIOR_DF) / (df + PRIOR_DF))


def paired_tau(
    first: Sequence[float] | NDArray[np.floating],
    second: Sequence[float] | NDArray[np.floating],
    sizes: Sequence[float] | NDArray[np.floating],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Standard error of the difference of two candidates' scores over items, by paired bootstrap.

    Items are drawn with replacement, the same for both, and the score is recomputed as the total loss over
    the total size (Efron & Tibshirani 1993, for a ratio of sums).

    Args:
        first: Loss of one candidate, summed over each item [items].
        second: The same for the other candidate, same items in the same order.
        sizes: Weight of each item, such that total loss / total size is the score [items].
        draws: Bootstrap samples.
        seed: Of the bootstrap; the same inputs and seed give the same answer.

    Returns:
        The standard error, in score units.

    Raises:
        ValueError: If lengths differ, there are fewer than two documents, or a number is not finite.
    """
    import numpy as np

    a, b, size = (np.asarray(x, dtype=np.float64) for x in (first, second, sizes))
    if not (a.ndim == 1 and a.shape == b.shape == size.shape and len(a) >= 2):
        raise ValueError("paired losses and sizes must be equally long lists of at least two items")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (size > 0).all() and np.isfinite(size).all()):
        raise ValueError("losses must be finite, and sizes finite and above 0")
    rng = np.random.default_rng(seed)
    n, gap, means = len(a), a - b, []
    for block in range(0, draws, 200):  # 200 draws at a time keep the memory small
        count = min(200, draws - block)
        picks = rng.integers(0, n, (count, n))
        means.append(gap[picks].sum(1) / size[picks].sum(1))
    return float(np.concatenate(means).std(ddof=1))


def replicate_tau(
    losses: Sequence[Sequence[float] | NDArray[np.floating]],
    sizes: Sequence[float] | NDArray[np.floating],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """The sampling error from the baseline's replicates, before there is a candidate to compare with.

    It is the root mean square of `paired_tau` over neighbouring replicates: two seeds of one script differ
    from item to item much as a small change does.

    Args:
        losses: Per-item losses of each replicate [replicates][items], two or more.
        sizes: As in `paired_tau`.
        draws: Bootstrap samples of each pair.
        seed: Of the bootstrap.
    """
    if len(losses) < 2:
        raise ValueError("tau needs the per-item losses of at least two replicates")
    pairs = pairwise(losses)
    taus = [paired_tau(a, b, sizes, draws=draws, seed=seed + i) for i, (a, b) in enumerate(pairs)]
    return math.sqrt(math.fsum(tau**2 for tau in taus) / len(taus))
