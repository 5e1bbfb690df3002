"""Whether gains carry over: each kept change at larger scales and on other data, beside the search's own.

On every rung the start and the tip after each kept change are trained on common fresh seeds, so that a change
is the difference of neighbours in pairs. The scale of the search is a rung like the others: the gain that a
search itself measured was selected for being large. The noise of a pair is pooled over the changes of a rung.
A fit of the gain against the logarithm of the scale says what it would be one rung further, and only there.
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
    steps = [*pairwise(rung), (rung[0], rung[-1])]
    pairs = [[before[s] - after[s] for s in before.keys() & after.keys()] for before, after in steps]
    singles = pairs[:-1]  # all changes together are not a pair of their own
    freedom = sum(max(len(found) - 1, 0) for found in singles)
    squares = math.fsum((gain - fmean(found)) ** 2 for found in singles for gain in found)
    whole_freedom = max(len(pairs[-1]) - 1, 0)
    whole_squares = math.fsum((gain - fmean(pairs[-1])) ** 2 for gain in pairs[-1])
    result = []
    for index, found in enumerate(pairs):
        last = index == len(singles)
        here, spread = (whole_freedom, whole_squares) if last else (freedom, squares)
        known = base[index] if base is not None else None
        result.append(_gain(found, here, spread, known))
    return result


def _gain(pairs: Sequence[float], freedom: int, squares: float, base: Gain | None) -> Gain:
    if not pairs:
        return Gain(None, None, None, 0, Mark.UNKNOWN)
    effect = fmean(pairs)
    if not freedom:
        return Gain(effect, None, None, len(pairs), Mark.UNKNOWN)
    error = math.sqrt(squares / freedom / len(pairs))
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

    Args:
        scales: Of the rungs, as factors of the scale of the search.
        found: The gain on each.

    Returns:
        The gain there; or why nothing can be said of it.
    """
    known = [
        (math.log(scale), gain.effect, max(gain.error, 1e-12))
        for scale, gain in zip(scales, found, strict=True)
        if gain.effect is not None and gain.error is not None
    ]
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
    half = Z95 * math.sqrt(1 / total + (there - middle) ** 2 / spread)
    return Extrapolated(math.exp(there), effect, (effect - half, effect + half))


def _chi_square_95(freedom: int) -> float:
    """The 95% quantile of chi square (Wilson & Hilferty, 1931); within 2% from 1 degree of freedom on."""
    a = 2 / (9 * freedom)
    return freedom * (1 - a + NormalDist().inv_cdf(0.95) * math.sqrt(a)) ** 3
