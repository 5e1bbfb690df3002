"""The final claim: how much better the tip is than the baseline, on seeds and data the search never used.

Baseline and tip are measured on fresh seeds, interleaved, and scored on the sealed test split once. The claim
is the difference of the means: never the best seed, never the score of the search. Its interval covers the
noise of seeds and the sampling error of the test split. Not covered: running those trials (`finish.claim`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.judge.noise import Z95, squares, t_from_z


@dataclass(frozen=True)
class Claim:
    """The gain of a finished search.

    Attributes:
        effect: Mean test score of the baseline minus that of the tip; positive is better.
        interval: 95% interval of `effect`.
        error: Its standard error, seeds and test split together.
        df: Degrees of freedom of `error`; None if only the split's error counts.
        baseline: Mean test score of the baseline.
        tip: Mean test score of the tip.
        seeds: Trials of the baseline and of the tip.
        sampling: Standard error that the test split adds to the difference.
        overfit: Gain on the validation data, measured by the same trials, minus `effect`; None if not
            measured. Well above 0 it shows how far the search has fitted its validation data.
    """

    effect: float
    interval: tuple[float, float]
    error: float
    df: float | None
    baseline: float
    tip: float
    seeds: tuple[int, int]
    sampling: float
    overfit: float | None = None


def claim(
    baseline: Sequence[float],
    tip: Sequence[float],
    *,
    sampling: float = 0.0,
    validation_gain: float | None = None,
) -> Claim:
    """Compare test scores of the baseline and the tip (Welch 1947, Satterthwaite 1946).

    Args:
        baseline: Test score of each fresh-seed trial of the baseline, two or more.
        tip: The same for the tip.
        sampling: Standard error that the test split adds to the difference, by `paired_tau` over its
            items.
        validation_gain: Mean validation score of the same trials: baseline minus tip.

    Raises:
        ValueError: If there are fewer than two scores on a side, or one is not finite.
    """
    if min(len(baseline), len(tip)) < 2:
        raise ValueError("a claim needs at least two trials of the baseline and two of the tip")
    if not all(math.isfinite(x) for x in (*baseline, *tip, sampling)) or sampling < 0:
        raise ValueError("a claim needs finite scores, and a sampling error >= 0")
    before, after = math.fsum(baseline) / len(baseline), math.fsum(tip) / len(tip)
    parts = [(ss / df / (df + 1), df) for ss, df in (squares(baseline), squares(tip))]
    variance = sum(part for part, _ in parts) + sampling**2
    spread = sum(part**2 / df for part, df in parts)
    df = variance**2 / spread if spread > 0 else None  # JSON has no infinity
    error = math.sqrt(variance)
    half = error * (t_from_z(Z95, df) if df is not None else Z95)
    effect = before - after
    return Claim(
        effect=effect,
        interval=(effect - half, effect + half),
        error=error,
        df=df,
        baseline=before,
        tip=after,
        seeds=(len(baseline), len(tip)),
        sampling=sampling,
        overfit=None if validation_gain is None else validation_gain - effect,
    )
