"""How sure a mean difference of two programs is, from the losses of single items, grouped by document.

Two things make the difference uncertain: the seeds that were trained, and the documents that were scored.
Items (pieces of text) of one document gain alike, so whole documents are what was drawn (clusters). What
differs from seed to seed and between documents is part of both; it is counted once (the formula of Cameron,
Gelbach & Miller 2011 for two crossed clusters: seeds + documents - both).

Few documents tell little about how much documents differ. So each part of the variance comes with its degrees
of freedom, and their sum with Satterthwaite's (1946). Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoresearch.judge.noise.spread import Z95, squares, t_from_z

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Losses = Mapping[int, NDArray[np.float64]]
    """Of one program: seed -> loss of each item, float64 [items]."""


@dataclass(frozen=True)
class Variance:
    """An estimated variance.

    Attributes:
        value: In squared score units.
        df: Degrees of freedom of the estimate; infinite if it is exact.
    """

    value: float
    df: float

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.value)

    @property
    def half_width(self) -> float:
        """Half of the 95% interval by Student's t."""
        return self.error * (t_from_z(Z95, self.df) if math.isfinite(self.df) else Z95)


@dataclass(frozen=True)
class Items:
    """What was scored, the same in every run.

    Attributes:
        weights: Weight of each item, above 0, float64 [items]: total loss / total weight is the score.
        documents: Number of the document of each item, int64 [items].
    """

    weights: NDArray[np.float64]
    documents: NDArray[np.int64]


def total(parts: Iterable[Variance]) -> Variance:
    """The variance of a sum of independent parts, with Satterthwaite's degrees of freedom."""
    found = [part for part in parts if part.value > 0]
    value = math.fsum(part.value for part in found)
    unsure = math.fsum((part.value / value) ** 2 / part.df for part in found)
    return Variance(value, 1 / unsure if unsure > 0 else math.inf)


def seed_variance(before: Mapping[int, float], after: Mapping[int, float]) -> Variance:
    """The variance that seeds give the difference of two means of scores.

    Without common seeds it is Welch's (1947); where all seeds are common, that of the mean of the pairs.

    Args:
        before: Score by seed, two or more.
        after: The same of the other program.
    """
    parts = []
    for runs in (before, after):
        ss, df = squares(runs.values())
        parts.append(Variance(ss / df / (df + 1), df))
    if not before.keys() & after.keys():
        return total(parts)
    value = math.fsum(float(x) ** 2 for x in _deviations(before, after))
    return Variance(value, min(part.df for part in parts))


def document_variance(before: Losses, after: Losses, items: Items) -> Variance:
    """The variance that the choice of documents gives the difference of two mean scores, whatever the seeds.

    With two or more runs on a side, what differs from seed to seed is taken out: `seed_variance` has it. From
    single runs it cannot be told apart, and the variance is rather too large.

    Args:
        before: Losses by seed, one run or more.
        after: The same of the other program.
        items: What the losses are of.

    Raises:
        ValueError: If a number is not finite, a weight is not above 0, or lengths differ.
    """
    import numpy as np

    weights = np.asarray(items.weights, np.float64)
    sides = [np.asarray(list(runs.values()), np.float64) for runs in (before, after)]
    if not all(len(side) and side.shape[1:] == weights.shape == items.documents.shape for side in sides):
        raise ValueError("each run needs one loss for each item, and each item a weight and a document")
    if not all(np.isfinite(side).all() for side in (*sides, weights)) or not (weights > 0).all():
        raise ValueError("losses must be finite, and weights finite and above 0")
    rows = np.stack([sides[0].mean(0) - sides[1].mean(0), *_deviations(before, after)])
    rows = (rows - rows.sum(1, keepdims=True) / weights.sum() * weights) / weights.sum()
    whole = _clustered(rows, weights, np.unique(items.documents, return_inverse=True)[1])
    pieces = _clustered(rows, weights, np.arange(len(weights)))
    return max(whole, pieces, key=lambda found: found.value)


def paired_variance(gaps: Sequence[Sequence[float]], weights: Sequence[float]) -> Variance:
    """The variance that the choice of documents gives the mean gap of two programs on common seeds.

    What differs from seed to seed is taken out where there are two or more: it is part of the noise of single
    runs, and averages out. From a single pair it cannot be told apart, and the variance is rather too large.
    The formula is that of `document_variance`, for documents that are known by their contributions.

    Args:
        gaps: What each document contributes to the gap, for each common seed [seeds][documents].
        weights: Share of each document in the weight of all; they sum to 1.
    """
    k, square = len(gaps), math.fsum(w * w for w in weights)
    means = [math.fsum(column) / k for column in zip(*gaps, strict=True)]
    scale = [1 / (1 - 2 * w + square) for w in weights]

    def around(parts: Sequence[float]) -> float:
        level = math.fsum(parts)
        return math.fsum(c * (x - level * w) ** 2 for x, w, c in zip(parts, weights, scale, strict=True))

    value = around(means)
    if k == 1 or value <= 0:
        return Variance(value, len(weights) - 1)
    crossed = math.fsum(around([x - m for x, m in zip(gap, means, strict=True)]) for gap in gaps) / (
        k * (k - 1)
    )
    left = max(0.0, value - crossed)
    return Variance(left, max(1.0, (len(weights) - 1) * (left / value) ** 2))


def _deviations(before: Mapping[int, Any], after: Mapping[int, Any]) -> list[Any]:
    """What each seed adds to the difference of means; a seed that both sides have is one draw.

    The sum of their squares is the variance that the seeds give that difference.
    """
    found: dict[int, Any] = {}
    for sign, runs in ((1, before), (-1, after)):
        n = len(runs)
        mean = sum(runs.values()) / n
        scale = sign / math.sqrt(n * (n - 1)) if n > 1 else 0.0
        for seed, x in runs.items():
            found[seed] = found.get(seed, 0.0) + scale * (x - mean)
    return list(found.values())


def _clustered(
    rows: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> Variance:
    """The variance of a sum over items if groups of them were drawn (clusters).

    The residual of each group is corrected for the mean having been fitted to it (CR2), and the degrees of
    freedom are those of Bell & McCaffrey (2002), for groups that differ equally whatever their size.

    Args:
        rows: Residuals of the items, and below them what each seed adds to these, [1 + seeds, items].
        weights: Of the items.
        groups: Of the items, numbered from 0 without gaps.
    """
    import numpy as np

    share = np.bincount(groups, weights) / weights.sum()
    if len(share) < 2:
        return Variance(0.0, 1.0)
    sums = np.stack([np.bincount(groups, row) for row in rows])
    square = float((share**2).sum())
    correction = 1 / ((1 - share) ** 2 + square - share**2)
    own, *crossed = (sums**2 * correction).sum(1).tolist()
    a = share**2 * correction
    moments = [float((a * share**power).sum()) for power in range(3)]
    trace = moments[0] * (1 + square) - 2 * moments[1]
    off = square**2 * moments[0] ** 2 - 4 * square * moments[0] * moments[1]
    off += 2 * moments[0] * moments[2] + 2 * moments[1] ** 2
    diagonal = float((a**2 * (1 + 2 * (square - 2 * share))).sum())
    return Variance(max(0.0, own - math.fsum(crossed)), max(1.0, trace**2 / (off + diagonal)))
