"""The search as plain lines, one for each event, for logs and pipes: no control characters, no redrawing.

A view never fails the search: what cannot be written is not shown.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, Self, TextIO

from autoresearch.report.terminal import SearchDisplay, VerdictLine, trial_name, trial_state
from autoresearch.text import duration, one_line, spelled
from autoresearch.types import Experiment, Progress, Trial

P = ParamSpec("P")


def never_raises(method: Callable[P, Any]) -> Callable[P, None]:
    """Make a method of a view ignore errors: a closed pipe must not end a night's search."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            return

    return call


class BaseView:
    """Keeps a display up to date, and shows nothing. Views show it, or override what they print."""

    def __init__(self, display: SearchDisplay) -> None:
        self.display = display
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @never_raises
    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""
        with self._lock:
            self._message(self.display.message(text, warning), warning)

    @never_raises
    def proposing(self, number: int, proposer: str) -> None:
        """A proposer is asked for experiment `number`."""
        with self._lock:
            self.display.proposing(number, proposer)
            self._doing()

    @never_raises
    def experiment(self, experiment: Experiment) -> None:
        """The trials of a new experiment are about to run."""
        with self._lock:
            self.display.experiment(experiment)
            self._doing()

    @never_raises
    def trial(self, trial: Trial) -> None:
        """A trial starts or has ended; one that was started ahead of its turn is announced twice."""
        with self._lock:
            known = trial.id in self.display.running
            self.display.trial(trial)
            self._trial(trial, known)

    @never_raises
    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial reports progress."""
        with self._lock:
            self.display.progress(trial, progress)
            self._progress(trial, progress)

    @never_raises
    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """An experiment has its verdict."""
        with self._lock:
            if line := self.display.verdict(experiment, incumbent_score, noise):
                self._verdict(line)

    def _message(self, line: str, warning: bool) -> None:
        """Show a message, which is clean."""

    def _doing(self) -> None:
        """Show what is done now."""

    def _trial(self, trial: Trial, known: bool) -> None:
        """Show that a trial has started or ended; `known` if it was running already."""

    def _progress(self, trial: Trial, progress: Progress) -> None:
        """Show progress."""

    def _verdict(self, line: VerdictLine) -> None:
        """Show a verdict."""


class QuietView(BaseView):
    """Prints warnings only."""

    def __init__(self, display: SearchDisplay, stream: TextIO) -> None:
        """Prepare.

        Args:
            display: What is to be shown.
            stream: Where lines go.
        """
        super().__init__(display)
        self._stream = stream

    def _message(self, line: str, warning: bool) -> None:
        if warning:
            self._print(f"warning: {line}")

    def _print(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(spelled(one_line(text, 1000), encoding) + "\n")
        self._stream.flush()


class PlainView(QuietView):
    """Prints every event as one line, and of a trial's progress one line now and then."""

    def __init__(
        self,
        display: SearchDisplay,
        stream: TextIO,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            display: What is to be shown.
            stream: Where lines go.
            every: Least seconds between two lines about progress.
            clock: Seconds.
        """
        super().__init__(display, stream)
        self._every = every
        self._clock = clock
        self._last = clock()

    def __enter__(self) -> Self:
        text = f"{self.display.title}: {', '.join(self.display.setting) or 'getting ready'}"
        never_raises(self._print)(text)
        return self

    def _message(self, line: str, warning: bool) -> None:
        self._print(f"warning: {line}" if warning else line)

    def _doing(self) -> None:
        d = self.display
        self._print(f"{d.doing}: {d.hypothesis}" if d.hypothesis else d.doing)

    def _trial(self, trial: Trial, known: bool) -> None:
        self._last = self._clock()
        what = f"#{trial.experiment} {trial_name(trial, self.display.baselines)}"
        if trial.result is None:
            if not known:
                self._print(f"{what}: training")
            return
        took = duration((trial.finished or trial.started) - trial.started)
        came = f"{trial.result.outcome}, {trial.result.reason}"
        if trial.score is not None:
            came = self.display.metric.text(trial.score)
        self._print(f"{what}: {came} ({took})")

    def _progress(self, trial: Trial, progress: Progress) -> None:
        if self._clock() - self._last >= self._every:
            self._last = self._clock()
            self._print(f"#{trial.experiment} {trial_name(trial)}: {trial_state(trial, progress)}")

    def _verdict(self, line: VerdictLine) -> None:
        d = self.display
        text = d.metric.text
        of = f" of {d.limit}" if d.limit is not None else ""
        left = d.seconds_left()
        time_left = f", about {duration(left)} left" if left is not None else ""
        self._print(f"#{line.number} {line.text}: {line.reason}")
        best = f"best {text(d.best or 0.0)} (noise {text(d.noise or 0.0)})"
        self._print(f"{best}, kept {d.kept}, tried {d.tried}{of}{time_left}")
