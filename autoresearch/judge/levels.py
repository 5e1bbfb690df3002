"""Where a search stands: the starting point and the incumbent, on the same footing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoresearch.judge.history import gains, scale
from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.noise import Noise, Runs
from autoresearch.judge.report import Kept
from autoresearch.judge.stats import Z95, t_from_z
from autoresearch.types import Estimate, Levels


def levels(
    noise: Noise, baseline: Runs, incumbent: Incumbent, keeps: Sequence[Kept], candidates: int
) -> Levels:
    """Estimates with the luck of selection taken out.

    Args:
        noise: By all that is known.
        baseline: The first incumbent's runs; what changes of the machine have added since is added to them.
        incumbent: The one of now.
        keeps: What was kept so far.
        candidates: Of how many.
    """
    m = len(baseline)
    mean = math.fsum(baseline.values()) / m + incumbent.moved
    half = t_from_z(Z95, noise.df) * math.sqrt(noise.variance / m + incumbent.moved_variance)
    rate = len(gains(keeps)) / max(1, candidates)
    now = incumbent.estimate(noise, rate, scale(keeps, noise.sigma))
    return Levels(Estimate(mean, (mean - half, mean + half), m), now, noise.sigma, noise.df)
