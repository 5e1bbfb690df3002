"""Keep any decrease. For comparison: fast, and not to be believed.

One run a candidate on one seed, against the score that won the last selection. What it reports as its
score is the luckiest number seen, too good by two to five times the noise after a few hundred trials.
"""

from __future__ import annotations

from autoresearch.judge.base import Baseline, Judge
from autoresearch.judge.noise import Runs
from autoresearch.judge.orders import Plan, TrialRequest
from autoresearch.judge.report import Kept, Report
from autoresearch.judge.stats import Z95, squares, t_from_z
from autoresearch.types import Arm, Estimate, Verdict, VerdictKind


class Greedy(Judge):
    """Keeps whatever scores lower than the incumbent did."""

    name = "greedy"

    def __init__(self, baseline: Baseline, tau: float = 0.0) -> None:
        super().__init__(baseline, tau, {})
        self.best = sum(self.baseline.values()) / len(self.baseline)
        self.effects: list[float] = []

    def report(self) -> Report:
        """Estimates and counts; the incumbent's score is the selected one, without an interval."""
        noise, start = spread(self.baseline)
        current = Estimate(self.best, None, 1) if self.effects else start
        keeps = tuple(Kept(effect, None, None, None, 1) for effect in self.effects)
        return Report(self.name, noise, start, current, keeps, self.candidates, 0, self.failed)

    def _plan(self) -> list[Plan]:
        return [(Arm.SCREEN, next(iter(self.baseline)))]

    def _take(self, want: TrialRequest, score: float | None) -> Verdict | None:
        self.candidates += 1
        if score is None:
            return self._crash()
        effect = self.best - score
        if effect <= self._bar():
            reason = f"{effect:+.3g} is not above {self._bar():.3g}"
            return Verdict(VerdictKind.DISCARD, effect, trials=1, reason=reason)
        self.effects.append(effect)
        self.best = score
        return Verdict(VerdictKind.KEEP, effect, trials=1, reason=f"{effect:+.3g} in one run")

    def _bar(self) -> float:
        """The gain that must be exceeded."""
        return 0.0


def spread(runs: Runs) -> tuple[float | None, Estimate]:
    """Standard deviation of replicates (None for a single one), and their mean with its interval."""
    ss, df = squares(runs.values())
    mean = sum(runs.values()) / len(runs)
    if df == 0:
        return None, Estimate(mean, None, len(runs))
    sigma = (ss / df) ** 0.5
    half = t_from_z(Z95, df) * sigma / len(runs) ** 0.5
    return sigma, Estimate(mean, (mean - half, mean + half), len(runs))
