"""Which changes of a finished branch stay: the audit.

The search has estimated the gain of every kept change, and the probability that there is none. The audit adds
runs of the branch with random sets of changes left out (a factorial design: each run informs on all changes
at once), by a Bayesian linear model. The most doubtful changes are named for removal, until the expected
share of false keeps is small. A simplification was not kept for a gain: its doubt is that it loses more than
its margin, and it does not count in that share. Assumption: gains add up.

Not covered: the runs, and which changes can be left out at all (`finish`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoresearch.judge.base import Kept
from autoresearch.judge.noise.spread import Z95, phi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PRIOR_DOUBT = 0.3
"""Doubt of a keep whose judge does not estimate it: about a third of what a greedy judge keeps is not
real."""

SHARE = 0.03
"""Largest expected share of false keeps among the changes that stay."""

HARMFUL = 0.5
"""A simplification is removed if the probability that it loses more than its margin is larger than this."""

PRIOR_SPREAD = 100.0
"""Standard deviation of the starting point's score before the audit, in standard deviations of the noise."""


@dataclass(frozen=True)
class Audited:
    """One kept change after the audit.

    Attributes:
        effect: Its gain if it has one; positive is better.
        interval: 95% interval of that.
        doubt: Probability that it gains nothing, or does harm; of a simplification, that it loses more than
            the margin it was kept within.
        simplification: Kept because it removes code.
    """

    effect: float
    interval: tuple[float, float]
    doubt: float
    simplification: bool = False


def audit(
    keeps: Sequence[Kept], runs: Sequence[tuple[Sequence[bool], float]], noise: float, tau: float = 0.0
) -> list[Audited]:
    """Combine the audit's runs with what the search measured.

    A priori the gain of each change is 0 with the probability `doubt` of the search, and otherwise normal
    around the shrunk gain that the search measured. The runs update the normal part by linear regression, and
    the doubt by the density at zero before and after (Savage-Dickey, Dickey 1971).

    Args:
        keeps: The kept changes as the judge reports them, in order.
        runs: For each run, which of them were present, and its score.
        noise: Standard deviation of a score from seed to seed.
        tau: Standard error that the validation set adds to any difference. Search and audit share the set,
            so more runs do not reduce it.

    Raises:
        ValueError: If a run does not say of each change whether it was present, or the noise is not known.
    """
    import numpy as np

    if not (math.isfinite(noise) and noise > 0):
        raise ValueError("an audit needs a search whose noise is known")
    if any(len(present) != len(keeps) for present, _ in runs):
        raise ValueError("each run must say of each kept change whether it was present")
    if not keeps:
        return []
    errors = np.array([_error(keep, noise) for keep in keeps])
    centres = np.array([_centre(keep, error) for keep, error in zip(keeps, errors, strict=True)])
    own = np.sqrt(np.maximum(errors**2 - tau**2, (1e-3 * noise) ** 2))  # the part that more runs reduce
    means, deviations = _regress(centres, own, runs, noise)
    deviations = np.hypot(deviations, np.sqrt(errors**2 - own**2))
    return [
        _audited(keep, (centres[i], errors[i]), (means[i], deviations[i])) for i, keep in enumerate(keeps)
    ]


def doubtful(
    audited: Sequence[Audited], share: float = SHARE, separable: Sequence[bool] | None = None
) -> list[int]:
    """Which changes to take out, the most doubtful first, until the expected share of false ones is small.

    Args:
        audited: All kept changes.
        share: Largest expected share of false keeps among those that stay. It is not reached if too many
            doubtful ones cannot be taken out (see `false_share`).
        separable: Which of them can be taken out; None: all.
    """
    free = [i for i in range(len(audited)) if separable is None or separable[i]]
    removed = [i for i in free if audited[i].simplification and audited[i].doubt > HARMFUL]
    for i in sorted(free, key=lambda i: -audited[i].doubt):
        if false_share(audited, removed) <= share or audited[i].doubt <= share:
            break  # in the second case removing it would only raise the share among those that stay
        if not audited[i].simplification:
            removed.append(i)
    return removed


def false_share(audited: Sequence[Audited], removed: Collection[int]) -> float:
    """Expected share of false ones among the gains that stay."""
    doubts = [a.doubt for i, a in enumerate(audited) if i not in removed and not a.simplification]
    return math.fsum(doubts) / max(1, len(doubts))


def _error(keep: Kept, noise: float) -> float:
    return max(keep.error or math.sqrt(2) * noise, 1e-3 * noise)


def _centre(keep: Kept, error: float) -> float:
    """The gain without selection bias; half of it where the judge does not estimate that."""
    return keep.shrunk if keep.shrunk is not None else max(keep.effect, error) / 2


def _regress(
    centres: NDArray[np.float64],
    errors: NDArray[np.float64],
    runs: Sequence[tuple[Sequence[bool], float]],
    noise: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posterior mean and standard deviation of each gain: score = start - sum of present gains + noise."""
    import numpy as np

    count = len(centres)
    design = np.array([[1.0, *(-float(p) for p in present)] for present, _ in runs]).reshape(-1, count + 1)
    scores = np.array([score for _, score in runs])
    level = float(scores.mean()) if len(scores) else 0.0  # only to keep the numbers small
    prior = np.concatenate([[1 / (PRIOR_SPREAD * noise + 100 * abs(centres).sum()) ** 2], errors**-2.0])
    target = prior * np.concatenate([[0.0], centres]) + design.T @ (scores - level) / noise**2
    covariance = np.linalg.inv(np.diag(prior) + design.T @ design / noise**2)
    return (covariance @ target)[1:], np.sqrt(np.diag(covariance))[1:]


def _audited(keep: Kept, before: tuple[float, float], after: tuple[float, float]) -> Audited:
    (mean, error), (found, deviation) = before, after
    reach = Z95 * deviation
    interval = (float(found - reach), float(found + reach))
    if keep.simplification:
        return Audited(float(found), interval, phi(-(found + keep.margin) / deviation), True)
    doubt = min(max(keep.doubt if keep.doubt is not None else PRIOR_DOUBT, 1e-9), 1 - 1e-9)
    at_zero = 0.5 * ((mean / error) ** 2 - (found / deviation) ** 2) + math.log(error / deviation)
    odds = math.exp(min(700.0, math.log(doubt / (1 - doubt)) + at_zero))
    nothing = odds / (1 + odds)
    harm = (1 - nothing) * phi(-found / deviation)
    return Audited(float(found), interval, float(nothing + harm))
