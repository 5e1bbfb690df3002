"""Whether gains carry over: each kept change at larger scales and on other data, beside the search's own.

On every rung the start and the tip after each kept change are trained on common fresh seeds, so that a change
is the difference of neighbours in pairs. The scale of the search is a rung like the others: the gain that a
search itself measured was selected for being large. The noise is that of all trainings of a rung together:
what is left of their losses without the means of commits and of seeds (two-way analysis of variance), since
differences of neighbours share trainings. A fit of the gain against the logarithm of the scale says what it
would be one rung further, and only there.
Not covered: differences between documents; several rungs are not corrected for each other, so of many marks
one in forty may be wrong either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist, fmean

from autoresearch.judge.noise.spread import Z95, t_from_z

LEAST_RUNGS = 3
"""Scales without which nothing is said of a scale that was not run."""


class Mark(StrEnum):
    """What became of a gain on another rung."""

    HOLDS = "holds"
    """There is a gain."""

    FADES = "fades"
    """The gain is smaller than at the scale of the search, and none is established."""

    REVERSES = "reverses"
    """The change loses."""

    UNKNOWN = "not established"
    """The trainings allow a gain, none, and a loss."""


@dataclass(frozen=True)
class Gain:
    """The gain of one change on one rung.

    Attributes:
        effect: Mean gain over the pairs; positive is better. None without a pair.
        interval: 95% interval of `effect`; None if the noise is not known.
        error: Standard error of `effect`; None likewise.
        pairs: Number of common seeds.
        mark: What became of the gain that the change has at the scale of the search.
    """

    effect: float | None
    interval: tuple[float, float] | None
    error: float | None
    pairs: int
    mark: Mark


@dataclass(frozen=True)
class Extrapolated:
    """The gain at a scale that was not run.

    Attributes:
        scale: As a factor of the scale of the search.
        effect: By a straight line in the logarithm of the scale.
        interval: 95% interval of `effect`, for the true gain there.
    """

    scale: float
    effect: float
    interval: tuple[float, float]


def gains(rung: Sequence[Mapping[int, float]], base: Sequence[Gain] | None = None) -> list[Gain]:
    """The gain of each change on a rung, and last that of all of them together.

    Args:
        rung: For the start and after each change in order: seed -> loss.
        base: What this function said of the scale of the search; None for that rung itself.
    """
    variance, freedom = _noise(rung)
    steps = [*pairwise(rung), (rung[0], rung[-1])]
    return [
        _gain(
            [before[s] - after[s] for s in before.keys() & after.keys()],
            2 * variance,
            freedom,
            base[index] if base is not None else None,
        )
        for index, (before, after) in enumerate(steps)
    ]


def _noise(rung: Sequence[Mapping[int, float]]) -> tuple[float, int]:
    """Variance of a training beside what its seed does to all, and its degrees of freedom; 0: not known."""
    seeds = sorted(set().union(*rung))
    whole = [losses for losses in rung if len(losses) == len(seeds)]  # what failed anywhere is left out
    freedom = max(len(whole) - 1, 0) * max(len(seeds) - 1, 0)
    if not freedom:
        return 0.0, 0
    levels = [fmean(losses.values()) for losses in whole]
    lucks = {seed: fmean(losses[seed] for losses in whole) - fmean(levels) for seed in seeds}
    left = (
        losses[seed] - level - lucks[seed]
        for losses, level in zip(whole, levels, strict=True)
        for seed in seeds
    )
    return math.fsum(value**2 for value in left) / freedom, freedom


def _gain(pairs: Sequence[float], variance: float, freedom: int, base: Gain | None) -> Gain:
    """The gain of one change, from pairs whose variance is known with so many degrees of freedom."""
    if not pairs:
        return Gain(None, None, None, 0, Mark.UNKNOWN)
    effect = fmean(pairs)
    if not freedom:
        return Gain(effect, None, None, len(pairs), Mark.UNKNOWN)
    error = math.sqrt(variance / len(pairs))
    half = t_from_z(Z95, freedom) * error
    interval = (effect - half, effect + half)
    return Gain(effect, interval, error, len(pairs), _mark(effect, interval, base))


def _mark(effect: float, interval: tuple[float, float], base: Gain | None) -> Mark:
    if interval[0] > 0:
        return Mark.HOLDS
    if interval[1] < 0:
        return Mark.REVERSES
    if base is None or base.effect is None or base.interval is None:
        return Mark.UNKNOWN
    halves = (interval[1] - interval[0], base.interval[1] - base.interval[0])
    smaller = base.interval[0] > 0 and base.effect - effect > math.hypot(*halves) / 2
    return Mark.FADES if smaller else Mark.UNKNOWN


def extrapolate(scales: Sequence[float], found: Sequence[Gain]) -> Extrapolated | str:
    """The gain one rung beyond the largest scale, by a weighted line in the logarithm of the scale.

    Its interval is as many errors wide as the widest of the rungs': where few trainings say how large an
    error is, the line is not better known.

    Args:
        scales: Of the rungs, as factors of the scale of the search.
        found: The gain on each.

    Returns:
        The gain there; or why nothing can be said of it.
    """
    known, widest = list[tuple[float, float, float]](), Z95
    for scale, gain in zip(scales, found, strict=True):
        if gain.effect is None or gain.error is None or gain.interval is None:
            continue
        error = max(gain.error, 1e-12)
        known.append((math.log(scale), gain.effect, error))
        widest = max(widest, (gain.interval[1] - gain.interval[0]) / 2 / error)
    places = sorted({x for x, _, _ in known})
    if len(places) < LEAST_RUNGS:
        return f"only {len(places)} scales have a known gain; {LEAST_RUNGS} are needed"
    weights = [1 / error**2 for _, _, error in known]
    total = math.fsum(weights)
    middle = math.fsum(w * x for w, (x, _, _) in zip(weights, known, strict=True)) / total
    mean = math.fsum(w * y for w, (_, y, _) in zip(weights, known, strict=True)) / total
    spread = math.fsum(w * (x - middle) ** 2 for w, (x, _, _) in zip(weights, known, strict=True))
    slope = math.fsum(w * (x - middle) * y for w, (x, y, _) in zip(weights, known, strict=True)) / spread
    left = math.fsum(
        w * (y - mean - slope * (x - middle)) ** 2 for w, (x, y, _) in zip(weights, known, strict=True)
    )
    freedom = len(known) - 2
    if left > _chi_square_95(freedom):
        return "the gains do not lie on a line in the logarithm of the scale"
    there = places[-1] + (places[-1] - places[-2])
    effect = mean + slope * (there - middle)
    half = widest * math.sqrt(1 / total + (there - middle) ** 2 / spread)
    return Extrapolated(math.exp(there), effect, (effect - half, effect + half))


def _chi_square_95(freedom: int) -> float:
    """The 95% quantile of chi square (Wilson & Hilferty, 1931); within 2% from 1 degree of freedom on."""
    a = 2 / (9 * freedom)
    return freedom * (1 - a + NormalDist().inv_cdf(0.95) * math.sqrt(a)) ** 3
