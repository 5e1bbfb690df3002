"""Trainings that the search itself wants, one after the other, beside those that the judge asks for.

The check of a keep on unseen text, re-runs of what was kept, and diagnoses are written as generators: each
yields what starts its next training, and gets how it ended. So they read from top to bottom, though other
trials run and end meanwhile. Not covered: when a training may start (`loop`, `scheduler`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from autoresearch.types import Measurement, Trial


@dataclass(frozen=True)
class Ended:
    """A trial with a wanted result has ended."""

    trial: Trial
    result: Measurement


T = TypeVar("T")

Steps = Generator[Callable[[], Trial], Ended, T]
"""Trainings one after the other: yields what starts the next, gets how it ended, returns what they showed."""


class Job:
    """Trainings that the search itself wants, one after the other, beside those that the judge asks for.

    Attributes:
        start: Starts the next one; None while one is under way, and at the end.
        trial: The one under way, if any.
        over: Whether all have ended.
    """

    def __init__(self, steps: Steps[None]) -> None:
        """Take the first step: up to the first training that must be started."""
        self._steps = steps
        self.start: Callable[[], Trial] | None = None
        self.trial: Trial | None = None
        self.over = False
        self._step(lambda: next(steps))

    @property
    def device(self) -> str | None:
        """The device on which the next training must run; None: that of the search's own trainings."""
        return getattr(self.start, "device", None)

    def begin(self) -> None:
        """Start the next training; a place must be free on its device."""
        assert self.start is not None, "there is one to start"
        self.trial, self.start = self.start(), None

    def ended(self, event: Ended) -> None:
        """Take the end of the training under way."""
        self.trial = None
        self._step(lambda: self._steps.send(event))

    def close(self) -> None:
        """Give it up."""
        self._steps.close()
        self.over = True

    def _step(self, step: Callable[[], Callable[[], Trial]]) -> None:
        try:
            self.start = step()
        except StopIteration:
            self.over = True
