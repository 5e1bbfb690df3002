"""Gives the trials of a search to places on other machines, and repeats those that a machine spoils.

Engines (Ray, Slurm) say which places there are and start workers at them; the rest is here and in the modules
beside. A trial whose worker is lost, whose machine fails or was slow, is repeated elsewhere under a new
attempt, and not judged. Not covered: how a worker measures (`worker.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autoresearch.errors import UserError
from autoresearch.execute.base import Finished, Message, Place, Progressed, Started, TrialSpec
from autoresearch.execute.local import Export
from autoresearch.execute.remote.orders import Job, Orders
from autoresearch.execute.remote.workers import HINT, TRIES, Engine, Site, Workers
from autoresearch.execute.worker.channels import Channel, WorkerLost
from autoresearch.execute.worker.messages import Setup, Wire, decode_result
from autoresearch.types import WAITING, Measurement, Progress

LOSSES = 5
"""Workers that may be lost under one trial before the search ends: something about it kills them."""

PLACES_TRIED = 3
"""Places whose machines may spoil a trial; then the search ends, or a result that is only slow counts."""


class RemoteExecutor:
    """Runs trials at the places of an engine; see `autoresearch.execute.base.Executor`."""

    def __init__(
        self,
        setup: Setup,
        engine: Engine,
        runs: Path,
        export: Export,
        *,
        start_seconds: float | None = 300.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Start workers at all places; returns when the first is ready, or at once.

        Args:
            setup: What each worker makes its measurer of.
            engine: Starts them; `close` closes it.
            runs: The folder that holds the folders of the searches.
            export: Writes the tree of a candidate; called from other threads.
            start_seconds: How long to wait for the first, if not every place turns out to be of no use. None:
                do not wait; the places come later.
            say: Tells a person something.

        Raises:
            UserError: If none gets ready in time.
        """
        self._runs = runs
        self._orders = Orders(setup, runs, export)
        self._workers = Workers(setup, engine, runs / setup.search, self, say)
        self._homeless: list[Job] = []
        self._tryouts = 0
        self._workers.start()
        if start_seconds is not None:
            self.await_first(start_seconds)

    def await_first(self, seconds: float | None) -> None:
        """Wait until a place is ready; for ever if no time is given. Closes the executor if none gets ready.

        Raises:
            UserError: If none gets ready in time, or none ever will.
        """
        try:
            with self._workers.lock:
                self._workers.lock.wait_for(lambda: self.places, seconds)
            if not self.places:
                raise UserError(f"No worker got ready within {seconds:g} s.", HINT, code=3)
        except BaseException:
            self.close()
            raise

    # As an executor

    @property
    def places(self) -> Sequence[Place]:
        """See `Workers.places`."""
        return self._workers.places

    @property
    def capacity(self) -> int:
        """How many places there are once all that start are ready."""
        with self._workers.lock:
            return len(self._workers.sites)

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What is known of each place that is ready: name -> what its worker said."""
        return self._workers.about

    @property
    def settled(self) -> bool:
        """Whether every place that the engine offers is ready or set aside."""
        with self._workers.lock:
            return all(site.place for site in self._workers.sites.values())

    @property
    def set_aside(self) -> dict[str, str]:
        """Places that are not used any more, and why."""
        with self._workers.lock:
            return dict(self._workers.aside)

    def submit(self, spec: TrialSpec, place: str, events: SimpleQueue[Any]) -> None:
        """See `Executor`. If the place is gone by now, the trial runs at another."""
        job = Job(spec, events, self._runs / spec.search / "trials" / str(spec.trial))
        with self._workers.lock:
            self._assign(job, self._workers.sites.get(place))

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """See `Executor`."""
        numbers = set(trials)

        def meant(job: Job) -> bool:
            return not job.tryout and job.spec.search == search and job.spec.trial in numbers

        with self._workers.lock:
            for site in self._workers.sites.values():
                for job in filter(meant, site.jobs):
                    job.cancelled = True
                    if job.attempt:
                        self._workers.tell(site, {"kind": "cancel", "attempts": [job.attempt]})
            for job in [job for job in self._homeless if meant(job)]:
                self._homeless.remove(job)
                self._finish(job, "", None)

    def tryout(self, spec: TrialSpec) -> Measurement:
        """See `Executor`; at the least busy place."""
        events: SimpleQueue[Any] = SimpleQueue()
        with self._workers.lock:
            self._tryouts += 1
            folder = self._runs / spec.search / "trials" / f"tryout-{self._tryouts}"
            numbered = replace(spec, trial=-1_000_000_000 - self._tryouts)
            self._assign(Job(numbered, events, folder, tryout=True), None)
        while not isinstance(event := events.get(), Finished):
            pass
        if isinstance(event.result, Measurement):
            return event.result
        raise event.result or UserError("A tryout was stopped: the search ends.", code=3)

    def close(self) -> None:
        """See `Executor`."""
        workers = self._workers
        workers.closed.set()
        with workers.lock:
            workers.lock.notify_all()
            for site in workers.sites.values():
                for job in list(site.jobs):
                    job.cancelled = True
                site.waiting.put(None)
                workers.tell(site, {"kind": "close"})
            homeless, self._homeless = self._homeless, []
        for job in homeless:
            self._finish(job, "", None)
        workers.close()

    # Jobs and places

    def _assign(self, job: Job, site: Site | None) -> None:
        """Give a job to a place; if that is gone, to one that is free, now or later. The lock is held.

        It does not queue behind the trial of another place, which may last for hours, and does not go back
        to a place that has spoiled it while there are others.
        """
        if site is None or site.place is None or site.name in self._workers.aside:
            usable = [
                s for s in self._workers.sites.values() if s.place and s.name not in self._workers.aside
            ]
            fresh = [s for s in usable if s.name not in job.spoiled] or usable
            ready = [s for s in fresh if job.tryout or not s.jobs]
            site = min(ready, key=lambda known: len(known.jobs), default=None)
        if self._workers.closed.is_set():
            self._finish(job, "", None)
        elif site is None:
            self._homeless.append(job)
            if not job.tryout:
                waits = Progress(0.0, 0.0, phase=WAITING, note="its place is gone, and no other is free")
                job.events.put(Progressed(job.spec, "", waits))
        else:
            site.jobs.append(job)
            site.waiting.put(job)

    def ready(self) -> None:
        """Give the jobs that have no place to those that are free; the lock is held."""
        homeless, self._homeless = self._homeless, []
        for job in homeless:
            self._assign(job, None)

    def lost(self, site: Site, jobs: Sequence[Job], why: str, *, interrupted: bool) -> None:
        """Have the trials of a lost worker repeated elsewhere; after `close`, end them. The lock is held."""
        for job in jobs:
            job.losses += bool(job.attempt) and not interrupted
            job.attempt = ""
            if self._workers.closed.is_set() or job.cancelled:
                self._finish(job, site.name, None)
            elif job.losses >= LOSSES:
                failed = f"{job.losses} workers were lost under trial {job.spec.trial}: {why}."
                self._finish(job, site.name, UserError(failed, "The same command goes on.", code=3))
            else:
                self._assign(job, None)

    def hand_over(self, site: Site) -> None:
        """Send the orders of a place to its worker, in a thread of their own: an export may take a while."""
        while (job := site.waiting.get()) is not None:
            if job not in site.jobs:
                continue  # its place was lost meanwhile, and it is assigned anew
            try:
                order = self._orders.make(job)
            except BaseException as error:
                self._finish(job, site.name, error)
                continue
            with self._workers.lock:
                if job not in site.jobs:
                    continue
                job.attempt = order.attempt
                if job.cancelled:
                    self._finish(job, site.name, None)
                    continue
                message = {"kind": "order", "order": order.to_dict(), "tryout": job.tryout}
                self._workers.tell(site, message)

    # What workers say

    def heard(self, site: Site, channel: Channel, message: Wire) -> None:
        """Take what a worker says; see `workers.User`."""
        if message["kind"] == "need":
            self._orders.send_files(channel, message)
        elif message["kind"] == "failed":
            error = decode_result(message)
            with self._workers.lock:
                site.failures = TRIES
            raise WorkerLost(f"its measurer cannot be made: {error} {getattr(error, 'hint', '')}".strip())
        else:
            self._heard_of(site, message)

    def _heard_of(self, site: Site, message: Wire) -> None:
        """Take a report of an attempt, unless another attempt counts by now."""
        with self._workers.lock:
            job = next((job for job in site.jobs if job.attempt == message["attempt"]), None)
        if job is None or not self._orders.counts(job):
            return
        match message["kind"]:
            case "started":
                job.left = set()
                job.events.put(Started(job.spec, site.name))
            case "progress":
                job.events.put(Progressed(job.spec, site.name, Progress(**message["progress"])))
            case "file":
                self._orders.take_piece(job, message)
            case "finished":
                result = decode_result(message)
                if result is None and not job.cancelled:
                    raise WorkerLost("it was ended from outside")
                site.failures = 0
                self._ended(site, job, result)

    def _ended(self, site: Site, job: Job, result: Measurement | UserError | None) -> None:
        """Take the end of an attempt; one that the machine spoiled is repeated elsewhere."""
        if job.cancelled or job.tryout or result is None:
            self._finish(job, site.name, result)
            return
        if why := self._spoiled(site, job, result):
            job.spoiled.add(site.name)
            others = {place.name for place in self.places} - job.spoiled
            self._workers.spoiled(site, [job], why)
            if others and len(job.spoiled) < PLACES_TRIED:
                text = f"A trial at {site.name} does not count: {why}. It is repeated elsewhere."
                job.events.put(Message(text, warning=True))
                with self._workers.lock:
                    site.jobs.remove(job)
                    job.attempt = ""
                    self._assign(job, None)
                    self.ready()
                return
        if isinstance(result, Measurement):
            result = self._orders.keep_files(job, result)
            # The device is called as in `places`, whatever the task's measurer calls it.
            device = site.about.get("device") or result.provenance.device
            origin = replace(result.provenance, place=site.name, device=device)
            result = replace(result, provenance=origin)
        self._finish(job, site.name, result)

    def _spoiled(self, site: Site, job: Job, result: Measurement | UserError) -> str:
        """Why the machine has spoiled a trial; empty if it has not."""
        with self._workers.lock:
            records = self._workers.records
            if isinstance(result, UserError):
                records.failed(site.name)
                return str(result)
            program = job.tree.key if job.spec.gauge and job.tree else ""
            return records.ended(site.name, site.about.get("device", ""), program, result)

    def _finish(self, job: Job, place: str, result: Measurement | BaseException | None) -> None:
        self._orders.end(job)
        with self._workers.lock:
            for site in self._workers.sites.values():
                if job in site.jobs:
                    site.jobs.remove(job)
            self.ready()
        job.events.put(Finished(job.spec, place, None if job.cancelled else result))
