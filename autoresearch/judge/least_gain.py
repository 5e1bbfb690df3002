"""The least gain that a judge would keep, found by asking copies of the judge.

No other code computes what a judge would decide, and the judge itself is not changed.
"""

from __future__ import annotations

from autoresearch.judge.base import Judge
from autoresearch.judge.requests import Observation
from autoresearch.types import Arm, VerdictKind

MAX_RUNS = 100
"""A judge that has not decided after this many trials will not decide."""

LARGEST, STEPS = 64.0, 7
"""The largest gain that is tried, in standard deviations of the noise; bisection steps."""


def least_gain(state: str, level: float, noise: float) -> float | None:
    """The least gain that is kept if every trial shows exactly that gain.

    Args:
        state: The judge as JSON.
        level: The incumbent's score.
        noise: Standard deviation of the score over seeds.

    Returns:
        None if a candidate is being judged, or no gain is kept.
    """
    if noise <= 0 or Judge.from_json(state).unanswered:
        return None
    low, high = 0.0, noise
    while not _kept(state, level, high):
        low, high = high, 2 * high
        if high > LARGEST * noise:
            return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if _kept(state, level, middle) else (middle, high)
    return high


def _kept(state: str, level: float, gain: float) -> bool:
    judge = Judge.from_json(state)
    judge.candidate()
    for _ in range(MAX_RUNS):
        request = judge.next()
        if request is None:
            return False
        score = level if request.arm == Arm.INCUMBENT else level - gain
        verdict = judge.observe(request, Observation.finished(score))
        if verdict is not None:
            return verdict.kind is VerdictKind.KEEP
    return False
