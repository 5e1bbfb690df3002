"""Keeps a worker at each place that an engine offers. Places come and go between trials.

A place that keeps losing its workers, or whose machine keeps spoiling trials, is set aside. Not covered: what
workers are told, and what they say (`executor`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from autoresearch.errors import UserError
from autoresearch.execute.base import Message, Place
from autoresearch.execute.remote.orders import Job
from autoresearch.execute.remote.records import PLACES, SPOILED, Records, publish
from autoresearch.execute.worker.channels import Channel, WorkerLost
from autoresearch.execute.worker.messages import Setup, Wire

CLOSE_SECONDS = 10.0
"""Seconds that `close` waits for the workers to end."""
LOOK_SECONDS = 2.0
"""Between two questions to the engine which places it offers, and between two signs of life to a worker."""
BACKOFF_SECONDS = 1.0
"""Pause before a place gets another worker, for each that it has lost in a row."""
TRIES = 3
"""Workers in a row that a place may lose without finishing a trial before it is set aside."""
HINT = "See docs/clusters.md, and what the engine says of its nodes. The same command goes on."


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
class Site:
    """A place and its worker."""

    name: str
    place: Place | None = None
    channel: Channel | None = None
    about: dict[str, Any] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    waiting: SimpleQueue[Job | None] = field(default_factory=SimpleQueue)
    failures: int = 0
    begun: float = 0.0


class User(Protocol):
    """Who uses the workers; called in the threads of the places."""

    def heard(self, site: Site, channel: Channel, message: Wire) -> None:
        """A worker has said something of its trials, or needs files."""

    def hand_over(self, site: Site) -> None:
        """Send jobs that are given to a place to its worker, until there is None."""

    def lost(self, site: Site, jobs: Sequence[Job], why: str, *, interrupted: bool) -> None:
        """A worker is lost, or all are closed; these were its jobs. The lock is held."""

    def ready(self) -> None:
        """A worker has got ready. The lock is held."""


class Workers:
    """The places of one executor.

    Attributes:
        lock: Guards the places and their jobs; notified when they change.
        sites: The places that there are, by name.
        aside: Places that are not used any more, and why.
        records: How they fare.
        closed: Set by `close`.
    """

    def __init__(
        self, setup: Setup, engine: Engine, folder: Path, user: User, say: Callable[[str], None]
    ) -> None:
        """Prepare; `start` must follow.

        Args:
            setup: What each worker makes its measurer of.
            engine: Starts them; `close` closes it.
            folder: Of the search, for the file that tells of the places.
            user: Is told what happens.
            say: Tells a person something.
        """
        self._setup, self._engine, self._folder, self._user, self._say = setup, engine, folder, user, say
        self.lock = threading.Condition(threading.RLock())
        self.sites: dict[str, Site] = {}
        self.aside: dict[str, str] = {}
        self.records = Records()
        self.closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to start workers."""
        self._start(self._watch, "places")

    @property
    def places(self) -> Sequence[Place]:
        """Where trials can run now; those with the fewest trials come first.

        Raises:
            UserError: If every place there was has been set aside.
        """
        with self.lock:
            if self.aside and not self.sites.keys() - self.aside.keys() and not self.closed.is_set():
                why = "; ".join(dict.fromkeys(self.aside.values()))
                raise UserError(f"No place is left for trials: {why}.", HINT, code=3)
            ready = [s for s in self.sites.values() if s.place is not None and s.name not in self.aside]
            return [site.place for site in sorted(ready, key=lambda s: len(s.jobs)) if site.place]

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What is known of each place that is ready: name -> what its worker said."""
        with self.lock:
            return {site.name: dict(site.about) for site in self.sites.values() if site.place}

    def tell(self, site: Site, message: Wire) -> None:
        """Send a message to the worker of a place, if it has one."""
        if site.channel is not None:
            with suppress(WorkerLost):  # the thread that listens finds out, too
                site.channel.send(message)

    def tell_people(self, jobs: Sequence[Job], text: str) -> None:
        """Tell the searches of these jobs something; without any, the person who started this."""
        queues = {id(job.events): job.events for job in jobs if not job.tryout}
        for events in queues.values():
            events.put(Message(text, warning=True))
        if not queues:
            self._say(text)

    def spoiled(self, site: Site, jobs: Sequence[Job], why: str) -> None:
        """A place has spoiled a trial: set it aside if it does so again and again, unless it is the last."""
        with self.lock:
            self.publish()
            left = any(other.place and other is not site for other in self.sites.values())
            if self.records.spoils(site.name) and left and site.name not in self.aside:
                self.aside[site.name] = f"{why} ({SPOILED} trials in a row did not count)"
                self.tell_people(jobs, f"{site.name} is set aside: {self.aside[site.name]}.")
                self.publish()

    def publish(self) -> None:
        """Write down what places there are."""
        with self.lock:
            if not self.closed.is_set():
                publish(self._folder, self.about, self.aside, self.records)

    def close(self) -> None:
        """End all workers."""
        self._engine.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        (self._folder / PLACES).unlink(missing_ok=True)

    # In the threads of places

    def _start(self, target: Callable[..., None], name: str, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(self) -> None:
        """Start a worker at each place that the engine offers, as they come."""
        while not self.closed.is_set():
            offered = self._engine.offers()
            with self.lock:
                for name in offered:
                    if name not in self.sites and name not in self.aside and not self.closed.is_set():
                        self.sites[name] = site = Site(name)
                        self._start(self._live, f"worker {name}", site)
                        self._start(self._user.hand_over, f"orders {name}", site)
            self.closed.wait(LOOK_SECONDS)

    def _live(self, site: Site) -> None:
        """Keep a worker at a place, for as long as there is the place."""
        while not self.closed.is_set():
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
            if site.name in self.aside or site.name not in self._engine.offers():
                break
            self.closed.wait(BACKOFF_SECONDS * site.failures)
        with self.lock:
            self.sites.pop(site.name, None)
            site.waiting.put(None)
        self._lost(site, "")

    def _listen(self, site: Site, channel: Channel) -> None:
        channel.send({"kind": "setup", "setup": self._setup.to_dict()})
        with self.lock:
            site.channel = channel
        told = time.monotonic()
        while not self.closed.is_set() and site.name not in self.aside:
            message = channel.receive(LOOK_SECONDS / 4)
            if message is not None:
                self._heard(site, channel, message)
            if time.monotonic() > told + LOOK_SECONDS:
                told = time.monotonic()
                channel.send({"kind": "ping"})

    def _heard(self, site: Site, channel: Channel, message: Wire) -> None:
        match message["kind"]:
            case "alive":
                pass
            case "message":
                self.tell_people(site.jobs, message["text"])
            case "hello":
                site.about = {"device": message["device"], "host": message["host"]}
            case "ready":
                with self.lock:
                    site.about |= {key: value for key, value in message.items() if key != "kind"}
                    site.about["start_seconds"] = time.monotonic() - site.begun
                    site.place = Place(site.name, site.about["device"])
                    self._user.ready()
                    self.lock.notify_all()
                    self.publish()
            case _:
                self._user.heard(site, channel, message)

    def _lost(self, site: Site, why: str, *, interrupted: bool = False) -> None:
        """Give back the trials of a lost worker; after `close`, and where a place ends, without a reason."""
        with self.lock:
            site.channel = site.place = None
            jobs, site.jobs = site.jobs, []
            if why and not self.closed.is_set():
                site.failures += not interrupted
                if not interrupted:
                    self.records.failed(site.name)
                self.tell_people(jobs, f"The worker at {site.name} is lost: {why}.")
                if site.failures >= TRIES:
                    self.aside[site.name] = why
                    lost = f"{site.name} is set aside: {site.failures} workers in a row were lost."
                    self.tell_people(jobs, lost)
            self._user.lost(site, jobs, why, interrupted=interrupted)
            self.lock.notify_all()
            self.publish()
