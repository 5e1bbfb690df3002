"""The judge: decides what is kept, knows how sure that is, and spends as few trials as it can.

`create_judge` makes a judge by name, `least_gain` asks one what it would keep; `base` says what every judge
promises and how to add one. Everything here is pure (no input or output, no clock), except that the bootstrap
of `noise` draws samples with a fixed seed.
"""

from __future__ import annotations

import inspect

from autoresearch.errors import UserError
from autoresearch.judge.base import JUDGES, Baseline, Judge, Kept, Report
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm, Estimate, VerdictKind

MAX_RUNS = 100
"""A judge that has not decided after this many trials will not decide."""

NUMBERS = ("float", "int", float, int)
"""Annotations of options that are numbers."""

LARGEST, STEPS = 64.0, 7
"""The largest gain that is tried, in standard deviations of the noise; bisection steps."""


def create_judge(name: str, baseline: Baseline, tau: float = 0.0, **options: float) -> Judge:
    """Make a judge.

    Args:
        name: "default", "strict", "threshold", "greedy", or one that another package registers.
        baseline: (seed, score) of each replicate of the starting point, seeds all different. "default" and
            "strict" need two or more; "threshold" asks for a second one itself; "greedy" needs one.
        tau: Standard error that the validation set adds to any difference, in score units.
        options: See the judge's class.

    Raises:
        UserError: If there is no such judge, or it has no such option.
        ValueError: If the baseline is too small, failed, or repeats a seed, or a value is out of range.
    """
    kind = JUDGES.load(name)
    for option, parameter in inspect.signature(kind).parameters.items():
        value = options.get(option, 0.0)
        if parameter.annotation in NUMBERS and (
            isinstance(value, bool) or not isinstance(value, int | float)
        ):
            raise UserError(f"judge.{option} must be a number, not {value!r}.", "See configs/judge/.")
    try:
        judge: Judge = kind(baseline, tau, **options)
    except TypeError as error:
        raise UserError(f"The judge {name!r}: {error}.", "See configs/judge/ for its options.") from error
    if judge.name != name:  # a search is resumed by the name that the judge's state holds
        raise UserError(
            f"The judge registered as {name!r} calls itself {judge.name!r}; the names must be the same."
        )
    return judge


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


__all__ = [
    "JUDGES",
    "Baseline",
    "Estimate",
    "Judge",
    "Kept",
    "Observation",
    "Report",
    "TrialRequest",
    "create_judge",
    "least_gain",
]
