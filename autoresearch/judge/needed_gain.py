"""What a judge would keep now: asked of the judge itself, with imagined candidates of known gains.

A rule with several numbers has no formula for its bars. An imagined candidate scores what the judge expects
of the incumbent on the same seed, less its gain, and scatters as usual.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from autoresearch.judge.base import Judge
from autoresearch.judge.requests import Observation
from autoresearch.types import Arm, VerdictKind

MAX_RUNS = 100
"""A judge that has not decided after this many trials will not decide."""

SCATTER = (0.0, 1.0, -1.0)
"""Luck of the first run, the second, ..., in standard deviations."""

LARGEST, STEPS = 64.0, 6
"""The largest gain that is tried, in noise units; bisection steps, which find a bar to about a percent."""


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


AskBars = Callable[[], Bars | None]
"""Computes what a judge would keep, as it was when this was made."""


def unknown_bars() -> Bars | None:
    """What a gain must be where no judge says it: that is not known."""
    return None


def idle(state: str) -> Judge | None:
    """The judge that JSON holds, with nothing in flight; None if its only candidate is being judged.

    Candidates in flight beside each other are left out.
    """
    judge = Judge.from_json(state)
    judge.hold_keeps(False)  # nobody would pass what is imagined
    if judge.places > 1:
        judge.use_places(1)
        for number in judge.in_flight:
            judge.withdraw(number)
    return None if judge.in_flight or judge.unanswered else judge


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
    judge = idle(state)
    if noise <= 0 or judge is None:
        return None
    imagined: dict[float, _Imagined] = {}
    copied = pickle.dumps(judge)  # after hundreds of keeps JSON takes five times as long

    def judged(gain: float, runs: int) -> bool | None:
        if gain not in imagined:
            imagined[gain] = _Imagined(pickle.loads(copied), level, gain)
        return imagined[gain].kept_after(runs)

    first = _least(lambda gain: judged(gain, 1) is not False, noise)
    three = _least(lambda gain: judged(gain, 3) is True, noise)
    ever = _least(lambda gain: judged(gain, MAX_RUNS) is True, noise)
    return None if ever is None else Bars(ever if first is None else first, three, ever)


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


class _Imagined:
    """A candidate with a given gain, as far as it has been judged."""

    def __init__(self, judge: Judge, level: float, gain: float) -> None:
        self._judge, self._level, self._gain = judge, level, gain
        self._judge.candidate()
        self._trials = self._runs = 0
        self._request = self._judge.next()
        self._kept: bool | None = None

    def kept_after(self, runs: int) -> bool | None:
        """Whether it is kept; None if that is open after so many runs of it. `runs` never falls."""
        while self._kept is None and (request := self._request) is not None and self._trials < MAX_RUNS:
            if request.arm != Arm.INCUMBENT and self._runs == runs:
                break
            self._trials += 1
            score, scatter = self._judge.expected(request.seed) or (self._level, 0.0)
            if request.arm != Arm.INCUMBENT:
                score += SCATTER[self._runs % 3] * scatter - self._gain
                self._runs += 1
            verdict = self._judge.observe(request, Observation.finished(score))
            if verdict is None:
                self._request = self._judge.next()
            else:
                self._kept = verdict.kind is VerdictKind.KEEP
        return self._kept
