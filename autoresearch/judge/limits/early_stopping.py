"""Stops a screening run that is hopeless against the incumbent's run on the same seed.

Both runs see the same data in the same order, so the gap between their training losses at the same share of
the budget says early how the scores will differ. How much it says is learned from the finished screening runs
of the same search. At each checkpoint the question is: how large is the gap of a run that will just pass the
judge's first look? It is answered by a regression of the gap on the difference of the scores, in which runs
near that bar count most (a Cauchy kernel, at least as wide as the noise of a score). A run is stopped if its
gap is larger than that of a run that just passes is in 199 of 200 cases, by Student's t (`CHANCE_Z`). A run
that would gain more is stopped even less often. Nothing is stopped until there are enough finished runs, nor
at a checkpoint where the gap is not established to tell enough of the difference: rates that learn faster
often look worse early.

A share of the runs that would be stopped is finished all the same (`SPARED`). It tells what stopping costs,
and counts for the others in the regression (inverse probability weighting), which would be bent without them.

Invariant: the judge's guarantees hold. Only first runs of candidates are stopped, so a stopped candidate is
discarded as hopeless, and no run that a keep rests on is selected. The loss is what the candidate reports: a
lie only spares a bad candidate an early end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoresearch.judge.limits.gross_failures import Curve, Pruner
from autoresearch.judge.noise.spread import t_from_z
from autoresearch.types import Progress

CHECKPOINTS = tuple(round(0.05 * i, 2) for i in range(4, 19))
"""Shares of the budget at which a run may be stopped."""

WINDOW = 0.1
"""Losses are averaged over so much of the budget before a checkpoint."""

SLACK = 0.03
"""A curve may end so much before a checkpoint."""

LEAST_PAIRS, LEAST_NEAR = 12, 6.0
"""Finished screening runs with a loss at a checkpoint, and the effective number of those near the bar, below
which nothing is stopped there."""

LEAST_RELATED, RELATED_Z, CERTAIN = 0.5, 1.65, 0.999999
"""Nothing is stopped at a checkpoint before the correlation of gap and difference near the bar is above 0.5
with 95% confidence (Fisher's z): early losses often mislead. The last number keeps the logarithm finite."""

CHANCE_Z = 2.58
"""A run that just passes has a gap below the bar with a probability of 99.5%: this normal quantile."""

SPARED = 0.1
"""Share of the runs that would be stopped that are finished all the same."""

Bars = tuple[tuple[float, float], ...]
"""(Share of the budget, training loss above which a run is hopeless), in order."""

STOP_SHARE = "stop_share"
"""Metric of a screening run that was stopped, or would have been: at which share of the budget."""


@dataclass(frozen=True)
class Pair:
    """A finished screening run beside the incumbent's run on the same seed.

    Attributes:
        gaps: Checkpoint -> training loss of the candidate less that of the incumbent.
        difference: Loss by the score of the candidate less that of the incumbent.
        weight: How many runs it stands for: more than one if it was spared.
    """

    gaps: Mapping[float, float]
    difference: float
    weight: float = 1.0


def pair(candidate: Curve, incumbent: Curve, difference: float, weight: float = 1.0) -> Pair:
    """Compare two curves at every checkpoint that both have reached."""
    both = {at: (loss_at(candidate, at), loss_at(incumbent, at)) for at in CHECKPOINTS}
    known = {at: a - b for at, (a, b) in both.items() if a is not None and b is not None}
    return Pair(known, difference, weight)


def loss_at(curve: Curve, at: float) -> float | None:
    """The mean loss over the window before a checkpoint; None if the curve does not reach it.

    A point is the mean loss since the point before, as the harness reports it, so the mean over a window
    hardly depends on where the points lie.
    """
    if not curve or curve[-1][0] < at - SLACK:
        return None
    begin, end, total, weight = at - WINDOW, min(at, curve[-1][0]), 0.0, 0.0
    last = 0.0
    for share, loss in curve:
        part = min(share, end) - max(last, begin)
        if part > 0:
            total, weight = total + part * loss, weight + part
        last = share
    return total / weight if weight > 0 and math.isfinite(total) else None


def stop_bars(pairs: Sequence[Pair], incumbent: Curve, needed: float, noise: float) -> Bars:
    """Above which training loss a screening run is hopeless.

    Args:
        pairs: Finished screening runs of the search.
        incumbent: Training curve of the incumbent on the seed of the run.
        needed: The gain that the judge wants to see in a first run.
        noise: Standard deviation of a score from seed to seed.

    Returns:
        Empty if nothing is known yet.
    """
    found = []
    for at in CHECKPOINTS:
        known = [(p.gaps[at], p.difference + needed, p.weight) for p in pairs if at in p.gaps]
        gap, here = hopeless_gap(known, noise), loss_at(incumbent, at)
        if gap is not None and here is not None:
            found.append((at, here + gap))
    return tuple(found)


def hopeless_gap(known: Sequence[tuple[float, float, float]], noise: float) -> float | None:
    """The gap that a run which just passes exceeds in one of 200 cases; None if that is not known.

    Args:
        known: Of finished runs: the gap, by how much the difference of the scores misses what is needed
            (negative if it passes), and how many runs it stands for.
        noise: Standard deviation of a score.
    """
    import numpy as np

    if len(known) < LEAST_PAIRS or noise <= 0:
        return None
    gaps, missed, weights = np.array(known).T  # up to 500 of them, at each checkpoint of each experiment
    width = max(noise, float(np.median(np.abs(missed))))
    weights = weights / (1 + (missed / width) ** 2)
    total = float(weights.sum())
    near = total**2 / float((weights**2).sum())
    if near < LEAST_NEAR:
        return None
    middle, height = float(weights @ missed) / total, float(weights @ gaps) / total
    x, y = gaps - height, missed - middle
    spread, across = float(weights @ y**2), float(weights @ x**2)
    if spread <= 0 or across <= 0:
        return None
    slope = float(weights @ (x * y)) / spread
    related = min(slope * math.sqrt(spread / across), CERTAIN)
    if math.atanh(max(related, -CERTAIN)) < math.atanh(LEAST_RELATED) + RELATED_Z / math.sqrt(near - 3):
        return None  # it is not established that the gap says enough
    rest = float(weights @ (x - slope * y) ** 2) / total * near / (near - 2)
    error = math.sqrt(rest * (1 + 1 / near + middle**2 * total / (spread * near)))
    return height - slope * middle + t_from_z(CHANCE_Z, near - 2) * error


class EarlyStop:
    """Says whether to stop a running trial. Call it with every sign of life.

    Args:
        reference: Curves of the baseline, for `Pruner`; empty: without it.
        bars: From `stop_bars`; empty: nothing is stopped against the incumbent.
        spare: Whether a run that is above a bar is finished all the same.

    Attributes:
        share: Share of the budget at which the run was above a bar; None if it never was.
    """

    def __init__(self, reference: Sequence[Curve], bars: Bars = (), spare: bool = False) -> None:
        self._gross = Pruner(reference) if reference else None
        self._bars = list(bars)
        self._spare = spare
        self._seen: list[tuple[float, float]] = []
        self.share: float | None = None

    def __call__(self, progress: Progress) -> bool:
        """Whether to stop now."""
        if self._gross is not None and self._gross(progress):
            return True
        if progress.loss is None:
            return False
        if not self._seen or progress.fraction > self._seen[-1][0]:
            self._seen.append((progress.fraction, progress.loss))
        while self._bars and self._bars[0][0] <= progress.fraction and self.share is None:
            at, bar = self._bars.pop(0)
            loss = loss_at(self._seen, at)
            if loss is not None and loss > bar:
                self.share = progress.fraction
                return not self._spare
        return False
