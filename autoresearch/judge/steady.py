"""Is it the candidate that is better, or has the machine become faster since the incumbent was run?

Both look alike while a candidate is held against old runs. A run of the incumbent beside it tells them apart:
on the same machine it scores as its runs before did, on one that makes all the difference as the candidate.
Invariant: the larger the gain, the surer one run is; free of units. A machine that slows down makes no false
gain, and is noticed by the incumbent's own re-runs (`incumbent`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.noise import Noise, Runs, compare

SAME, MOVED, MOST = -0.5, -2.0, 3
"""Log odds of the incumbent's runs beside a candidate: from the first on the machine is the same; below the
second it is not; between the two more such runs are needed, up to so many. Machines rarely change, so a
single run does not have to prove it; a stricter first bound costs more progress than it saves false keeps."""


def before(incumbent: Incumbent, beside: Collection[int]) -> Runs:
    """The incumbent's runs before the candidate was looked at."""
    return {seed: score for seed, score in incumbent.runs.items() if seed not in beside}


def machine(
    incumbent: Incumbent, beside: Collection[int], runs: Runs, noise: Noise, shift: float
) -> Literal["same", "unclear", "moved"]:
    """Whether the machine is still the one on which the incumbent was run before.

    Args:
        incumbent: All that is known of it.
        beside: Seeds of its runs beside the candidate.
        runs: The candidate's.
        noise: By all that is known.
        shift: What must be added to the candidate's gain for it to be worth keeping.
    """
    if incumbent.failing:
        return "same"  # it will never be known; waiting would end the search
    old = before(incumbent, beside)
    gain = compare(noise, old, runs, correction=incumbent.correction).gain + shift
    mean = incumbent.mean_of(list(old))
    new = [incumbent.runs[seed] for seed in beside]
    odds = math.fsum(gain * (x - mean + gain / 2) for x in new) / noise.variance
    if new and odds >= SAME and not incumbent.suspects:
        return "same"
    if len(new) < MOST:
        return "unclear"
    return "same" if odds > MOVED else "moved"
