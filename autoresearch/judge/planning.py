"""Which trials confirm a candidate: runs of it, and of the incumbent to stay ahead of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from autoresearch.judge.incumbent import Incumbent
from autoresearch.judge.noise import Runs
from autoresearch.judge.orders import Plan
from autoresearch.types import Arm

Wish = Literal["", "look", "check"]
"""What a candidate that would be kept waits for: a closer look at it, or a run of the incumbent beside it."""

LOOKAHEAD = 2
"""Candidate runs planned at a time, so that free devices have something to do."""


def confirmation(incumbent: Incumbent, runs: Runs, wish: Wish, seed: Callable[[], int]) -> list[Plan]:
    """The next trials of a candidate that has passed its screening.

    Args:
        incumbent: Whose seeds the candidate uses, so that both share their luck.
        runs: The candidate's so far.
        wish: What it waits for.
        seed: Gives a seed that was not used before.
    """
    if wish == "check" or incumbent.suspects:
        return [(Arm.INCUMBENT, seed())]
    free = [known for known in incumbent.runs if known not in runs]
    if wish == "look":
        return [(Arm.CONFIRM, free.pop() if free else seed(), True)]
    trials: list[Plan] = []
    n = len(incumbent.runs)
    for k in range(len(runs), len(runs) + LOOKAHEAD):
        if n < k + 1 and not incumbent.failing:
            free.append(seed())
            trials.append((Arm.INCUMBENT, free[-1]))
            n += 1
        trials.append((Arm.CONFIRM, free.pop() if free else seed()))
    return trials
