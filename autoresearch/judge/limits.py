"""Limits on a single trial: when it is stopped early, and what resources it may use.

Early stopping ends only gross failures. Early loss misleads (at 40% of training two of nine real edits had
the wrong sign), so a candidate must be worse than the slowest baseline was at less than half its budget. The
rule compares positions on the baseline's own learning curve, so it has no unit. The loss is what the
candidate reports: a lie only spares a bad candidate an early end, and does not touch the score.

Guards are multiples of the baseline's resources that a candidate may not exceed, because the budget does not
price them. Only numbers that the runner measures count. Not covered: time of training (the budget bounds it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.types import Progress

Curve = Sequence[tuple[float, float]]


class Pruner:
    """Says whether a running trial is hopeless. Call it with every sign of life of one trial.

    Args:
        baselines: Curves of (fraction of the budget, training loss), one per baseline run.
        start: Fraction of the budget before which nothing is stopped.
        lag: A trial at fraction f must have passed where the worst baseline was at `lag * f`.
    """

    def __init__(self, baselines: Sequence[Curve], *, start: float = 0.3, lag: float = 0.4) -> None:
        self._curves = [_smooth(curve) for curve in baselines if len(curve) >= 3]
        self._start = start
        self._lag = lag
        self._seen: list[tuple[float, float]] = []
        self._behind = 0

    def __call__(self, progress: Progress) -> bool:
        """Whether to stop now: it diverged, or was far behind the baseline three times in a row."""
        if progress.loss is None:
            return False
        if not math.isfinite(progress.loss):
            return True
        self._seen.append((progress.fraction, progress.loss))
        if progress.fraction < self._start or not self._curves:
            return False
        loss = _smooth(self._seen[-5:])[-1][1]
        bar = max(_at(curve, self._lag * progress.fraction) for curve in self._curves)
        # A single noisy minibatch must not end a trial, so the lag has to last.
        self._behind = self._behind + 1 if loss > bar else 0
        return self._behind >= 3


def _smooth(curve: Curve, width: int = 5) -> list[tuple[float, float]]:
    """Running median over the last `width` points."""
    out = []
    for i, (x, _) in enumerate(curve):
        window = sorted(y for _, y in curve[max(0, i - width + 1) : i + 1])
        out.append((x, window[len(window) // 2]))
    return out


def _at(curve: Curve, x: float) -> float:
    """The curve's value at the last point not beyond x (or its first)."""
    value = curve[0][1]
    for position, loss in curve:
        if position > x:
            break
        value = loss
    return value


@dataclass(frozen=True)
class Guard:
    """A resource that a candidate may not use much more of than the baseline.

    Attributes:
        what: The resource, in words.
        unit: Its unit.
        slack: An excess over the baseline that is always allowed, since it may be chance.
    """

    what: str
    unit: str
    slack: float


GUARDS = {
    "memory_mb": Guard("main memory", "MB", 64.0),
    "weights_mb": Guard("submitted weights", "MB", 1.0),
    "score_seconds": Guard("time of scoring", "s", 5.0),
    "startup_cpu_seconds": Guard("CPU time before the clock starts", "s", 2.0),
}
"""Guarded metric -> the resource that it measures."""
WITHOUT_LOAD = {"score_seconds": ("score_cpu_seconds", 2.0)}
"""Guarded metric -> the same without what other programs add to it, which counts where it is known, and its
slack. Ten honest scorings took 1.34 to 1.63 s of CPU time on a machine with a load of six times its cores."""


def guarded(baseline: Sequence[Mapping[str, float]], factors: Mapping[str, float | None]) -> dict[str, float]:
    """How much a candidate may use of each guarded resource that is known of the baseline.

    Args:
        baseline: What the runner measured in each trial of the starting point.
        factors: See `broken_guard`.

    Returns:
        Guarded metric -> limit.
    """
    found = {}
    for name, guard in GUARDS.items():
        factor, known = factors.get(name), [trial[name] for trial in baseline if name in trial]
        if factor is not None and known:
            found[name] = _most(factor, max(known), guard.slack)
    return found


def _most(factor: float, known: float, slack: float) -> float:
    return max(factor * known, known + slack)


def broken_guard(
    metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]], factors: Mapping[str, float | None]
) -> str:
    """The first guard that a trial breaks, in words; empty if none.

    Args:
        metrics: What the runner measured on the candidate.
        baseline: The same of each trial of the starting point.
        factors: Guarded metric -> largest multiple of the baseline's worst; None switches the guard off.
    """
    for name, guard in GUARDS.items():
        factor, slack = factors.get(name), guard.slack
        exact, least = WITHOUT_LOAD.get(name, (name, slack))
        if all(exact in trial for trial in (metrics, *baseline)):
            name, slack = exact, least
        known = [trial[name] for trial in baseline if name in trial]
        if factor is None or name not in metrics or not known:
            continue
        if metrics[name] > _most(factor, max(known), slack):
            return (
                f"guard: {guard.what} {metrics[name]:.4g} {guard.unit}, more than {factor:g} times the"
                f" baseline's {max(known):.4g} {guard.unit}"
            )
    return ""
