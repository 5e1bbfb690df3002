"""What counts as a win, as the judge of a search itself says: found out by asking it.

Invariant: the judge is a copy, and nothing of it is kept; what it would decide is not computed anywhere else.
"""

from __future__ import annotations

from autoresearch.judge import Judge
from autoresearch.types import VerdictKind

MAX_RUNS = 100
"""After so many trainings a judge that has not decided will not."""

LARGEST, STEPS = 64.0, 7
"""The largest gain that is asked for, in standard deviations of the noise; halvings of the interval."""


def least_gain(state: str, level: float, noise: float) -> float | None:
    """The least gain that is kept if every training shows just that.

    Args:
        state: The judge as JSON.
        level: The incumbent's score.
        noise: Standard deviation of the score over seeds.

    Returns:
        None if that cannot be said now: a candidate is being judged, or no gain is kept.
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
        want = judge.next()
        if want is None:
            return False
        verdict = judge.observe(want, level if want.arm == "incumbent" else level - gain)
        if verdict is not None:
            return verdict.kind is VerdictKind.KEEP
    return False
