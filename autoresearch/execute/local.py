"""Trials on workers: each worker is a thread with a runner of its own, and trains one candidate at a time.

Owns the folder of a trial (`runs/<name>/trials/<id>`, gone when the trial ends), what is kept of it, and the
check that frozen code stayed frozen. Invariants: workers touch neither the journal nor the view: what they
have to say goes through one queue to the thread of the search. A worker's thread lives as long as the search,
because the kernel kills the children of a thread that ends. Not covered: what to train, and what a result
means.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from autoresearch.execute.base import Measurer, TrialSpec
from autoresearch.execute.sandbox import remove_tree
from autoresearch.execute.tree_hash import digest
from autoresearch.store.files import keep_losses
from autoresearch.types import Measurement, Outcome, Progress, Split, Trial

JOIN_SECONDS = 5.0
"""How long the end of a search waits for its trials to be taken down."""

Prune = Callable[[Progress], bool]
Export = Callable[[str, Path, Mapping[str, str]], None]
"""Writes the tree of a commit to a folder, with some of its files replaced: path -> text."""


class Runner(Protocol):
    """Trains and scores one candidate; see `autoresearch.tasks.gpt`."""

    max_seconds: float

    def run(
        self,
        *,
        code: Path,
        seed: int,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Prune | None = None,
        splits: Sequence[str] = ("validation",),
        closely: bool = False,
    ) -> Measurement:
        """Train and score the candidate in `code`. Never raises for what the candidate does.

        The first split gives the score; `SPLIT.npy` in `scratch` holds nats and bytes of each document.
        One that is suspected to cheat is to be looked at `closely`.
        What `progress` raises ends the trial, and is passed on.
        """

    def smoke(self, *, code: Path, scratch: Path) -> Measurement:
        """See in seconds whether the candidate in `code` gets through the stages of a trial at all.

        Called from the thread that asks for proposals, while `run` may be training another candidate in
        another thread; what it says of a score or a speed is not used.
        """


@dataclass
class MeasurerRunner:
    """A measurer as the runner that workers ask, until they ask measurers themselves."""

    measurer: Measurer
    max_seconds: float = math.inf

    def run(
        self,
        *,
        code: Path,
        seed: int,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Prune | None = None,
        splits: Sequence[str] = ("validation",),
        closely: bool = False,
    ) -> Measurement:
        """See `Runner.run`."""
        most = None if math.isinf(self.max_seconds) else self.max_seconds
        spec = TrialSpec(
            "", -1, "", seed, splits=tuple(map(Split, splits)), max_seconds=most, thorough=closely
        )
        return self.measurer.measure(code, spec, scratch, progress, should_prune)

    def smoke(self, *, code: Path, scratch: Path) -> Measurement:
        """See `Runner.smoke`."""
        return self.measurer.tryout(code, scratch)

    def close(self) -> None:
        """See `Measurer.close`."""
        self.measurer.close()


@dataclass(frozen=True)
class Said:
    """A line for the view."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Sign:
    """A sign of life from a trial."""

    trial: Trial
    progress: Progress


@dataclass(frozen=True)
class Finished:
    """A trial has ended; `result` is an exception if the host failed."""

    trial: Trial
    result: Measurement | BaseException


@dataclass(frozen=True)
class Answered:
    """The proposer has answered; see `ahead`."""


Event = Said | Sign | Finished | Answered
Events = SimpleQueue[Event]


class Unneeded(Exception):
    """Ends a trial whose result nobody waits for any more."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        trial: What to train; its `place` says where, if there is a choice.
        splits: What to score it on; the first gives the score.
        keep: Folder for the losses of each document.
        should_prune: Asked at every sign of life whether to stop.
        closely: Whether the candidate is suspected to cheat.
        sources: Files that differ from those of the trial's commit.
    """

    trial: Trial
    splits: Sequence[str]
    keep: Path
    should_prune: Prune | None = None
    closely: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Worker:
    place: str
    runner: Runner
    orders: SimpleQueue[Order | None] = field(default_factory=SimpleQueue)
    trial: Trial | None = None
    unneeded: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class Workers:
    """All workers of a search. Its methods are for the thread of the search alone."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        folder: Path,
        export: Export,
        events: Events,
    ) -> None:
        """Prepare; threads are started when they are first needed.

        Args:
            runners: Name of a place -> what trains there.
            folder: Of the search.
            export: Writes the tree of a candidate to a folder; called from other threads.
            events: Where to tell what happens.
        """
        self._workers = [_Worker(place, runner) for place, runner in runners.items()]
        self._folder = folder
        self._export = export
        self._events = events

    @property
    def free(self) -> str | None:
        """The name of a place where nothing is trained; None if there is none."""
        return next((w.place for w in self._workers if w.trial is None), None)

    def start(self, order: Order) -> None:
        """Begin a trial at its place, which must be free. Its end will be told as `Finished`."""
        trial = order.trial
        worker = next(w for w in self._workers if w.trial is None and trial.place in ("", w.place))
        worker.trial, worker.unneeded = trial, threading.Event()
        if worker.thread is None:
            name = f"trials on {worker.place}"
            worker.thread = threading.Thread(
                target=self._work, args=(worker, worker.orders), name=name, daemon=True
            )
            worker.thread.start()
        worker.orders.put(order)

    def finished(self, event: Finished) -> Measurement | None:
        """Take note of an end; gives the result, or None if the trial was not needed any more.

        Raises:
            BaseException: What the host failed by.
        """
        worker = next((w for w in self._workers if w.trial is event.trial), None)
        if worker is None:
            return None  # from before the last `close`
        worker.trial = None
        if worker.unneeded.is_set():
            return None
        if isinstance(event.result, BaseException):
            raise event.result
        return event.result

    def dismiss(self, trials: Collection[int]) -> None:
        """Stop these trials: nobody waits for them any more. A place is free once its own has `Finished`."""
        for worker in self._workers:
            if worker.trial is not None and worker.trial.id in trials:
                worker.unneeded.set()

    def close(self) -> None:
        """Stop everything, and end the threads."""
        for worker in self._workers:
            worker.unneeded.set()
            worker.orders.put(None)
        for worker in self._workers:
            if worker.thread is not None:
                worker.thread.join(JOIN_SECONDS)
            worker.thread, worker.trial, worker.orders = None, None, SimpleQueue()

    # In the worker's thread

    def _work(self, worker: _Worker, orders: SimpleQueue[Order | None]) -> None:
        while (order := orders.get()) is not None:
            result: Measurement | BaseException
            try:
                result = self._train(worker, order)
            except BaseException as error:
                result = error
            self._events.put(Finished(order.trial, result))

    def _train(self, worker: _Worker, order: Order) -> Measurement:
        """One training and scoring, in a folder of its own that is gone afterwards."""
        unneeded = worker.unneeded

        def progress(sign: Progress) -> None:
            if unneeded.is_set():
                raise Unneeded
            self._events.put(Sign(order.trial, sign))

        trial, place = order.trial, self._folder / "trials" / str(order.trial.id)
        try:
            self._export(trial.commit, place / "code", order.sources)
            (place / "scratch").mkdir()
            frozen = digest(place / "code"), digest(self._folder / "trusted")
            result = worker.runner.run(
                code=place / "code",
                seed=trial.seed,
                scratch=place / "scratch",
                progress=progress,
                should_prune=order.should_prune,
                splits=order.splits,
                closely=order.closely,
            )
            if (digest(place / "code"), digest(self._folder / "trusted")) != frozen:
                reason = "frozen code changed during the trial"
                return Measurement(Outcome.INVALID, reason=reason, log=result.log)
            keep_losses(place / "scratch", order.keep)
            return result
        finally:
            remove_tree(place)
