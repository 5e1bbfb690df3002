"""The search as plain lines, one an event, for logs and pipes: no control characters, no redrawing.

Owns the invariant of every view that showing something never fails the search: what cannot be written is
not shown.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TextIO

from autoresearch.report.board import Board, trial_name, trial_state
from autoresearch.text import duration, one_line, spelled
from autoresearch.types import Experiment, Progress, Trial

P = ParamSpec("P")


def shielded(method: Callable[P, Any]) -> Callable[P, None]:
    """Make a method of a view swallow what goes wrong in it: a closed pipe must not end a night's search."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            return

    return call


class QuietView:
    """Shows warnings only."""

    def __init__(self, board: Board, stream: TextIO) -> None:
        """Prepare.

        Args:
            board: What is to be shown.
            stream: Where lines go.
        """
        self.board = board
        self._stream = stream

    def __enter__(self) -> QuietView:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @shielded
    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""
        line = self.board.message(text, warning)
        if warning:
            self._print(f"warning: {line}")

    def proposing(self, number: int, proposer: str) -> None:
        """Experiment `number` is being thought about."""

    def experiment(self, experiment: Experiment) -> None:
        """A new experiment is about to be trained."""

    def trial(self, trial: Trial) -> None:
        """A trial starts or has ended."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial shows a sign of life."""

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """An experiment has its verdict."""

    def _print(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(spelled(one_line(text, 1000), encoding) + "\n")
        self._stream.flush()


class PlainView(QuietView):
    """Shows every event as one line; of a trial's progress, one line now and then."""

    def __init__(
        self, board: Board, stream: TextIO, every: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            board: What is to be shown.
            stream: Where lines go.
            every: Least seconds between two lines about progress.
            clock: Seconds.
        """
        super().__init__(board, stream)
        self._every = every
        self._clock = clock
        self._last = clock()
        self._started = clock()

    def __enter__(self) -> PlainView:
        shielded(self._print)(f"{self.board.title}: {', '.join(self.board.setting) or 'getting ready'}")
        return self

    @shielded
    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""
        line = self.board.message(text, warning)
        self._print(f"warning: {line}" if warning else line)

    @shielded
    def proposing(self, number: int, proposer: str) -> None:
        """Experiment `number` is being thought about."""
        self.board.proposing(number, proposer)
        self._print(self.board.doing)

    @shielded
    def experiment(self, experiment: Experiment) -> None:
        """A new experiment is about to be trained."""
        self.board.experiment(experiment)
        self._print(f"{self.board.doing}: {self.board.hypothesis}")

    @shielded
    def trial(self, trial: Trial) -> None:
        """A trial starts or has ended; one that was begun before its turn starts twice."""
        known = trial.id in self.board.running
        self.board.trial(trial)
        self._last = self._clock()
        what = f"#{trial.experiment} {trial_name(trial, self.board.baselines)}"
        if trial.result is None:
            if not known:
                self._started = self._clock()
                self._print(f"{what}: training")
            return
        took = duration((trial.finished or trial.started) - trial.started)
        came = (
            f"{trial.score:.4f}"
            if trial.score is not None
            else f"{trial.result.outcome}, {trial.result.reason}"
        )
        self._print(f"{what}: {came} ({took})")

    @shielded
    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial shows a sign of life."""
        self.board.progress(trial, progress)
        if self._clock() - self._last >= self._every:
            self._last = self._clock()
            self._print(f"#{trial.experiment} {trial_name(trial)}: {trial_state(trial, progress)}")

    @shielded
    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """An experiment has its verdict."""
        line = self.board.verdict(experiment, incumbent_score, noise)
        if line is None:
            return
        of = f" of {self.board.limit}" if self.board.limit is not None else ""
        left = self.board.seconds_left()
        time_left = f", about {duration(left)} left" if left is not None else ""
        self._print(f"#{line.number} {line.phrase}: {line.reason}")
        self._print(
            f"best {incumbent_score:.4f} (noise {noise:.4f}), kept {self.board.kept}, "
            f"tried {self.board.tried}{of}{time_left}"
        )
