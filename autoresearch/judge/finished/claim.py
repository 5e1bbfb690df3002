"""The total gain of a finished branch: the claim on fresh seeds, and the whole gain by all runs.

Claim: baseline and tip are measured on fresh seeds, interleaved, and scored on the sealed test split once.
The claim is the difference of the means: never the best seed, never the score of the search. Its interval
covers the noise of seeds and the sampling error of the test split (`noise.documents`).

Not covered: the runs (`finish`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoresearch.judge.noise.documents import Variance, seed_variance, total
from autoresearch.judge.noise.spread import MAX_BETA, Z95, Runs, squares, t_from_z
from autoresearch.types import Estimate, Levels

PRIOR_SINGLES = 3
"""Weight of the prior "runs on the same seed have nothing in common" in the whole gain, in pairs of runs."""


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
    baseline: Mapping[int, float],
    tip: Mapping[int, float],
    *,
    sampling: Variance = Variance(0.0, math.inf),  # noqa: B008  frozen
    validation_gain: float | None = None,
) -> Claim:
    """Compare test scores of the baseline and the tip.

    Args:
        baseline: Test score of the baseline by fresh seed, two or more.
        tip: The same for the tip.
        sampling: What the test split adds to the variance of the difference, by `document_variance`.
        validation_gain: Mean validation score of the same trials: baseline minus tip.

    Raises:
        ValueError: If there are fewer than two scores on a side, or one is not finite.
    """
    if min(len(baseline), len(tip)) < 2:
        raise ValueError("a claim needs at least two trials of the baseline and two of the tip")
    if not all(math.isfinite(x) for x in (*baseline.values(), *tip.values(), sampling.value)):
        raise ValueError("a claim needs finite scores")
    before, after = (math.fsum(runs.values()) / len(runs) for runs in (baseline, tip))
    variance = total([seed_variance(baseline, tip), sampling])
    effect = before - after
    return Claim(
        effect=effect,
        interval=(effect - variance.half_width, effect + variance.half_width),
        error=variance.error,
        df=variance.df if math.isfinite(variance.df) else None,  # JSON has no infinity
        baseline=before,
        tip=after,
        seeds=(len(baseline), len(tip)),
        sampling=sampling.error,
        overfit=None if validation_gain is None else validation_gain - effect,
    )


def whole_gain(start: Runs, tip: Runs, levels: Levels) -> tuple[Estimate, Estimate, float]:
    """How good start and tip are by every run of both, so that their difference is the whole gain.

    The judge compares candidates with the incumbent of the moment; its level of the start rests on the first
    runs alone. Here all runs count, and the luck that runs on common seeds share is taken out: that of the
    seeds that only one side has moves the gain less. The judge's correction for selection stays.

    Args:
        start: Score by seed.
        tip: The same, of the tip. The judge's level of the incumbent rests on these.
        levels: The judge's.

    Returns:
        Start, tip, and half of the 95% interval of their difference.
    """
    variance, n, k = levels.noise**2, len(start), len(tip)
    mean = math.fsum(start.values()) / n
    both = [seed for seed in tip if seed in start]
    ss, pairs = squares(start[seed] - tip[seed] for seed in both)
    spread = (ss + 2 * variance * PRIOR_SINGLES) / (pairs + PRIOR_SINGLES)  # of pairs
    beta = min(max(1 - spread / (2 * variance), 0.0), MAX_BETA) if pairs and variance else 0.0
    left = (1 - beta**2) * variance  # what common seeds leave: too much where they share more than is known
    luck = beta * math.fsum(start[seed] - mean for seed in both) / k  # of the start on the tip's seeds
    own = (len(both) * left + (k - len(both)) * variance) / k**2
    own += (1 - beta * len(both) / k) ** 2 * variance / n
    reach = t_from_z(Z95, levels.freedom)
    rest = 0.0  # what the judge's intervals have beside seeds: documents, selection, changes of the machine
    for level in (levels.baseline, levels.incumbent):
        low, high = level.interval or (level.mean, level.mean)
        rest += max(0.0, ((high - low) / 2 / reach) ** 2 - variance / level.trials)
    half = reach * math.sqrt(own + rest)
    before = replace(levels.baseline, mean=mean, trials=n)
    after = replace(levels.incumbent, mean=levels.incumbent.mean - luck)
    return _moved(before, levels.baseline.mean), _moved(after, levels.incumbent.mean), half


def _moved(level: Estimate, old: float) -> Estimate:
    """The level, whose mean was `old`, with its interval moved along."""
    if level.interval is None:
        return level
    low, high = (end + level.mean - old for end in level.interval)
    return replace(level, interval=(low, high))
