"""Who watches and steers a running search: a person's view and inbox, and a mirror of the journal."""

from __future__ import annotations

from typing import Protocol

from autoresearch.store.journal import Journal
from autoresearch.types import Experiment, Progress, Trial


class View(Protocol):
    """Shows a person what the search does. Must never raise into the search."""

    def __enter__(self) -> View: ...
    def __exit__(self, *exc: object) -> None: ...

    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""

    def proposing(self, number: int, proposer: str) -> None:
        """A proposal for experiment `number` is awaited."""

    def experiment(self, experiment: Experiment) -> None:
        """A new experiment has a proposal and a commit, and its trials are about to start."""

    def trial(self, trial: Trial) -> None:
        """A trial starts (`trial.result is None`) or has ended."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial shows a sign of life."""

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """An experiment has its verdict."""


class Inbox(Protocol):
    """What people say to a running search; see `autoresearch.store.inbox`."""

    @property
    def wished(self) -> str:
        """What the search shall do: "run", "pause" or "stop"."""

    def notes(self) -> tuple[str, ...]:
        """What the proposer should be told from now on."""


class EmptyInbox:
    """Nobody says anything."""

    wished = "run"

    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


class Mirror(Protocol):
    """Shows the journal elsewhere; see `autoresearch.tracking.mirror`. Never raises, and never blocks."""

    def sync(self, journal: Journal) -> None:
        """Show all that changed."""
