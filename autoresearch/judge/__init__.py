"""The judge: decides what is kept, knows how sure that is, and spends as few trials as it can.

`create_judge` makes a judge by name, `bars` asks one what it would keep; `base` says what every judge
promises and how to add one. Everything here is pure: no input or output, no clock, no chance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from autoresearch.errors import UserError
from autoresearch.judge.base import JUDGES, Baseline, Judge, Kept, Report
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm, Estimate, VerdictKind

MAX_RUNS = 100
"""A judge that has not decided after this many trials will not decide."""

NUMBERS = ("float", "int", float, int)
"""Annotations of options that are numbers."""

SCATTER = (0.0, 1.0, -1.0)
"""Luck of the first run, the second, ..., in standard deviations."""

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


@dataclass(frozen=True)
class Bars:
    """What a gain must be, if the candidate's trials show it on average and scatter as usual around it.

    Attributes:
        second_run: A first run with a lower gain ends the candidate; may be negative.
        three_runs: The least gain that is kept after three runs; None if none is.
        ever: The least gain that is kept at all.
    """

    second_run: float
    three_runs: float | None
    ever: float


def bars(state: str, level: float, noise: float) -> Bars | None:
    """What a judge would keep now.

    Args:
        state: The judge as JSON.
        level: The incumbent's score.
        noise: Standard deviation of the score over seeds.

    Returns:
        None if the only candidate is being judged, or no gain is kept. Candidates in flight beside each
        other are left out.
    """
    judge = Judge.from_json(state)
    if judge.places > 1:
        judge.use_places(1)
        judge.hold_keeps(False)
        for number in judge.in_flight:
            judge.withdraw(number)
        state = judge.to_json()
    if noise <= 0 or judge.in_flight or judge.unanswered:
        return None
    ever = _least(lambda gain: _judged(state, level, gain, MAX_RUNS) is True, noise)
    if ever is None:
        return None
    first = _least(lambda gain: _judged(state, level, gain, 1) is not False, noise)
    three = _least(lambda gain: _judged(state, level, gain, 3) is True, noise)
    return Bars(ever if first is None else first, three, ever)


def _least(enough: Callable[[float], bool], noise: float) -> float | None:
    """The least gain that is enough, by bisection; 0 if no gain is needed."""
    low, high = 0.0, noise
    if enough(low):
        return low
    while not enough(high):
        low, high = high, 2 * high
        if high > LARGEST * noise:
            return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _judged(state: str, level: float, gain: float, runs: int) -> bool | None:
    """Whether a candidate with that gain is kept; None if that is open after so many runs of it."""
    judge, done = Judge.from_json(state), 0
    judge.candidate()
    for _ in range(MAX_RUNS):
        request = judge.next()
        if request is None or (request.arm != Arm.INCUMBENT and done == runs):
            return None
        known, scatter = judge.expected(request.seed) or (level, 0.0)
        score = known
        if request.arm != Arm.INCUMBENT:
            score, done = known - gain + SCATTER[done % 3] * scatter, done + 1
        verdict = judge.observe(request, Observation.finished(score))
        if verdict is not None:
            return verdict.kind is VerdictKind.KEEP
    return None


__all__ = [
    "JUDGES",
    "Bars",
    "Baseline",
    "Estimate",
    "Judge",
    "Kept",
    "Observation",
    "Report",
    "TrialRequest",
    "bars",
    "create_judge",
]
