"""Who watches and steers a running search: a person's view and inbox, and a mirror of the journal.

Not covered: what works for it (`propose.base.Proposer`, `workers.Runner`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from autoresearch.types import Experiment, Progress, Trial

if TYPE_CHECKING:
    from autoresearch.store.journal import Journal


class View(Protocol):
    """Shows a person what the search does. Must never raise into the search."""

    def __enter__(self) -> View: ...
    def __exit__(self, *exc: object) -> None: ...

    def message(self, text: str, *, warning: bool = False) -> None:
        """A line about the search as a whole."""

    def proposing(self, number: int, proposer: str) -> None:
        """Experiment `number` is being thought about."""

    def experiment(self, experiment: Experiment) -> None:
        """A new experiment has a proposal and a commit, and is about to be trained."""

    def trial(self, trial: Trial) -> None:
        """A trial starts (`trial.result is None`) or has ended."""

    def progress(self, trial: Trial, progress: Progress) -> None:
        """A running trial shows a sign of life."""

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        """An experiment has its verdict."""


class Inbox(Protocol):
    """What a person says to a running search; see `autoresearch.store.inbox`."""

    @property
    def wished(self) -> str:
        """What the search is to do: "run", "pause" or "stop"."""

    def notes(self) -> tuple[str, ...]:
        """What the proposer should be told from now on; called from another thread, too."""

    def wait(self, view: View) -> bool:
        """Called before every step. Blocks while the search is paused; False if it is to stop here."""


class NoInbox:
    """Nobody says anything."""

    wished = "run"

    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def wait(self, view: View) -> bool:
        """Go on."""
        return True


class Mirror(Protocol):
    """Shows the journal elsewhere; see `autoresearch.tracking.mirror`. Never raises."""

    def sync(self, journal: Journal) -> None:
        """Show all that changed."""
