"""What early stopping has saved, and what it is estimated to have cost.

A share of the runs that would have been stopped was finished all the same: what of them was kept tells, on
average, what the stopped ones would have gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.judge.limits.early_stopping import STOP_SHARE
from autoresearch.text import count, duration
from autoresearch.types import Arm, Experiment, Metric, Outcome, Trial


@dataclass(frozen=True)
class Stopping:
    """What early stopping did in a search.

    Attributes:
        stopped: Screening runs that it ended.
        seconds_saved: Device time that these would have taken in addition.
        share_saved: That, as a share of what all trials would have taken.
        spared: Runs that would have been stopped, and were finished as a check.
        spared_kept: How many of those were kept.
        gains_lost: Estimated gain of what was stopped, in the metric's unit; None while nothing was spared.
    """

    stopped: int
    seconds_saved: float
    share_saved: float
    spared: int
    spared_kept: int
    gains_lost: float | None

    def sentence(self, metric: Metric) -> str:
        """For a person; empty if nothing was stopped or spared."""
        if not self.stopped and not self.spared:
            return ""
        words = (
            f"Early stopping ended {count(self.stopped, 'first run')} of candidates and saved "
            f"{duration(self.seconds_saved)} of device time, {self.share_saved:.0%} of all."
        )
        if self.gains_lost is None:
            return f"{words} No run that would have been stopped was finished as a check yet."
        lost = f"{self.gains_lost:.{metric.digits}f} {metric.unit}"
        return (
            f"{words} As a check it let {count(self.spared, 'such run')} finish: {self.spared_kept} of them "
            f"were kept, so the gains lost are estimated at {lost}."
        )


def stopping(experiments: Sequence[Experiment]) -> Stopping:
    """Sum up early stopping in a search."""
    ended: list[Trial] = []
    spared: list[Experiment] = []
    usual: list[float] = []
    total = 0.0
    for experiment in experiments:
        for trial in experiment.trials:
            total += trial.seconds
            if trial.arm is not Arm.SCREEN or trial.result is None:
                continue
            if trial.score is not None:
                usual.append(trial.seconds)
            if STOP_SHARE in trial.result.metrics:
                if trial.result.outcome is Outcome.PRUNE:
                    ended.append(trial)
                else:
                    spared.append(experiment)
    each = sum(usual) / len(usual) if usual else 0.0
    saved = sum(max(each - trial.seconds, 0.0) for trial in ended)
    kept = [e.gain for e in spared if e.kept]
    return Stopping(
        stopped=len(ended),
        seconds_saved=saved,
        share_saved=saved / (total + saved) if total + saved else 0.0,
        spared=len(spared),
        spared_kept=len(kept),
        gains_lost=sum(kept) / len(spared) * len(ended) if spared else None,
    )
