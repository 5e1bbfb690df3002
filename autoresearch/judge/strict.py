"""The strict judge: controls the false-discovery rate over the whole search, with a proof.

A candidate's runs, the first one included, give an e-value: a t-test with a half-normal prior over the gain,
which may be looked at after every run (Grünwald, de Heide & Koolen 2024). e-LOND (Xu & Ramdas 2024) keeps
candidate t when its e-value reaches 1 / (rate * w_t * (keeps + 1)), where the weights w_t sum to at most 1.
The expected share of false keeps is then at most `rate`, however the e-values depend on each other. Every
candidate counts: one that is screened out is a test that was stopped early, which e-values allow. The proof
assumes normal scores of equal spread, and runs on the same seed that are independent or positively
correlated. The incumbent's selection bias makes it harder, not easier, for later candidates to be kept.
"""

from __future__ import annotations

import math

from autoresearch.judge.base import Baseline
from autoresearch.judge.noise.spread import Comparison, Noise, Runs, compare, phi, z_from_t
from autoresearch.judge.sequential.candidates import Candidate
from autoresearch.judge.sequential.decisions import Sequential
from autoresearch.judge.sequential.evidence import Evidence

SPREAD = 2.0
"""Prior scale of a gain, in noise units."""


class Strict(Sequential):
    """Sequential confirmation with e-values.

    Args:
        baseline: (seed, score) of the starting point, two or more; three are better.
        tau: Standard error that the validation set adds to any difference.
        rate: Largest expected share of false keeps.
        horizon: Number of candidates expected in the search. Later ones must pass stricter levels.
        refresh: Least number of runs of the incumbent.
        heartbeat: Number of candidate runs after which the incumbent is run again.
        limit: Most runs of one candidate.
        price: As in the default judge; the proof does not cover simplifications.
        margin: As in the default judge.
    """

    name = "strict"

    def __init__(
        self,
        baseline: Baseline,
        tau: float = 0.0,
        *,
        rate: float = 0.05,
        horizon: int = 300,
        refresh: int = 3,
        heartbeat: int = 20,
        limit: int = 20,
        price: float = 0.0,
        margin: float = 1.0,
    ) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"rate must be in (0, 1), not {rate}")
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 candidate, not {horizon}")
        first = {"rate": rate, "horizon": horizon, "refresh": refresh}
        rest = {"heartbeat": heartbeat, "limit": limit, "price": price, "margin": margin}
        super().__init__(baseline, tau, first | rest)

    def _compare(self, noise: Noise, c: Candidate, runs: Runs) -> Comparison:
        """Without control variate and bias correction, which the proof does not cover."""
        sampling = self._sampling(c, runs)
        return compare(noise, self.incumbent.runs, runs, tau=sampling.error, tau_df=sampling.df)

    def _accept(
        self, c: Candidate, view: Comparison, unselected: Comparison, scale: float
    ) -> Evidence | None:
        kept = sum(not keep.simplification for keep in self.keeps)
        share = weight(c.ordinal, int(self.options["horizon"]))
        level = self.options["rate"] * share * (kept + 1)
        evidence = log_e(view, self._noise().variance)
        if evidence < -math.log(level):
            return None
        value = math.exp(min(evidence, 700.0))
        return Evidence(value, self.options["rate"], f"e-value {value:.3g}, needs {1 / level:.3g}")


def weight(number: int, horizon: int) -> float:
    """e-LOND's weight of the candidate with this number: constant up to the horizon, then falling."""
    return 0.9 / horizon if number <= horizon else 0.1 * horizon / number**2


def log_e(view: Comparison, variance: float) -> float:
    """Log e-value for a gain against none or less, from a t statistic.

    The Bayes factor of a half-normal prior over gain / noise with scale SPREAD, under the right-Haar prior
    for the noise: twice the two-sided one times the posterior probability of the good side, which is a
    Student t probability with one more degree of freedom (taken by Wallace's approximation).
    """
    if view.gain <= 0:
        return -math.inf
    spread = 1 + SPREAD**2 * variance / view.error**2
    t2, df = (view.gain / view.error) ** 2, view.df
    rest = 1 + t2 / (spread * df)
    ratio = math.log1p(t2 / df) - math.log(rest)
    side = math.sqrt((1 - 1 / spread) * t2 * (df + 1) / (df * rest))
    both = 0.5 * (df + 1) * ratio - 0.5 * math.log(spread)
    return both + math.log(2 * phi(z_from_t(side, df + 1)))
