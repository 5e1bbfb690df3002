"""The audit of a finished branch: which of its kept changes does the evidence still support?

Every kept change has a gain by the search's own reckoning, and a doubt. Trainings of the stack with random
sets of changes left out (a factorial design: each run informs on all changes at once) are added to that by a
Bayesian linear model; what remains doubtful is named for removal, until the expected share of false keeps is
small. Assumption: gains add up. Not covered: the trainings, and which changes can be left out at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoresearch.judge.report import Kept
from autoresearch.judge.stats import Z95, phi

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PRIOR_DOUBT = 0.3
"""Of a keep whose judge does not reckon doubts: about a third of what a greedy one keeps is not real."""

VAGUE = 100.0
"""Standard deviation of the starting point's score before the audit, in standard deviations of the noise."""


@dataclass(frozen=True)
class Audited:
    """One kept change after the audit.

    Attributes:
        effect: Its gain if it has one; positive is better.
        interval: 95% interval of that.
        doubt: Probability that it gains nothing, or does harm.
    """

    effect: float
    interval: tuple[float, float]
    doubt: float


def audit(keeps: Sequence[Kept], runs: Sequence[tuple[Sequence[bool], float]], noise: float) -> list[Audited]:
    """Add the audit's runs to what the search knew.

    The gain of each change is normal around what the search measured, shrunk, or nothing at all with the
    doubt that the search left. The runs update the first by linear regression, and the second by the density
    at zero before and after (Savage-Dickey, Dickey 1971).

    Args:
        keeps: The kept changes as the judge reports them, in order.
        runs: For each run, which of them were present, and its score.
        noise: Standard deviation of a score from seed to seed.

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
    means, deviations = _regress(centres, errors, runs, noise)
    return [
        _audited(keep, (centres[i], errors[i]), (means[i], deviations[i])) for i, keep in enumerate(keeps)
    ]


def doubtful(audited: Sequence[Audited], share: float = 0.03) -> list[int]:
    """Which changes to take out, the most doubtful first, until the expected share of false ones is small.

    Args:
        audited: All kept changes.
        share: Largest expected share of false keeps among those that stay.
    """
    order = sorted(range(len(audited)), key=lambda i: -audited[i].doubt)
    removed: list[int] = []
    while len(removed) < len(order):
        rest = order[len(removed) :]
        if sum(audited[i].doubt for i in rest) / len(rest) <= share:
            break
        removed.append(order[len(removed)])
    return removed


def _error(keep: Kept, noise: float) -> float:
    return max(keep.error or math.sqrt(2) * noise, 1e-3 * noise)


def _centre(keep: Kept, error: float) -> float:
    """The gain without the luck of selection; half of it where the judge does not reckon that."""
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
    prior = np.concatenate([[1 / (VAGUE * noise + 100 * abs(centres).sum()) ** 2], errors**-2.0])
    target = prior * np.concatenate([[0.0], centres]) + design.T @ (scores - level) / noise**2
    covariance = np.linalg.inv(np.diag(prior) + design.T @ design / noise**2)
    return (covariance @ target)[1:], np.sqrt(np.diag(covariance))[1:]


def _audited(keep: Kept, before: tuple[float, float], after: tuple[float, float]) -> Audited:
    (mean, error), (found, deviation) = before, after
    doubt = min(max(keep.doubt if keep.doubt is not None else PRIOR_DOUBT, 1e-9), 1 - 1e-9)
    at_zero = 0.5 * ((mean / error) ** 2 - (found / deviation) ** 2) + math.log(error / deviation)
    odds = math.exp(min(700.0, math.log(doubt / (1 - doubt)) + at_zero))
    nothing = odds / (1 + odds)
    harm = (1 - nothing) * phi(-found / deviation)
    reach = Z95 * deviation
    return Audited(float(found), (float(found - reach), float(found + reach)), float(nothing + harm))
