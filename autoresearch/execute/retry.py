"""Repeats a trial that the machine spoiled, so that its result is never judged.

Decides how often, and after which pauses. Another user of the GPU may finish within minutes, and heat passes.
While other programs leave no room on the machine, the trial waits, and the search with it. A fault that does
not pass ends the search with a message that says how to repair it. Not covered: what spoils a trial
(`health`, `load`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from autoresearch.errors import UserError
from autoresearch.execute.base import OnProgress
from autoresearch.execute.health import Health, Watch
from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.types import WAITING, Measurement, Outcome, Progress

PAUSES = (0.0, 60.0, 300.0, 900.0)
"""Seconds before the first repetition, the second, ..."""
SIGN = 1.0
"""Seconds between two calls of `progress` in a pause; it may raise, which ends the pause."""

_BUSY = (
    "End what else computes here, or raise budget.slowdown, budget.max_seconds or budget.score_seconds: they "
    "may change while a search goes on. The same command goes on."
)
_HINT = (
    "See what nvidia-smi says: end the processes that share the GPU, let it cool, or choose another "
    "(executor.devices). Only a budget of seconds depends on its speed. The same command goes on."
)


def watch_gpu(
    health: Health, attempt: Callable[[OnProgress], Measurement], progress: OnProgress
) -> tuple[Measurement, str]:
    """Run a trial once while the GPU is watched.

    Args:
        health: Reads the GPU.
        attempt: Runs the trial; its argument is called with the progress.
        progress: Called with the progress.

    Returns:
        The result, and why the GPU made it worthless; empty if it did not.

    Raises:
        UserError: If the GPU has stopped answering.
    """

    def seen(sign: Progress) -> None:
        if sign.phase == "train":
            watch.begin()
        elif sign.phase == "score":
            watch.end()
        progress(sign)

    with Watch(health) as watch:
        result = attempt(seen)
    crashed = result.outcome is Outcome.CRASH
    if crashed or watch.lost:
        # A lost GPU kills its users within milliseconds, mostly between two readings.
        watch.read()
    spoiled = watch.problem or (watch.lost if crashed else "")
    return replace(result, metrics={**result.metrics, **watch.metrics}), spoiled


def repeat_spoiled(
    attempt: Callable[[], tuple[Measurement, str]],
    *,
    timed: bool,
    say: Callable[[str], None],
    progress: OnProgress,
    busy: Callable[[], str] = lambda: "",
) -> Measurement:
    """Run a trial until the machine does not spoil it, and return that result.

    Args:
        attempt: Runs the trial; returns a result, and why it is worthless (empty if it is not).
        timed: Whether the budget is of seconds. If not, a slow GPU changes no score: the trial is repeated
            once to be sure, and the result counts unless it crashed.
        say: Tells a person something.
        progress: Called now and then in a pause; an exception ends the pause.
        busy: Says what other programs do while they leave no room; else empty.

    Returns:
        The result, with the phases of all attempts; the metrics say how often it was "repeated".

    Raises:
        UserError: If the machine spoils every attempt.
    """
    result, spoiled = attempt()
    phases = result.phases
    for repeated, pause in enumerate(PAUSES, start=1):
        if not spoiled:
            break
        if now := busy():
            say(f"A trial does not count: {spoiled}. The search pauses until the machine has room: {now}.")
            while now := busy():
                _wait(SIGN, progress, now)
            say("The machine has room again. The trial is repeated.")
        else:
            when = f"in {pause:g} s" if pause else "now"
            say(f"A trial does not count: {spoiled}. It is repeated {when}.")
            _wait(pause, progress, spoiled)
        result, spoiled = attempt()
        phases = (*phases, *result.phases)
        result = replace(result, metrics={**result.metrics, "repeated": float(repeated)})
        if not timed and result.outcome is not Outcome.CRASH and classify(result.reason) != TIMEOUT:
            spoiled = ""
    if spoiled:
        hint = _BUSY if classify(result.reason) == TIMEOUT else _HINT
        raise UserError(f"{len(PAUSES) + 1} times in a row a trial did not count: {spoiled}.", hint, code=3)
    return replace(result, phases=phases)


def _wait(seconds: float, progress: OnProgress, why: str) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        progress(Progress(0.0, 0.0, phase=WAITING, note=why))
        time.sleep(min(SIGN, left))
