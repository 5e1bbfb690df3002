"""The local executor: runs trials in processes of this machine, one at a time at each place.

Each place has its own thread with a measurer. The thread lives as long as the executor, because the kernel
kills the children of a thread that ends. This module owns the folder of a trial (`runs/SEARCH/trials/TRIAL`,
removed when the trial ends), the stored losses of single items, and the check that frozen code did not
change. Not covered: how to measure a candidate (the task's `Measurer`), and what a result means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autoresearch.execute.base import Cancelled, Finished, Measurer, Place, Progressed, Started, TrialSpec
from autoresearch.judge.limits.early_stopping import STOP_SHARE, EarlyStop
from autoresearch.store.files import digest, keep_losses, remove_tree
from autoresearch.store.git.repository import Repository
from autoresearch.types import Measurement, Outcome, Progress, Provenance

CLOSE_SECONDS = 5.0
"""Seconds that `close` waits for the trials to end."""

Export = Callable[[str, Path, Mapping[str, str]], None]
"""Writes the tree of a commit to a folder, with some of its files replaced: path -> text."""


def exporter(repository: Repository, paths: Iterable[str]) -> Export:
    """A function that exports a commit's files below `paths`, and then writes the files given over them."""
    exported = tuple(paths)

    def export(commit: str, folder: Path, files: Mapping[str, str]) -> None:
        repository.export(commit, exported, folder)
        for path, text in files.items():
            (folder / path).write_bytes(text.encode("utf-8"))

    return export


@dataclass(eq=False)
class _Order:
    """A trial that was submitted and has not ended."""

    spec: TrialSpec
    events: SimpleQueue[Any]
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class _Worker:
    """One place: its measurer, its thread, and the trials submitted to it, in order."""

    place: Place
    measurer: Measurer
    orders: list[_Order] = field(default_factory=list)
    queue: SimpleQueue[_Order | None] = field(default_factory=SimpleQueue)
    thread: threading.Thread | None = None


class LocalExecutor:
    """Runs trials at the places of this machine; see `autoresearch.execute.base.Executor`.

    May be used from the threads of several searches. A trial submitted to a place that is busy with the trial
    of another search waits until that one has ended.

    Attributes:
        measurers: Name of a place -> its measurer.
    """

    def __init__(self, measurers: Mapping[Place, Measurer], runs: Path, export: Export) -> None:
        """Prepare; the thread of a place starts with its first trial.

        Args:
            measurers: The measurer of each place, at least one. `close` closes them.
            runs: The folder that holds the folders of the searches.
            export: Writes the tree of a candidate; called from other threads.
        """
        self.measurers = {place.name: measurer for place, measurer in measurers.items()}
        self._workers = {place.name: _Worker(place, measurer) for place, measurer in measurers.items()}
        self._runs = runs
        self._export = export
        self._lock = threading.Lock()
        self._one_tryout = threading.Lock()

    @property
    def places(self) -> Sequence[Place]:
        """Where trials can run; those with the fewest trials come first."""
        with self._lock:
            return [w.place for w in sorted(self._workers.values(), key=lambda w: len(w.orders))]

    def submit(self, spec: TrialSpec, place: str, events: SimpleQueue[Any]) -> None:
        """See `Executor`."""
        worker, order = self._workers[place], _Order(spec, events)
        with self._lock:
            worker.orders.append(order)
            if worker.thread is None:
                worker.thread = threading.Thread(
                    target=self._work, args=(worker, worker.queue), name=f"trials on {place}", daemon=True
                )
                worker.thread.start()
            worker.queue.put(order)

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """See `Executor`."""
        numbers = set(trials)
        with self._lock:
            for worker in self._workers.values():
                for order in worker.orders:
                    if order.spec.search == search and order.spec.trial in numbers:
                        order.cancelled.set()

    def tryout(self, spec: TrialSpec) -> Measurement:
        """See `Executor`; one tryout at a time, with the measurer of the first place."""
        folder = self._runs / spec.search / "trials" / "tryout"
        with self._one_tryout:
            try:
                self._export(spec.tree, folder / "code", spec.files)
                (folder / "scratch").mkdir()
                return next(iter(self.measurers.values())).tryout(folder / "code", folder / "scratch")
            finally:
                remove_tree(folder)

    def close(self) -> None:
        """See `Executor`."""
        with self._lock:
            threads = [worker.thread for worker in self._workers.values() if worker.thread is not None]
            for worker in self._workers.values():
                for order in worker.orders:
                    order.cancelled.set()
                worker.queue.put(None)
                worker.thread, worker.queue = None, SimpleQueue()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for measurer in self.measurers.values():
            measurer.close()

    # In the thread of a place

    def _work(self, worker: _Worker, queue: SimpleQueue[_Order | None]) -> None:
        while (order := queue.get()) is not None:
            result: Measurement | BaseException | None = None
            if not order.cancelled.is_set():
                order.events.put(Started(order.spec, worker.place.name))
                try:
                    result = self._measure(worker, order)
                except BaseException as error:
                    result = error
            with self._lock:
                worker.orders.remove(order)
            result = None if order.cancelled.is_set() else result
            order.events.put(Finished(order.spec, worker.place.name, result))

    def _measure(self, worker: _Worker, order: _Order) -> Measurement:
        """Measure a candidate in a new folder, which is removed afterwards."""
        spec, last = order.spec, Progress(0.0, 0.0)

        def progress(sign: Progress) -> None:
            nonlocal last
            if order.cancelled.is_set():
                raise Cancelled
            last = sign
            order.events.put(Progressed(spec, worker.place.name, sign))

        home = self._runs / spec.search
        folder = home / "trials" / str(spec.trial)
        remove_tree(folder)  # of a process that was killed: trials that no journal numbers begin at -1 again
        try:
            self._export(spec.tree, folder / "code", spec.files)
            (folder / "scratch").mkdir()
            frozen = digest(folder / "code"), digest(home / "trusted")
            watched = spec.reference or spec.stop_above
            stop = EarlyStop(spec.reference, spec.stop_above, spec.spare) if watched else None
            kept = str((home / spec.submission).resolve()) if spec.submission else ""
            result = worker.measurer.measure(
                folder / "code",
                replace(spec, submission=kept),
                folder / "scratch",
                progress,
                stop,
            )
            if stop is not None and stop.share is not None:
                result = replace(result, metrics={**result.metrics, STOP_SHARE: stop.share})
            if (digest(folder / "code"), digest(home / "trusted")) != frozen:
                reason = "frozen code changed during the trial"
                return Measurement(Outcome.INVALID, reason=reason, log=result.log)
            result = replace(result, items=self._keep_items(folder / "scratch", spec))
            if result.provenance.place:
                return result
            place, reached = worker.place, 1.0 if result.outcome is Outcome.OK else last.fraction
            source = Provenance(place.name, place.device, fidelity=spec.fidelity, fraction=reached)
            return replace(result, provenance=source)
        finally:
            remove_tree(folder)

    def _keep_items(self, scratch: Path, spec: TrialSpec) -> dict[str, str]:
        """Copy the losses of single items to the folder of the search: split -> file."""
        if not spec.items:
            return {}
        kept = keep_losses(scratch, self._runs / spec.search / spec.items)
        return {split: f"{spec.items}/{path.name}" for split, path in kept.items()}
