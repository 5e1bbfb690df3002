"""The default judge: keeps a candidate when the odds that its gain is real are high enough.

The odds are of a real gain against no gain at all. Prior odds are the share of confirmed candidates that were
kept so far, and the expected size of a gain is the mean of those. The odds are corrected for the screening,
so that all runs may be counted. In a search where nothing works the bar rises by itself; where much works it
falls.
"""

from __future__ import annotations

import math

from autoresearch.judge.base import Baseline
from autoresearch.judge.noise.spread import Comparison, phi
from autoresearch.judge.sequential.candidates import Candidate
from autoresearch.judge.sequential.decisions import Sequential
from autoresearch.judge.sequential.evidence import BARS, Evidence, log_evidence

UNSELECTED_Z = 1.5
"""Least z of the confirmation runs without the screening run, which was selected for being good."""

ODDS_FACTOR = 5.0
"""Corrects the odds for two simplifications; fitted with benchmarks/judge.py. Most candidates without a gain
do harm, so they look good far more rarely than ones that do nothing. And many that were confirmed and then
discarded were real."""

CHECK_FACTOR = 2.0
"""Corrects the odds once more where the caller checks with runs of its own what would be kept: these are not
selected, and most of what gains nothing fails them. Fitted with benchmarks/judge.py, too."""

PRIOR_KEPT, PRIOR_CONFIRMED = 0.7, 8.0
"""Before anything is known, as if so many of so many confirmed candidates had been kept."""


class Default(Sequential):
    """Sequential confirmation with empirical-Bayes odds.

    Args:
        baseline: (seed, score) of the starting point, two or more; three are better.
        tau: Standard error that the validation set adds to any difference (see
            `autoresearch.judge.noise.spread`).
        odds: Least odds that a kept gain is real. Most keeps are far above, so the share of false keeps is
            smaller than this suggests: 2-3% at 4 (see docs/judging.md).
        refresh: Least number of runs of the incumbent.
        heartbeat: Number of candidate runs after which the incumbent is run again.
        limit: Most runs of one candidate.
        price: Gain that one unit of added complexity must bring, in standard deviations of the noise; also
            what removing one unit may cost. 0: complexity does not count.
        margin: A simplification may not be worse than this, in standard deviations of the noise.
    """

    name = "default"

    def __init__(
        self,
        baseline: Baseline,
        tau: float = 0.0,
        *,
        odds: float = 4.0,
        refresh: int = 3,
        heartbeat: int = 20,
        limit: int = 12,
        price: float = 0.005,
        margin: float = 1.0,
    ) -> None:
        if not odds > 0:
            raise ValueError(f"odds must be > 0, not {odds}")
        options = {"odds": odds, "refresh": refresh, "heartbeat": heartbeat, "limit": limit}
        super().__init__(baseline, tau, {**options, "price": price, "margin": margin})

    def _accept(
        self, c: Candidate, view: Comparison, unselected: Comparison, scale: float
    ) -> Evidence | None:
        if unselected.z < UNSELECTED_Z:
            return None
        kept = sum(not keep.simplification for keep in self.keeps)
        undecided = sum(bool(other.seeds) for other in self.active.values())
        share = (kept + PRIOR_KEPT) / (self.confirmed - undecided + PRIOR_CONFIRMED)
        score = log_evidence(view.z, scale / view.error)
        score += math.log(ODDS_FACTOR * share / (1 - share)) + log_pass(BARS[0], c.gain_ratio)
        if c.checked or self._must_pass(c):
            score += math.log(CHECK_FACTOR)
        if score < math.log(self.options["odds"]):
            return None
        return Evidence(view.z, 1 / (1 + math.exp(min(score, 700.0))), f"evidence {view.z:.1f}")


def log_pass(bar: float, ratio: float) -> float:
    """Log of P(z >= bar | no gain) / P(z >= bar | a gain from the exponential of `log_evidence`).

    Added to the log odds, it corrects for the screening: only candidates that passed the bar are looked at.
    """
    ratio = max(ratio, 0.05)
    nothing = phi(-bar)
    return math.log(nothing) - math.log(
        nothing + math.exp(0.5 / ratio**2 - bar / ratio) * phi(bar - 1 / ratio)
    )
