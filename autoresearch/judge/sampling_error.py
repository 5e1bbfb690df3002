"""The sampling error of a data split (tau): how far a difference of two scores would move on other items.

More seeds do not shrink it, so the judge must know it. If it is as large as the noise and is ignored, 500
trials without any gain lead to 16 false keeps. Only this module of the judge draws random numbers (with a
fixed seed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def paired_tau(
    first: Sequence[float] | NDArray[np.floating],
    second: Sequence[float] | NDArray[np.floating],
    sizes: Sequence[float] | NDArray[np.floating],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Standard error of the difference of two candidates' scores over items, by paired bootstrap.

    Items are drawn with replacement, the same for both, and the score is recomputed as the total loss over
    the total size (Efron & Tibshirani 1993, for a ratio of sums).

    Args:
        first: Loss of one candidate, summed over each item [items].
        second: The same for the other candidate, same items in the same order.
        sizes: Weight of each item, such that total loss / total size is the score [items].
        draws: Bootstrap samples.
        seed: Of the bootstrap; the same inputs and seed give the same answer.

    Returns:
        The standard error, in score units.

    Raises:
        ValueError: If lengths differ, there are fewer than two documents, or a number is not finite.
    """
    import numpy as np

    a, b, size = (np.asarray(x, dtype=np.float64) for x in (first, second, sizes))
    if not (a.ndim == 1 and a.shape == b.shape == size.shape and len(a) >= 2):
        raise ValueError("paired losses and sizes must be equally long lists of at least two items")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (size > 0).all() and np.isfinite(size).all()):
        raise ValueError("losses must be finite, and sizes finite and above 0")
    rng = np.random.default_rng(seed)
    n, gap, means = len(a), a - b, []
    for block in range(0, draws, 200):  # 200 draws at a time keep the memory small
        count = min(200, draws - block)
        picks = rng.integers(0, n, (count, n))
        means.append(gap[picks].sum(1) / size[picks].sum(1))
    return float(np.concatenate(means).std(ddof=1))


def replicate_tau(
    losses: Sequence[Sequence[float] | NDArray[np.floating]],
    sizes: Sequence[float] | NDArray[np.floating],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """The sampling error from the baseline's replicates, before there is a candidate to compare with.

    It is the root mean square of `paired_tau` over neighbouring replicates: two seeds of one script differ
    from item to item much as a small change does.

    Args:
        losses: Per-item losses of each replicate [replicates][items], two or more.
        sizes: As in `paired_tau`.
        draws: Bootstrap samples of each pair.
        seed: Of the bootstrap.
    """
    if len(losses) < 2:
        raise ValueError("tau needs the per-item losses of at least two replicates")
    pairs = pairwise(losses)
    taus = [paired_tau(a, b, sizes, draws=draws, seed=seed + i) for i, (a, b) in enumerate(pairs)]
    return math.sqrt(math.fsum(tau**2 for tau in taus) / len(taus))
