"""The executor seam: places, the specification of a trial, and the events of a trial.

An executor owns places and runs one trial at a time at each. It knows nothing of searches, verdicts or
proposals. It gets specs, plain data that can be sent to another process or machine, and puts events on the
queue that came with them. So several searches can share one executor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from autoresearch.types import (
    Fidelity,
    GuardMetric,
    Measurement,
    Outcome,
    Plain,
    Progress,
    Provenance,
    Split,
    TextRequest,
)

Curve = tuple[tuple[float, float], ...]
"""(fraction of the budget, training loss), in order."""

OnProgress = Callable[[Progress], None]
"""Is told how far a trial is, a few times a second; may raise `Cancelled`."""

ShouldStop = Callable[[Progress], bool] | None
"""Says of a trial whether it is to be stopped early; None: nobody says so."""


@dataclass(frozen=True)
class Place:
    """Where one trial can run at a time.

    Attributes:
        name: Such as "cpu:0" or "cuda:1".
        device: Fingerprint of the device; scores from different devices may not be comparable.
    """

    name: str
    device: str

    def provenance(self, fidelity: Fidelity, fraction: float) -> Provenance:
        """Where a measurement comes from that this process made here."""
        return Provenance(self.name, self.device, socket.gethostname(), fidelity, fraction)


class TrialEnded(Exception):
    """The trial is over without a score; measurers raise it among themselves.

    Attributes:
        outcome: How it ended.
    """

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True)
class TrialSpec(Plain):
    """Everything that an executor needs to run one trial.

    Attributes:
        search: Name of the search that asked for it.
        trial: Number of the trial in that search's journal, or a negative number if the journal lacks it.
        tree: Commit whose tree is measured.
        files: Files that differ from that tree: path -> text.
        seed: The random seed.
        fidelity: How much of the budget to use.
        splits: What to score on; the first gives the score.
        items: Folder for the losses of single items, below that of the search; empty: do not keep them.
        baseline: Largest value of each number that the baseline's trials measured; limits may be multiples of
            them. Empty while there is no baseline.
        reference: Training curves of the baseline; a trial that is hopeless against them is stopped early.
            Empty: never stop it early.
        stop_above: (share of the budget, training loss), in order: a trial whose mean loss before that share
            is higher is stopped early; see `judge.limits.early_stopping`.
        spare: Whether such a trial is only marked, and finished.
        thorough: Whether to look for cheating more closely than usual.
        submission: File, below the folder of the search, that keeps what the candidate submits. If it exists,
            nothing is trained: it is scored. Empty: keep nothing. A measurer gets the whole path.
        blind: Whether the score must rest on answers that were given before the candidate was shown what
            follows. A task that does not serve its candidate ignores this.
        blind_seed: Seed of what is asked so; None: a new one each time.
        share: (i, n): score only the i-th of n disjoint shares of the first split; None: all of it.
        gauge: Whether it is the starting script or an incumbent, whose speed tells how fast a place is.
        text: What the model is to write once it is scored; None: nothing. Only tasks that say so write.
        guards: Further metrics to measure, whose definitions the task has accepted.
    """

    search: str
    trial: int
    tree: str
    seed: int
    files: Mapping[str, str] = field(default_factory=dict)
    fidelity: Fidelity = Fidelity.FULL
    splits: tuple[Split, ...] = (Split.VALIDATION,)
    items: str = ""
    baseline: Mapping[str, float] = field(default_factory=dict)
    reference: tuple[Curve, ...] = ()
    stop_above: Curve = ()
    spare: bool = False
    thorough: bool = False
    submission: str = ""
    blind: bool = False
    blind_seed: int | None = None
    share: tuple[int, int] | None = None
    gauge: bool = False
    text: TextRequest | None = None
    guards: tuple[GuardMetric, ...] = ()


@dataclass(frozen=True)
class Started:
    """A trial has left the queue and runs."""

    spec: TrialSpec
    place: str


@dataclass(frozen=True)
class Progressed:
    """A trial has made progress."""

    spec: TrialSpec
    place: str
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A trial has ended, and its place is free.

    Attributes:
        spec: Which trial.
        place: Where it ran.
        result: What it measured; None if it was cancelled; an exception if the machine failed.
    """

    spec: TrialSpec
    place: str
    result: Measurement | BaseException | None


@dataclass(frozen=True)
class Message:
    """A message for a person."""

    text: str
    warning: bool = False


TrialEvent = Started | Progressed | Finished | Message


class Executor(Protocol):
    """Runs trials at places."""

    @property
    def places(self) -> Sequence[Place]:
        """Where trials can run now, the least busy first; may change while a search runs."""

    def submit(self, spec: TrialSpec, place: str, events: SimpleQueue[Any]) -> None:
        """Start a trial at a place. Returns at once; the events of the trial go to `events`.

        If the place is busy, the trial waits in a queue: there may be other searches.
        """

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """Stop trials whose results are not needed. Each still ends with `Finished`, without a result."""

    def tryout(self, spec: TrialSpec) -> Measurement:
        """Find out in seconds whether a candidate gets through the stages of a trial at all.

        Blocks the calling thread; runs beside the trials. There is no score.
        """

    def close(self) -> None:
        """Stop everything, wait a few seconds for the processes to be gone, and release the devices."""


class Cancelled(Exception):
    """Ends a trial whose result is no longer needed; the `progress` callback of a measurer raises it."""


class Measurer(Protocol):
    """Measures candidates at one place, one at a time; may keep processes warm between two trials.

    A task makes one for each place. Neither method raises for what a candidate does; both may raise
    `UserError` if the machine fails, and pass on any exception of `progress`.
    """

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """Measure the candidate whose files lie in `tree`.

        Args:
            tree: The candidate's tree; it does not change meanwhile.
            spec: Seed, splits, caps; its `tree` and `files` have been exported already.
            scratch: An empty folder for this trial. If the metric is per item, `SPLIT.npy` is left there,
                float64 [items, 3]: losses and weights, whose sums have the score as their ratio, and the
                document that each item is a part of. Without that column each item is a document.
            progress: Called a few times a second.
            should_stop: Called at every progress; returns whether to stop early.
        """

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """Find out in seconds whether a candidate gets through the stages of a trial at all.

        May be called from another thread while `measure` runs. There is no score.
        """

    def close(self) -> None:
        """End all processes, running or waiting."""
