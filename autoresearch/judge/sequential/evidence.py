"""What the sequential judges ask of a candidate: how much evidence, for what gain, at what size.

Everything is relative to the measured noise, so nothing here has a unit of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

from autoresearch.judge.base import Kept
from autoresearch.judge.noise.spread import Z95, Comparison, phi

BARS = (0.9, 1.1, 1.27, 1.4, 1.5, 1.6)
"""Least z, screening run included, to go on after 1, 2, ... runs. Like the optimal stopping bounds for a
known prior, they ask for a roughly constant worthwhile effect rather than for a constant z."""

BAR_STEP = 0.08
"""How much each further run adds to the bar."""

PRIOR_GAIN, PRIOR_WEIGHT = 1.0, 2.0
"""Mean gain expected before anything is kept, in noise units, and the number of keeps that this counts
for."""

SURPRISE = 4.0
"""A gain beyond (ln(keeps + 1) + this) times the mean gain is surprising. About 2% of the largest among as
many exponential gains get there."""

SURPRISE_SHARE = 0.25
"""A gain beyond this share of the score itself is surprising, too."""

LOST = 0.05
"""Share of real gains that are lost on top of another change that was kept. Alternatives do not add up."""

HARMLESS_Z = 2.1
"""Least z of a one-sided test that a simplification is not worse than its margin. There may be ten looks: at
5% for all together that is about 2% each. Of removals that lose all of the margin, 0.5% are kept."""


@dataclass(frozen=True)
class Evidence:
    """Why a candidate is kept: the test statistic, the remaining probability of no gain, and words for it."""

    value: float
    doubt: float
    words: str


@dataclass(frozen=True)
class SizeTerms:
    """What the change of size of the current candidate is worth, in score.

    An addition must bring `price` times the noise a line. A removal may cost that much, but at most the
    margin.

    Attributes:
        price: What it must gain for the size it adds; 0 or more.
        bonus: What it may lose for the size it removes; 0 or more.
        margin: What it must be shown not to lose; 0 unless it removes something.
    """

    price: float = 0.0
    bonus: float = 0.0
    margin: float = 0.0

    @classmethod
    def of(cls, complexity: float, price: float, margin: float, sigma: float) -> SizeTerms:
        """From the net growth, price and margin in noise units, and the noise."""
        if complexity >= 0:
            return cls(price=price * complexity * sigma)
        bonus = min(-price * complexity, margin) * sigma
        return cls(bonus=bonus, margin=margin * sigma if bonus > 0 else 0.0)

    def simplifies(self, unselected: Comparison) -> bool:
        """Whether the runs after the screening show a removal to be harmless enough."""
        if not self.margin:
            return False
        return unselected.gain + self.bonus >= 0 and unselected.plus(self.margin).z >= HARMLESS_Z


def bar(runs: int) -> float:
    """Least z to go on after this many runs."""
    return BARS[runs - 1] if runs <= len(BARS) else BARS[-1] + BAR_STEP * (runs - len(BARS))


def why_stop(view: Comparison, runs: int, limit: float, terms: SizeTerms, growth: float) -> str:
    """Why a candidate gets no further run; empty if it gets one.

    Args:
        view: All its runs against the incumbent.
        runs: Number of its runs.
        limit: Most runs of one candidate.
        terms: What its change of size is worth.
        growth: Its net growth, for the message.
    """
    bonus = terms.bonus if runs == 1 else terms.margin
    z, least = view.plus(bonus - terms.price).z, bar(runs)
    count = f"{runs} run" if runs == 1 else f"{runs} runs"
    if z < least:
        why = f"stopped after {count}: evidence {z:.2f}, needs {least:.2f}"
        priced = terms.price and view.z >= least
        return why + (f"; the price of its size ({growth:+g}) decided" if priced else "")
    return f"stopped after {count}, the limit: evidence {z:.2f} is still not enough" if runs >= limit else ""


def log_evidence(z: float, ratio: float) -> float:
    """Log Bayes factor for "a gain drawn from an exponential distribution" against "no gain at all".

    No gain at all is the hardest alternative to rule out: a change that does harm looks worse than that.

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


BEYOND_DOUBT = 12.0
"""Log evidence of a gain of more than five standard errors."""


def log_stays(moves: int, together: float, before: float, after: float) -> float:
    """Log odds that a gain remains on top of what was kept since the candidate was begun.

    If it remains, the runs before and after measure one gain; if it is lost, those after measure none. Where
    those after are beyond doubt by themselves, that decides: the difference of two large numbers says little
    when the runs before happen to be measured more exactly.

    Args:
        moves: How many changes were kept since; states of older versions do not say, and have 0.
        together: Log evidence of all its runs; see `log_evidence`.
        before: The same of its runs on top of earlier incumbents.
        after: The same of its runs on top of the present one.
    """
    stays = (1 - LOST) ** max(1, moves)
    return math.log(stays / (1 - stays)) + (after if after > BEYOND_DOUBT else together - before)


def kept_gains(keeps: Iterable[Kept]) -> list[float]:
    """The gains kept so far, without selection bias. Simplifications were not kept for a gain."""
    return [keep.shrunk or 0.0 for keep in keeps if not keep.simplification]


def expected_gain(keeps: Iterable[Kept], sigma: float) -> float:
    """Mean size of a real gain: empirical Bayes, from the keeps so far and a weak prior of one noise unit."""
    found = kept_gains(keeps)
    return (PRIOR_GAIN * PRIOR_WEIGHT * sigma + sum(found)) / (PRIOR_WEIGHT + len(found))


def surprising(gain: float, keeps: Iterable[Kept], level: float) -> bool:
    """Whether a gain over an incumbent that scores `level` is much larger than earlier gains."""
    if gain > SURPRISE_SHARE * abs(level):
        return True
    n = len(found := kept_gains(keeps))
    return n >= 3 and gain > sum(found) / n * (math.log(n + 1) + SURPRISE)


def shrink(gain: float, error: float, scale: float, doubt: float = 0.0) -> tuple[float, tuple[float, float]]:
    """A selected gain without its expected selection bias (cf. Efron 2011).

    This is the posterior of a gain that is known to be positive and exponential a priori with mean `scale`,
    after measuring `gain` with normal standard error `error`: a normal around `gain - error^2 / scale`, cut
    off at 0; and with probability `doubt`, exactly 0.

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
    normal = NormalDist()

    def quantile(p: float) -> float:
        above = min(max((1 - p) / (1 - doubt), 1e-300), 1.0) * mass
        return max(0.0, centre - error * normal.inv_cdf(min(above, 1 - 1e-16)))

    return mean * (1 - doubt), (quantile(0.025), quantile(0.975))


def simplification(unselected: Comparison, terms: SizeTerms, scale: float, runs: int) -> Kept:
    """What is reported of a simplification: its effect, without the bias of having been found harmless.

    Nobody expects a removal to gain. So this is the posterior for a normal prior around 0, as wide as a gain
    is large.

    Args:
        unselected: The runs after the screening against the incumbent.
        terms: What its change of size is worth.
        scale: Mean size of a real gain.
        runs: Number of those runs.
    """
    error = unselected.widened
    belief = scale**2 / (scale**2 + error**2)
    effect, reach = belief * unselected.gain, Z95 * math.sqrt(belief) * error
    interval = (effect - reach, effect + reach)
    return Kept(
        effect, math.sqrt(belief) * error, effect, interval, runs, simplification=True, margin=terms.margin
    )
