"""Two judges for comparison: "greedy" keeps any decrease, "threshold" any well above the noise.

Both run a candidate once, on one seed, against the score that was selected last. That score is too good:
after a few hundred trials by two to five times the noise for the greedy judge. The threshold judge makes
fewer false keeps, but after a lucky keep real gains no longer pass its bar.
"""

from __future__ import annotations

from autoresearch.judge.base import Baseline, Judge, Kept, Report
from autoresearch.judge.noise.spread import Z95, Runs, squares, t_from_z
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.judge.sequential.incumbent import MAX_FAILURES
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

    def _plan(self) -> list[TrialRequest]:
        return [TrialRequest(Arm.SCREEN, next(iter(self.baseline)))]

    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        self.candidates += 1
        if observation.score is None:
            return self._failed_candidate()
        effect = self.best - observation.score
        if effect <= self._bar():
            reason = f"gain {effect:+.3g} in one run, needs more than {self._bar():.3g}"
            return Verdict(VerdictKind.DISCARD, effect, trials=1, reason=reason)
        self.effects.append(effect)
        self.best = observation.score
        return Verdict(VerdictKind.KEEP, effect, trials=1, reason=f"gain {effect:+.3g} in one run")

    def _restore(self, keeps: int, runs: dict[int, float]) -> None:
        del self.effects[len(self.effects) - keeps :]
        self.best = sum(runs.values()) / len(runs)

    def _bar(self) -> float:
        """The gain that must be exceeded."""
        return 0.0


class Threshold(Greedy):
    """Keeps what scores lower than the incumbent did by `sigmas` times the noise.

    The noise is measured on the baseline alone. With a single baseline run the judge first asks for one more
    on a fresh seed, since one number shows no noise. If that fails three times, it goes on with a bar of 0,
    like the greedy judge.

    Args:
        baseline: (seed, score), one or more.
        tau: Not used.
        sigmas: The bar, in standard deviations of one run.
    """

    name = "threshold"

    def __init__(self, baseline: Baseline, tau: float = 0.0, *, sigmas: float = 2.0) -> None:
        if not sigmas >= 0:
            raise ValueError(f"sigmas must be >= 0, not {sigmas}")
        super().__init__(baseline, tau)
        self.options = {"sigmas": sigmas}
        self.failures = 0

    def _plan(self) -> list[TrialRequest]:
        if len(self.baseline) < 2 and self.failures < MAX_FAILURES:
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        return super()._plan()

    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        if request.arm != Arm.INCUMBENT:
            return super()._take(request, observation)
        if observation.score is None:
            self.failures += 1
        else:
            self.baseline[request.seed] = observation.score
            self.best = sum(self.baseline.values()) / len(self.baseline)
        return None

    def _bar(self) -> float:
        sigma, _ = spread(self.baseline)
        return self.options["sigmas"] * (sigma or 0.0)


def spread(runs: Runs) -> tuple[float | None, Estimate]:
    """Standard deviation of replicates (None for a single one), and their mean with its interval."""
    ss, df = squares(runs.values())
    mean = sum(runs.values()) / len(runs)
    if df == 0:
        return None, Estimate(mean, None, len(runs))
    sigma = (ss / df) ** 0.5
    half = t_from_z(Z95, df) * sigma / len(runs) ** 0.5
    return sigma, Estimate(mean, (mean - half, mean + half), len(runs))
