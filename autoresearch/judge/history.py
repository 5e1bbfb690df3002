"""What the keeps so far lead to expect of the next gain: its usual size, and what would be a surprise.

Empirical Bayes: the mean of the gains that were kept, shrunk, with a little weight on a prior of one noise
unit. Simplifications were not kept for a gain, and do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from autoresearch.judge.report import Kept

PRIOR_SCALE, PRIOR_WEIGHT = 1.0, 2.0
"""Mean gain expected before anything is kept, in noise units, and the keeps this counts for."""

SURPRISE = 4.0
"""A gain beyond (ln(keeps + 1) + this) times the mean gain is looked at once more: about 2% of the
largest among as many exponential gains get there."""

SURPRISE_SHARE = 0.25
"""So is one beyond this share of the score itself."""


def gains(keeps: Iterable[Kept]) -> list[float]:
    """The gains that were kept, the luck of selection taken out."""
    return [keep.shrunk or 0.0 for keep in keeps if not keep.simplification]


def scale(keeps: Iterable[Kept], sigma: float) -> float:
    """Mean size of a real gain; `sigma` is the noise."""
    found = gains(keeps)
    return (PRIOR_SCALE * PRIOR_WEIGHT * sigma + sum(found)) / (PRIOR_WEIGHT + len(found))


def surprising(gain: float, keeps: Iterable[Kept], level: float) -> bool:
    """Whether a gain over an incumbent that scores `level` is much larger than history predicts."""
    if gain > SURPRISE_SHARE * abs(level):
        return True
    n = len(found := gains(keeps))
    return n >= 3 and gain > sum(found) / n * (math.log(n + 1) + SURPRISE)
