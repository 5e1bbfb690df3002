"""What the journal has for MLflow: the list of what changed, snapshots of it, and which run shows what.

Invariant: a snapshot never changes, so that another thread may write it while the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from autoresearch.report.standing import History
from autoresearch.report.summary import SUMMARIZED
from autoresearch.types import Experiment

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo


class Outbox(History, Protocol):
    """What the mirror reads and writes in the journal."""

    def experiment(self, number: int) -> Experiment:
        """One experiment as it is now."""

    def dirty(self) -> tuple[int, ...]:
        """Experiments that changed since they were last mirrored."""

    def mirrored(self, number: int) -> None:
        """Take an experiment off that list."""

    def get(self, key: str) -> str | None:
        """A note."""

    def set(self, key: str, value: str) -> None:
        """Write a note."""


@dataclass
class Job:
    """A snapshot to be written, and what became of it."""

    info: SearchInfo
    experiments: tuple[Experiment, ...]
    numbers: tuple[int, ...]
    known_parent: str | None
    files: tuple[Path, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    experiment_id: str | None = None
    parent: str | None = None
    written: dict[int, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """A job's view of the journal, for `summarize`."""

    job: Job

    def info(self) -> SearchInfo:
        """As in the journal."""
        return self.job.info

    def experiments(self) -> tuple[Experiment, ...]:
        """As in the journal."""
        return self.job.experiments

    def get(self, key: str) -> str | None:
        """As in the journal, for what a summary needs."""
        return self.job.notes.get(key)


def snapshot(journal: Outbox, files: tuple[Path, ...] = ()) -> Job:
    """What the journal says now, to be shown with some files."""
    numbers = journal.dirty()
    now = {n: journal.experiment(n) for n in numbers}
    experiments = tuple(now.get(e.number, e) for e in journal.experiments())
    notes = {key: text for key in SUMMARIZED if (text := journal.get(key)) is not None}
    return Job(journal.info(), experiments, numbers, journal.get(run_key(None)), files, notes)


def run_key(number: int | None) -> str:
    """The journal's note of the run that shows an experiment, or the search."""
    return "mlflow.search" if number is None else f"mlflow.run.{number}"


def named_runs(notes: Callable[[str], str | None], number: int) -> tuple[str | None, ...]:
    """The runs that the commit of an experiment may name: none, the present one, the one of a lost store.

    Args:
        notes: Reads a note of the journal.
        number: Of the experiment.
    """
    key = run_key(number)
    return tuple(dict.fromkeys((None, notes(key), notes(f"{key}.was"))))
