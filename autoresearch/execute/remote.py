"""An executor whose places are workers on other machines, of any engine.

An engine (Ray, Slurm) says which places it offers and starts a worker at one; everything else is here: what a
worker is told, which attempt counts, and what becomes of a trial whose worker is lost. Such a trial is
repeated elsewhere under a new attempt, and not judged. Places come and go between trials; one that keeps
losing its worker is set aside. Not covered: how a worker measures (`worker.worker`).
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from autoresearch.errors import UserError
from autoresearch.execute.base import Finished, Message, Place, Progressed, Started, TrialSpec
from autoresearch.execute.local import Export
from autoresearch.execute.worker.channels import Channel, WorkerLost
from autoresearch.execute.worker.fence import Fence
from autoresearch.execute.worker.files import Listing, list_folder, pieces
from autoresearch.execute.worker.messages import Order, Setup, Wire, decode_result
from autoresearch.store.files import remove_tree
from autoresearch.text import count, one_line
from autoresearch.types import WAITING, Measurement, Progress

CLOSE_SECONDS = 10.0
"""Seconds that `close` waits for the workers to end."""
LOOK_SECONDS = 2.0
"""Between two questions to the engine which places it offers, and between two signs of life to a worker."""
LOSSES = 5
"""Workers that may be lost under one trial before the search ends: something about it kills them."""
BACKOFF_SECONDS = 1.0
"""Pause before a place gets another worker, for each that it has lost in a row."""
TRIES = 3
"""Workers in a row that a place may lose without finishing a trial before it is set aside."""
HINT = "See docs/clusters.md, and what the engine says of its nodes. The same command goes on."


PLACES = "places.json"
"""File in the folder of a search that tells of its places, for `status`."""


class Engine(Protocol):
    """Starts workers on machines."""

    def offers(self) -> Sequence[str]:
        """Names of the places that there are now; the same name means the same place."""

    def open(self, place: str) -> Channel:
        """Start a worker at a place; may take long, and is called in a thread of the place.

        Raises:
            WorkerLost: If it does not start.
        """

    def close(self) -> None:
        """End everything that was started; `open` gives up."""


@dataclass(eq=False)
class _Job:
    """A trial or a tryout that was submitted and has not ended.

    Attributes:
        attempt: The attempt that counts; empty while it waits for a place.
        left: Files that the attempt has sent so far.
    """

    spec: TrialSpec
    events: SimpleQueue[Any]
    folder: Path
    tryout: bool = False
    attempt: str = ""
    cancelled: bool = False
    losses: int = 0
    tree: Listing | None = None
    left: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Site:
    """A place and its worker."""

    name: str
    place: Place | None = None
    channel: Channel | None = None
    about: dict[str, Any] = field(default_factory=dict)
    jobs: list[_Job] = field(default_factory=list)
    waiting: SimpleQueue[_Job | None] = field(default_factory=SimpleQueue)
    failures: int = 0
    begun: float = 0.0


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
        self._setup, self._engine, self._runs, self._export, self._say = setup, engine, runs, export, say
        self._places_file = runs / setup.search / PLACES
        self._listings = {listing.key: listing for listing in setup.folders.values()}
        if setup.trusted is not None:
            self._listings[setup.trusted.key] = setup.trusted
        self._sites: dict[str, _Site] = {}
        self._aside: dict[str, str] = {}
        self._homeless: list[_Job] = []
        self._fences: dict[str, Fence] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._changed = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._tryouts = 0
        self._start(self._watch, "places")
        if start_seconds is not None:
            self.await_first(start_seconds)

    def await_first(self, seconds: float | None) -> None:
        """Wait until a place is ready; for ever if no time is given. Closes the executor if none gets ready.

        Raises:
            UserError: If none gets ready in time, or none ever will.
        """
        try:
            with self._changed:
                self._changed.wait_for(lambda: self.places, seconds)
            if not self.places:
                raise UserError(f"No worker got ready within {seconds:g} s.", HINT, code=3)
        except BaseException:
            self.close()
            raise

    # As an executor

    @property
    def places(self) -> Sequence[Place]:
        """Where trials can run now; those with the fewest trials come first.

        Raises:
            UserError: If every place there was has been set aside.
        """
        with self._lock:
            if self._aside and not self._sites and not self._closed.is_set():
                why = "; ".join(dict.fromkeys(self._aside.values()))
                raise UserError(f"No place is left for trials: {why}.", HINT, code=3)
            ready = [site for site in self._sites.values() if site.place is not None]
            return [site.place for site in sorted(ready, key=lambda s: len(s.jobs)) if site.place]

    @property
    def capacity(self) -> int:
        """How many places there are once all that start are ready."""
        with self._lock:
            return len(self._sites)

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What is known of each place that is ready: name -> what its worker said."""
        with self._lock:
            return {site.name: dict(site.about) for site in self._sites.values() if site.place}

    @property
    def settled(self) -> bool:
        """Whether every place that the engine offers is ready or set aside."""
        with self._lock:
            return all(site.place for site in self._sites.values())

    @property
    def set_aside(self) -> dict[str, str]:
        """Places that are not used any more, and why."""
        with self._lock:
            return dict(self._aside)

    def submit(self, spec: TrialSpec, place: str, events: SimpleQueue[Any]) -> None:
        """See `Executor`. If the place is gone by now, the trial runs at another."""
        job = _Job(spec, events, self._runs / spec.search / "trials" / str(spec.trial))
        with self._lock:
            self._assign(job, self._sites.get(place))

    def cancel(self, search: str, trials: Iterable[int]) -> None:
        """See `Executor`."""
        numbers = set(trials)

        def meant(job: _Job) -> bool:
            return not job.tryout and job.spec.search == search and job.spec.trial in numbers

        with self._lock:
            for site in self._sites.values():
                for job in filter(meant, site.jobs):
                    job.cancelled = True
                    if job.attempt:
                        self._tell(site, {"kind": "cancel", "attempts": [job.attempt]})
            for job in [job for job in self._homeless if meant(job)]:
                self._homeless.remove(job)
                self._finish(job, "", None)

    def tryout(self, spec: TrialSpec) -> Measurement:
        """See `Executor`; at the least busy place."""
        events: SimpleQueue[Any] = SimpleQueue()
        with self._lock:
            self._tryouts += 1
            folder = self._runs / spec.search / "trials" / f"tryout-{self._tryouts}"
            numbered = replace(spec, trial=-1_000_000_000 - self._tryouts)
            self._assign(_Job(numbered, events, folder, tryout=True), None)
        while not isinstance(event := events.get(), Finished):
            pass
        if isinstance(event.result, Measurement):
            return event.result
        raise event.result or UserError("A tryout was stopped: the search ends.", code=3)

    def close(self) -> None:
        """See `Executor`."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
            for site in self._sites.values():
                for job in list(site.jobs):
                    job.cancelled = True
                site.waiting.put(None)
                self._tell(site, {"kind": "close"})
            homeless, self._homeless = self._homeless, []
        for job in homeless:
            self._finish(job, "", None)
        self._engine.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._places_file.unlink(missing_ok=True)

    # Places come and go

    def _start(self, target: Callable[..., None], name: str, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Start a worker at each place that the engine offers, as they come."""
        while not self._closed.is_set():
            offered = self._engine.offers()
            with self._lock:
                for name in offered:
                    if name not in self._sites and name not in self._aside and not self._closed.is_set():
                        self._sites[name] = site = _Site(name)
                        self._start(self._live, f"worker {name}", site)
                        self._start(self._hand_over, f"orders {name}", site)
            self._closed.wait(LOOK_SECONDS)

    def _live(self, site: _Site) -> None:
        """Keep a worker at a place, for as long as there is the place."""
        while not self._closed.is_set():
            site.begun = time.monotonic()
            try:
                channel = self._engine.open(site.name)
                try:
                    self._listen(site, channel)
                finally:
                    channel.close()
            except WorkerLost as lost:
                self._lost(site, str(lost), interrupted=lost.interrupted)
            except Exception as error:  # what a worker says makes no sense: it is as good as lost
                self._lost(site, f"{type(error).__name__}: {error}")
            if site.name in self._aside or site.name not in self._engine.offers():
                break
            self._closed.wait(BACKOFF_SECONDS * site.failures)
        with self._lock:
            self._sites.pop(site.name, None)
            site.waiting.put(None)
        self._lost(site, "")

    def _listen(self, site: _Site, channel: Channel) -> None:
        channel.send({"kind": "setup", "setup": self._setup.to_dict()})
        with self._lock:
            site.channel = channel
        told = time.monotonic()
        while not self._closed.is_set():
            message = channel.receive(LOOK_SECONDS / 4)
            if message is not None:
                self._heard(site, channel, message)
            if time.monotonic() > told + LOOK_SECONDS:
                told = time.monotonic()
                channel.send({"kind": "ping"})

    def _lost(self, site: _Site, why: str, *, interrupted: bool = False) -> None:
        """Have the trials of a lost worker repeated elsewhere; after `close`, end them."""
        with self._changed:
            site.channel = site.place = None
            jobs, site.jobs = site.jobs, []
            closed = self._closed.is_set()
            if why and not closed:
                site.failures += not interrupted
                self._tell_all(jobs, f"The worker at {site.name} is lost: {why}.")
                if site.failures >= TRIES:
                    self._aside[site.name] = why
                    self._tell_all(
                        jobs, f"{site.name} is set aside: {site.failures} workers in a row were lost."
                    )
            for job in jobs:
                job.losses += bool(job.attempt) and not interrupted
                job.attempt = ""
                if closed or job.cancelled:
                    self._finish(job, site.name, None)
                elif job.losses >= LOSSES:
                    failed = f"{job.losses} workers were lost under trial {job.spec.trial}: {why}."
                    self._finish(job, site.name, UserError(failed, "The same command goes on.", code=3))
                else:
                    self._assign(job, None)
            self._changed.notify_all()
            self._publish()

    def _publish(self) -> None:
        """Write down what places there are; the lock is held."""
        if not self._closed.is_set() and self._places_file.parent.is_dir():
            aside = {name: {"set_aside": why} for name, why in self._aside.items()}
            partial = self._places_file.with_suffix(".partial")
            partial.write_text(json.dumps({**self.about, **aside}))
            partial.replace(self._places_file)

    def _tell_all(self, jobs: Sequence[_Job], text: str) -> None:
        queues = {id(job.events): job.events for job in jobs if not job.tryout}
        for events in queues.values():
            events.put(Message(text, warning=True))
        if not queues:
            self._say(text)

    # Orders

    def _assign(self, job: _Job, site: _Site | None) -> None:
        """Give a job to a place; if that is gone, to one that is free, now or later. The lock is held.

        It does not queue behind the trial of another place, which may last for hours.
        """
        if site is None or site.place is None:
            ready = [s for s in self._sites.values() if s.place and (job.tryout or not s.jobs)]
            site = min(ready, key=lambda known: len(known.jobs), default=None)
        if self._closed.is_set():
            self._finish(job, "", None)
        elif site is None:
            self._homeless.append(job)
            if not job.tryout:
                waits = Progress(0.0, 0.0, phase=WAITING, note="its place is gone, and no other is free")
                job.events.put(Progressed(job.spec, "", waits))
        else:
            site.jobs.append(job)
            site.waiting.put(job)

    def _house(self) -> None:
        """Give the jobs that have no place to those that are free; the lock is held."""
        homeless, self._homeless = self._homeless, []
        for job in homeless:
            self._assign(job, None)

    def _hand_over(self, site: _Site) -> None:
        """Send the orders of a place to its worker, in a thread of their own: an export may take a while."""
        while (job := site.waiting.get()) is not None:
            try:
                order = self._order(site, job)
            except BaseException as error:
                self._finish(job, site.name, error)
                continue
            with self._lock:
                if order is None or job not in site.jobs:
                    continue  # its place was lost meanwhile, and it is assigned anew
                job.attempt = order.attempt
                if job.cancelled:
                    self._finish(job, site.name, None)
                    continue
                message = {"kind": "order", "order": order.to_dict(), "tryout": job.tryout}
                self._tell(site, message)

    def _order(self, site: _Site, job: _Job) -> Order | None:
        spec = job.spec
        if job not in site.jobs:
            return None
        if job.tree is None and not job.cancelled:
            remove_tree(job.folder)
            self._export(spec.tree, job.folder / "tree", spec.files)
            job.tree = list_folder(job.folder / "tree")
        tree, kept = job.tree or Listing(), None
        given = self._runs / spec.search / spec.submission
        if spec.submission and given.is_file():
            remove_tree(job.folder / "kept")
            (job.folder / "kept").mkdir()
            (job.folder / "kept" / "submission").hardlink_to(given)
            kept = list_folder(job.folder / "kept")
        with self._lock:
            fence = self._fences.setdefault(spec.search, Fence(self._runs / spec.search))
            attempt = fence.claim(spec.trial)
            for listing in (tree, kept):
                if listing is not None:
                    self._listings[listing.key] = listing
        return Order(attempt, spec, tree, kept, str(fence.path))

    def _tell(self, site: _Site, message: Wire) -> None:
        if site.channel is not None:
            with suppress(WorkerLost):  # the thread that listens finds out, too
                site.channel.send(message)

    # What workers say

    def _heard(self, site: _Site, channel: Channel, message: Wire) -> None:
        kind = message["kind"]
        if kind == "need":
            self._send_files(channel, self._listings[message["key"]], set(message["hashes"]))
        elif kind == "message":
            self._tell_all(site.jobs, message["text"])
        elif kind == "alive":
            pass
        elif kind == "hello":
            site.about = {"device": message["device"], "host": message["host"]}
        elif kind == "failed":
            error = decode_result(message)
            with self._lock:
                site.failures = TRIES
            raise WorkerLost(f"its measurer cannot be made: {error} {getattr(error, 'hint', '')}".strip())
        elif kind == "ready":
            with self._changed:
                site.about |= {key: value for key, value in message.items() if key != "kind"}
                site.about["start_seconds"] = time.monotonic() - site.begun
                site.place = Place(site.name, site.about["device"])
                self._house()
                self._changed.notify_all()
                self._publish()
        else:
            self._heard_of(site, message)

    def _heard_of(self, site: _Site, message: Wire) -> None:
        """Take a report of an attempt, unless another attempt counts by now."""
        with self._lock:
            job = next((job for job in site.jobs if job.attempt == message["attempt"]), None)
        if job is None or not self._fences[job.spec.search].counts(job.spec.trial, job.attempt):
            return
        match message["kind"]:
            case "started":
                job.left = set()
                job.events.put(Started(job.spec, site.name))
            case "progress":
                job.events.put(Progressed(job.spec, site.name, Progress(**message["progress"])))
            case "file":
                self._take_piece(job, message)
            case "finished":
                site.failures = 0
                result = decode_result(message)
                if isinstance(result, Measurement) and not job.cancelled:
                    result = self._keep_files(job, result)
                    result = replace(result, provenance=replace(result.provenance, place=site.name))
                self._finish(job, site.name, result)

    def _send_files(self, channel: Channel, listing: Listing, hashes: set[str]) -> None:
        for file in listing.files:
            if file.hash in hashes:
                hashes.discard(file.hash)
                for piece, last in pieces(Path(listing.at, file.path)):
                    channel.send({"kind": "file", "hash": file.hash, "data": piece, "last": last})

    def _take_piece(self, job: _Job, message: Wire) -> None:
        """Keep a piece of a file that a trial left, if it is one that was asked for."""
        path, spec = str(message["path"]), job.spec
        losses = spec.items and path.startswith(f"{spec.items}/") and path.endswith(".items.npy")
        if not (losses and path.count("/") == spec.items.count("/") + 1) and path != spec.submission:
            raise WorkerLost(f"it sent {path}, which nobody asked for")
        target = job.folder / "left" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab" if path in job.left else "wb") as stream:
            job.left.add(path)
            stream.write(message["data"])

    def _keep_files(self, job: _Job, result: Measurement) -> Measurement:
        """Move what a trial left to the folder of the search."""
        for path in job.left:
            target = self._runs / job.spec.search / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (job.folder / "left" / path).replace(target)
        return replace(result, items={k: path for k, path in result.items.items() if path in job.left})

    def _finish(self, job: _Job, place: str, result: Measurement | BaseException | None) -> None:
        with self._lock:
            for site in self._sites.values():
                if job in site.jobs:
                    site.jobs.remove(job)
            if job.tree is not None:
                self._listings.pop(job.tree.key, None)
            if (fence := self._fences.get(job.spec.search)) is not None:
                fence.end(job.spec.trial)
            self._house()
        remove_tree(job.folder)
        job.events.put(Finished(job.spec, place, None if job.cancelled else result))


def places_told(folder: Path) -> list[str]:
    """What a search that runs says of its remote places, in sentences; empty if it has none.

    Args:
        folder: Of the search.
    """
    try:
        known: dict[str, dict[str, Any]] = json.loads((folder / PLACES).read_text())
    except (OSError, ValueError):
        return []
    kinds = Counter(kind(about) for about in known.values() if "set_aside" not in about)
    lines = [f"{count(number, 'place')}: {one_line(text)}." for text, number in kinds.items()]
    aside = {name: about["set_aside"] for name, about in known.items() if "set_aside" in about}
    return lines + [f"Place {one_line(name)} is set aside: {one_line(why)}." for name, why in aside.items()]


def kind(about: Mapping[str, Any]) -> str:
    """What makes a place comparable with others, in words: its device, its sandbox."""
    return ", ".join([about["device"], *(f"{name} {text}" for name, text in about["about"].items())])
