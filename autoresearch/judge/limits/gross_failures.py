"""Stops gross failures early: a run that diverges, or is far behind all baselines.

Early loss misleads (at 40% of training two of nine real edits had the wrong sign), so a candidate must be
worse than the slowest baseline was at less than half its budget. The rule compares positions on the
baseline's own learning curve, so it has no unit. The loss is what the candidate reports: a lie only spares a
bad candidate an early end, and does not touch the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoresearch.types import Progress

Curve = Sequence[tuple[float, float]]
"""(Share of the budget, training loss), in order."""


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
