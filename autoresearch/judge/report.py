"""What a judge can say about a search so far: estimates with intervals, and counts."""

from __future__ import annotations

from dataclasses import dataclass

from autoresearch.types import Estimate


@dataclass(frozen=True)
class Evidence:
    """What an accepted candidate has to show: the statistic, the doubt that is left, and words for it."""

    value: float
    doubt: float
    words: str


@dataclass(frozen=True)
class Kept:
    """One accepted change.

    Attributes:
        effect: Gain as measured when it was kept; positive is better.
        error: Its standard error, already widened where few runs stand behind the noise.
        shrunk: The gain with the luck of having been selected taken out; None if it cannot be known.
        interval: 95% interval of the gain, selection taken into account; None if it cannot be known.
        trials: Trainings of the candidate behind it.
        doubt: Probability, by the judge's own reckoning, that there is no gain; None if not reckoned.
        simplification: Kept because it removes code and does no harm, not because it gains.
        suspicious: Much larger than the history led to expect; it was looked at once more.
        margin: What a simplification was to be shown not to lose.
    """

    effect: float
    error: float | None
    shrunk: float | None
    interval: tuple[float, float] | None
    trials: int
    doubt: float | None = None
    simplification: bool = False
    suspicious: bool = False
    margin: float = 0.0


@dataclass(frozen=True)
class Report:
    """What is known after the answers so far.

    Attributes:
        judge: Name of the judge.
        noise: Standard deviation of a score from seed to seed; None if there is no replicate yet.
        baseline: Where the search began.
        incumbent: Where it stands, with the luck of selection taken out where the judge can do so.
        keeps: Every accepted change, in order.
        candidates: Candidates looked at.
        confirmed: Those that were worth a second run.
        failed: Those of which a trial failed.
        expected_false_keeps: Expected number of `keeps` that gain nothing; None if not reckoned.
        common_luck: Share of a seed's luck that candidate and incumbent have in common, in [0, 1].
        drifts: How often the incumbent's re-runs showed that the machine had changed.
        tau: Standard error that the validation set adds to any difference.
    """

    judge: str
    noise: float | None
    baseline: Estimate
    incumbent: Estimate
    keeps: tuple[Kept, ...]
    candidates: int
    confirmed: int
    failed: int
    expected_false_keeps: float | None = None
    common_luck: float = 0.0
    drifts: int = 0
    tau: float = 0.0

    @property
    def kept(self) -> int:
        """Number of accepted changes."""
        return len(self.keeps)
