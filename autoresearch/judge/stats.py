"""The few formulas that the judges share. Standard library only.

Effects are gains: positive is better. `ratio` is always an effect size divided by the standard error of
what was measured, so nothing here has a unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

Z95 = 1.959963984540054
"""Half-width of a 95% interval in standard errors."""

_NORMAL = NormalDist()


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

    With few replicates a t of 4 is no rarity; this is what keeps a noise estimate from two runs from
    being believed too much.
    """
    size = (8 * df + 1) / (8 * df + 3) * math.sqrt(df * math.log1p(t * t / df))
    return math.copysign(size, t)


def t_from_z(z: float, df: float) -> float:
    """The inverse of `z_from_t`; within 1.3% of exact quantiles for df >= 3, on the wide side below."""
    size = z * (8 * df + 3) / (8 * df + 1)
    return math.copysign(math.sqrt(df * math.expm1(size * size / df)), z)


def lambert(a: float) -> float:
    """The x >= 0 with x exp(x) = a >= 0, by Newton's method on the logarithm of both sides."""
    x = math.log1p(a)
    for _ in range(6 if x > 0 else 0):
        x *= (1 + math.log(a) - math.log(x)) / (1 + x)
    return x


def log_evidence(z: float, ratio: float) -> float:
    """Log Bayes factor for "a gain drawn from an exponential distribution" against "exactly nothing".

    Nothing at all is the hardest wrong answer to rule out: a change that does harm is further away.

    Args:
        z: Measured gain in standard errors.
        ratio: Mean of the exponential in standard errors.
    """
    ratio = max(ratio, 0.05)
    tail = phi(z - 1 / ratio)
    if tail <= 0:
        return -math.inf
    density = -math.log(ratio) + 0.5 / ratio**2 - z / ratio + math.log(tail)
    return density + 0.5 * z * z + 0.5 * math.log(2 * math.pi)


def log_pass(bar: float, ratio: float) -> float:
    """Log of P(z >= bar | nothing) / P(z >= bar | a gain from the exponential of `log_evidence`).

    Added to the log odds, it takes back the advantage of having looked only at what passed the bar.
    """
    ratio = max(ratio, 0.05)
    nothing = phi(-bar)
    return math.log(nothing) - math.log(
        nothing + math.exp(0.5 / ratio**2 - bar / ratio) * phi(bar - 1 / ratio)
    )


def shrink(gain: float, error: float, scale: float, doubt: float = 0.0) -> tuple[float, tuple[float, float]]:
    """What is left of a selected gain once the luck of the draw is taken out (cf. Efron 2011).

    The posterior of a gain that is known to be positive and exponential a priori with mean `scale`, after
    measuring `gain` with normal standard error `error`: a normal around `gain - error^2 / scale`, cut off
    at 0; and with probability `doubt`, nothing at all.

    Returns:
        Its mean, and its central 95% interval.
    """
    if error <= 0:
        return gain * (1 - doubt), (gain, gain)
    centre = gain - error * error / scale
    x = centre / error
    mass = phi(x)
    if mass < 1e-12:
        return 0.0, (0.0, error)
    mean = centre + error * math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) / mass

    def quantile(p: float) -> float:
        above = min(max((1 - p) / (1 - doubt), 1e-300), 1.0) * mass
        return max(0.0, centre - error * _NORMAL.inv_cdf(min(above, 1 - 1e-16)))

    return mean * (1 - doubt), (quantile(0.025), quantile(0.975))
