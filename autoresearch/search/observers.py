"""Interfaces to a running search: a person's view and inbox, and a mirror of the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Brief
from autoresearch.types import Experiment, Progress, Trial


class View(Protocol):
    """Shows a person what the search does. It must never raise into the search."""

    def __enter__(self) -> View: ...
    def __exit__(self, *exc: object) -> None: ...

    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""

    def proposing(self, number: int, proposer: str) -> None:
        """The search waits for a proposal for experiment `number`; no other is open."""

    def experiment(self, experiment: Experiment) -> None:
        """A new experiment has a proposal and a commit, and its trials are about to start, beside others."""

    def trial(self, trial: Trial) -> None:
        """A trial starts, has ended (it has a result), or is no longer shown (finished without a result)."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial has made progress."""

    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
        """An experiment has its verdict; `needed` computes what the next gain must be, in words."""


class Inbox(Protocol):
    """People's messages to a running search; see `autoresearch.store.inbox`."""

    @property
    def wished(self) -> str:
        """What the search was asked to do: "run", "pause" or "stop"."""

    def notes(self) -> tuple[str, ...]:
        """People's notes to the proposer."""

    def edited_brief(self) -> Brief | None:
        """The brief as a person has rewritten it for this search alone."""


class EmptyInbox:
    """An inbox that is always empty."""

    wished = "run"

    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def edited_brief(self) -> Brief | None:
        """Nothing."""
        return None


class Mirror(Protocol):
    """Shows the journal elsewhere; see `autoresearch.tracking.mirror`. Never raises, and never blocks."""

    def sync(self, journal: Journal) -> None:
        """Show all that changed."""
