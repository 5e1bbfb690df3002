"""Keep a decrease of more than a few standard deviations of the noise. For comparison.

One run a candidate. Fewer false keeps than greedy, but a lucky keep sets a bar that real gains then fail
to pass, and its score is as optimistic.
"""

from __future__ import annotations

from autoresearch.judge.base import Baseline
from autoresearch.judge.greedy import Greedy, spread
from autoresearch.judge.incumbent import MISSES
from autoresearch.judge.orders import Plan, TrialRequest
from autoresearch.types import Arm, Verdict


class Threshold(Greedy):
    """Keeps what scores lower than the incumbent did by `sigmas` times the noise.

    The noise is measured on the baseline alone. With a single baseline run the judge first asks for one
    more on a fresh seed, since there is no noise to measure in one number; if that fails three times, it
    goes on with a bar of 0, which is the greedy judge.

    Args:
        baseline: (seed, score), one or more.
        tau: Not used; the bar does not know of it.
        sigmas: The bar, in standard deviations of one run.
    """

    name = "threshold"

    def __init__(self, baseline: Baseline, tau: float = 0.0, *, sigmas: float = 2.0) -> None:
        if not sigmas >= 0:
            raise ValueError(f"sigmas must be >= 0, not {sigmas}")
        super().__init__(baseline, tau)
        self.options = {"sigmas": sigmas}
        self.misses = 0

    def _plan(self) -> list[Plan]:
        if len(self.baseline) < 2 and self.misses < MISSES:
            return [(Arm.INCUMBENT, self._seed())]
        return super()._plan()

    def _take(self, want: TrialRequest, score: float | None) -> Verdict | None:
        if want.arm != Arm.INCUMBENT:
            return super()._take(want, score)
        if score is None:
            self.misses += 1
        else:
            self.baseline[want.seed] = score
            self.best = sum(self.baseline.values()) / len(self.baseline)
        return None

    def _bar(self) -> float:
        sigma, _ = spread(self.baseline)
        return self.options["sigmas"] * (sigma or 0.0)
