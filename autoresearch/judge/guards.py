"""Whether a change that is to be kept loses on further metrics: the guards of a search.

Each guard is compared between the runs of the candidate and of the incumbent, with the noise from seed to
seed and, where there are losses of single items, that of the documents (`documents`). The intervals are
widened for the number of guards (Bonferroni), so that of forty changes that harm nothing one is called a
loser, however many guards there are. Not covered: what is done about a loss (`search.checks.guards`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING

from autoresearch.judge.noise.documents import Items, Variance, document_variance, seed_variance, total
from autoresearch.judge.noise.spread import squares, t_from_z
from autoresearch.types import GuardGain, GuardMetric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPREAD = GuardMetric("seeds", "spread of the score from seed to seed (logarithm)", "")
"""The guard that needs no measurement of its own: how much the score depends on the seed."""

LEAST_RUNS = 2
"""Runs on each side without which the noise is not known."""


@dataclass(frozen=True)
class GuardRun:
    """What one run says of the guards.

    Attributes:
        seed: Its seed.
        loss: The deciding metric, as a loss.
        values: Name of a metric -> its value.
        tables: Name of a guard -> loss, weight and document of each item, float64 [items, 3].
    """

    seed: int
    loss: float
    values: Mapping[str, float]
    tables: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def weigh(
    guards: Sequence[GuardMetric], before: Sequence[GuardRun], after: Sequence[GuardRun]
) -> tuple[GuardGain, ...]:
    """What a change does to each guard.

    Args:
        guards: The guards.
        before: Runs of the incumbent, each with another seed.
        after: Runs of the candidate.
    """
    z = NormalDist().inv_cdf(1 - 0.025 / max(1, len(guards)))
    return tuple(_weighed(guard, before, after, z) for guard in guards)


def _weighed(
    guard: GuardMetric, before: Sequence[GuardRun], after: Sequence[GuardRun], z: float
) -> GuardGain:
    if guard.name == SPREAD.name:
        return _spread(guard.margin, before, after, z)
    sides = [[run for run in runs if guard.metric in run.values] for runs in (before, after)]
    if min(map(len, sides)) < LEAST_RUNS:
        return GuardGain(guard.name, runs=len(sides[1]))
    values = [{run.seed: guard.sign * run.values[guard.metric] for run in side} for side in sides]
    level = fmean(values[0].values())
    gain = level - fmean(values[1].values())
    parts = [seed_variance(values[0], values[1])]
    if guard.items and (documents := _documents(guard, sides)) is not None:
        parts.append(documents)
    return _judged(guard, gain, total(parts), len(values[1]), z, guard.margin * abs(level))


def _judged(
    guard: GuardMetric, gain: float, variance: Variance, runs: int, z: float, margin: float
) -> GuardGain:
    half = variance.error * (t_from_z(z, variance.df) if math.isfinite(variance.df) else z)
    return GuardGain(guard.name, gain, (gain - half, gain + half), runs, gain + half < -margin)


def _documents(guard: GuardMetric, sides: Sequence[Sequence[GuardRun]]) -> Variance | None:
    """What the choice of documents adds to the variance; None if the runs have no common items."""
    import numpy as np

    tables = [
        {run.seed: run.tables[guard.name] for run in side if guard.name in run.tables} for side in sides
    ]
    first = next(iter(tables[1].values()), None)
    if first is None or not tables[0]:
        return None
    same = (np.array_equal(t[:, 1:], first[:, 1:]) for side in tables for t in side.values())
    if not all(same):
        return None
    losses = [{seed: guard.sign * table[:, 0] for seed, table in side.items()} for side in tables]
    return document_variance(losses[0], losses[1], Items(first[:, 1], first[:, 2].astype(np.int64)))


def _spread(margin: float, before: Sequence[GuardRun], after: Sequence[GuardRun], z: float) -> GuardGain:
    """The gain in the logarithm of the standard deviation; its error is that of two chi-square variables."""
    sums = [squares(run.loss for run in runs) for runs in (before, after)]
    if any(not ss or df < LEAST_RUNS for ss, df in sums):
        return GuardGain(SPREAD.name, runs=len(after))
    logs = [math.log(ss / df) / 2 for ss, df in sums]
    error = math.sqrt(math.fsum(_trigamma(df / 2) for _, df in sums)) / 2
    gain = logs[0] - logs[1]
    return _judged(SPREAD, gain, Variance(error**2, math.inf), len(after), z, margin)


def _trigamma(x: float) -> float:
    """The second derivative of the logarithm of the gamma function, for x > 0."""
    early = 0.0
    while x < 6:
        early, x = early + 1 / x**2, x + 1
    return early + 1 / x + 1 / (2 * x**2) + 1 / (6 * x**3) - 1 / (30 * x**5)
