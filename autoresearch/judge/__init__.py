"""The judge: decides what is kept, knows how sure that is, and spends as few trials as it can.

`create_judge` makes a judge by name, `bars` asks one what it would keep; `base` says what every judge
promises and how to add one. Everything here is pure: no input or output, no clock, no chance.
"""

from __future__ import annotations

import inspect

from autoresearch.errors import UserError
from autoresearch.judge.base import JUDGES, Baseline, Judge, Kept, Report
from autoresearch.judge.needed_gain import AskBars, Bars, bars, idle, unknown_bars
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Estimate

NUMBERS = ("float", "int", float, int)
"""Annotations of options that are numbers."""


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


__all__ = [
    "JUDGES",
    "AskBars",
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
    "idle",
    "unknown_bars",
]
