"""Races briefs: which order of them is established, and between which more must be run. Pure statistics.

Each round runs every brief that is still in the race once, with the same search seed, so gains are compared
in pairs. After each round one looks again, and stops when the order is known: an interval that is valid at
one fixed look would be wrong far too often. These intervals hold at all looks together. They
come from a sequential t-test: the Bayes factor with the prior N(0, PRIOR) on the standardised difference and
the right Haar prior on the scale is an e-process under "no difference", whatever the scale (Perez-Ortiz,
Lardy, de Heide, Gruenwald 2024, "E-statistics, group invariance and anytime-valid testing", Annals of
Statistics 52; Wang and Ramdas 2025, "Anytime-valid t-tests and confidence sequences for Gaussian means with
unknown variance"). By Ville's inequality it exceeds 1/level with at most that probability, ever. The level is
shared between all pairs (Bonferroni), so the whole ranking holds at 95%. Differences are taken as Gaussian;
the tests simulate that equal briefs whose gains are skewed, most of them 0, are not told apart either.

The racing is that of successive elimination (Even-Dar, Mannor, Mansour 2006; Maron and Moore 1994): a brief
whose order to every other one is established is not run again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

LEVEL = 0.05
"""Probability that any statement of a contest is wrong."""
PRIOR = 2.0
"""Variance of the standardised difference under the prior: it decides after how many rounds most is seen."""

Gains = Mapping[str, Mapping[int, float]]
"""Brief -> round -> gain."""


@dataclass(frozen=True)
class Difference:
    """How much more one brief gains than another.

    Attributes:
        better: The one whose mean is larger.
        worse: The other one.
        mean: Mean difference over the rounds that both were run in.
        interval: Of the difference, valid at all looks and for all pairs together.
        rounds: How many rounds that are.
    """

    better: str
    worse: str
    mean: float
    interval: tuple[float, float]
    rounds: int

    @property
    def established(self) -> bool:
        """Whether the order of the two is known."""
        return self.interval[0] > 0


def half_width(differences: Sequence[float], level: float) -> float:
    """Half of the interval around the mean of differences; infinite while too few are known.

    Args:
        differences: Of pairs.
        level: Probability with which the intervals of all looks may ever miss the mean.
    """
    n = len(differences)
    if n < 2:
        return math.inf
    grown = 1 + n * PRIOR
    bound = (math.sqrt(grown) / level) ** (2 / n)
    if bound >= grown:
        return math.inf
    # The largest t^2/(n-1) at which the Bayes factor has not reached 1/level.
    ratio = (bound - 1) / (1 - bound / grown)
    mean = fmean(differences)
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    return math.sqrt(variance * (n - 1) * ratio / n)


def differences(gains: Gains, level: float = LEVEL) -> list[Difference]:
    """Every pair of briefs that have a round in common."""
    share = level / max(math.comb(len(gains), 2), 1)
    found = []
    for one, other in combinations(gains, 2):
        rounds = sorted(gains[one].keys() & gains[other].keys())
        if not rounds:
            continue
        pairs = [gains[one][r] - gains[other][r] for r in rounds]
        mean, half = fmean(pairs), half_width(pairs, share)
        better, worse = (one, other) if mean >= 0 else (other, one)
        ends = abs(mean) - half, abs(mean) + half
        found.append(Difference(better, worse, abs(mean), ends, len(rounds)))
    return found


def racing(gains: Gains, level: float = LEVEL) -> list[str]:
    """The briefs that must be run again: those whose order to some other one is not established."""
    known = {frozenset((d.better, d.worse)) for d in differences(gains, level) if d.established}
    open = (pair for pair in combinations(gains, 2) if frozenset(pair) not in known)
    names = {name for pair in open for name in pair}
    return [name for name in gains if name in names]


def standing(gains: Gains) -> list[str]:
    """The briefs by their mean gain, the best first."""
    return sorted(gains, key=lambda name: -fmean(gains[name].values()) if gains[name] else math.inf)


def winner(gains: Gains, level: float = LEVEL) -> str | None:
    """The brief that is established to be better than every other one; None if there is none."""
    beaten = dict.fromkeys(gains, 0)
    for d in differences(gains, level):
        beaten[d.better] += d.established
    return next((name for name, count in beaten.items() if count == len(gains) - 1 > 0), None)
