"""The default judge: odds that a gain is real, learned from the search itself.

A candidate is kept when the odds of a real gain against nothing at all reach `odds`. The prior odds are
the share of confirmed candidates that were kept so far, the expected size of a gain is the mean of those,
and the advantage of having passed the screening is taken back, so that all runs may be counted. In a
search where nothing works the bar thus rises by itself; where much works it falls.
"""

from __future__ import annotations

import math

from autoresearch.judge.base import Baseline
from autoresearch.judge.noise import Comparison
from autoresearch.judge.report import Evidence
from autoresearch.judge.sequential import Sequential
from autoresearch.judge.stats import log_evidence, log_pass
from autoresearch.judge.stopping import BARS

ALONE = 1.5
"""Least z of the confirmation runs without the screening run, which was selected for being good."""

REALISM = 12.0
"""What the odds leave out, measured by benchmarks/judge.py: a candidate that gains nothing mostly does harm
and so looks good far more rarely than one that does nothing, and of those that were confirmed and then
discarded many were real."""

PRIOR_KEPT, PRIOR_CONFIRMED = 0.7, 8.0
"""Before anything is known, as if so many of so many confirmed candidates had been kept."""


class Default(Sequential):
    """Sequential confirmation with empirical-Bayes odds.

    Args:
        baseline: (seed, score) of the starting point, two or more; three are better.
        tau: Standard error that the validation set adds to any difference (see `autoresearch.judge.tau`).
        odds: Least odds that a kept gain is real. Most keeps are far above, so the share of false keeps is
            smaller than this suggests: 2-3% at 4 (see docs/judging.md).
        refresh: Runs that the incumbent has at least.
        heartbeat: Candidate runs after which the incumbent is run again.
        limit: Most runs of one candidate.
        price: Gain that one unit of added complexity must bring, in standard deviations of the noise; what
            removing one may cost. 0 switches complexity off.
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

    def _accept(self, view: Comparison, alone: Comparison, scale: float) -> Evidence | None:
        if alone.z < ALONE:
            return None
        kept = sum(not keep.simplification for keep in self.keeps)
        share = (kept + PRIOR_KEPT) / (self.confirmed - 1 + PRIOR_CONFIRMED)
        score = log_evidence(view.z, scale / view.error)
        score += math.log(REALISM * share / (1 - share)) + log_pass(BARS[0], self.ratio)
        if score < math.log(self.options["odds"]):
            return None
        return Evidence(view.z, 1 / (1 + math.exp(min(score, 700.0))), f"z = {view.z:.1f}")
