"""Engines without a cluster: workers in threads of this process, or in processes of this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from autoresearch.errors import UserError
from autoresearch.execute.base import Place, TrialSpec
from autoresearch.execute.worker.channels import (
    FROM_WORKER,
    TO_WORKER,
    Appender,
    Channel,
    Follower,
    WorkerLost,
)
from autoresearch.execute.worker.messages import Wire, from_line, to_line
from autoresearch.execute.worker.worker import Worker
from autoresearch.types import Measurement, Outcome, Provenance


class ThreadChannel:
    """A worker in this process; messages pass as lines, as they would on a wire."""

    def __init__(self, place: str, cache: Path) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.sent: list[Wire] = []
        self.gone = ""
        self.worker = Worker(Place(place, "a device"), cache, self._arrive)

    def _arrive(self, message: Wire) -> None:
        if not self.gone:
            self.lines.put(to_line(message))

    def send(self, message: Wire) -> None:
        if self.gone:
            raise WorkerLost(self.gone)
        self.sent.append(message)
        self.worker.handle(from_line(to_line(message)))

    def receive(self, seconds: float) -> Wire | None:
        try:
            return from_line(self.lines.get(timeout=0.01))
        except Empty:
            if self.gone or self.worker.ended.is_set():
                raise WorkerLost(self.gone or "it has ended") from None
            return None

    def close(self) -> None:
        self.worker.close()


class Threads:
    """Offers places whose workers are threads; places may be added, and workers lost."""

    def __init__(self, cache: Path, places: Sequence[str]) -> None:
        self.cache, self.names = cache, list(places)
        self.opened: dict[str, list[ThreadChannel]] = {}
        self.lock = threading.Lock()

    def offers(self) -> Sequence[str]:
        return list(self.names)

    def open(self, place: str) -> Channel:
        channel = ThreadChannel(place, self.cache)
        with self.lock:
            self.opened.setdefault(place, []).append(channel)
        return channel

    def lose(self, place: str, why: str = "the machine burns") -> None:
        """As if the machine of a place were gone."""
        self.opened[place][-1].gone = why

    def close(self) -> None: ...


class ProcessChannel:
    """A worker in a process of this machine; messages pass through a folder."""

    def __init__(self, place: str, cache: Path, folder: Path) -> None:
        folder.mkdir(parents=True)
        worker = [sys.executable, "-m", "autoresearch.execute.worker", "--place", place, "--lease", "60"]
        self.process = subprocess.Popen([*worker, "--cache", str(cache), "--spool", str(folder)])
        self.out, self.answers = Appender(folder / TO_WORKER), Follower(folder / FROM_WORKER)

    def _alive(self) -> None:
        if self.process.poll() is not None:
            raise WorkerLost(f"its process ended with status {self.process.returncode}")

    def send(self, message: Wire) -> None:
        self._alive()
        self.out.send(message)

    def receive(self, seconds: float) -> Wire | None:
        return self.answers.next(seconds, self._alive)

    def close(self) -> None:
        with suppress(WorkerLost):
            self.send({"kind": "close"})
        self.process.wait(60)


class Processes:
    """Offers places whose workers are processes of this machine."""

    def __init__(self, cache: Path, places: Sequence[str]) -> None:
        self.cache, self.names = cache, list(places)
        self.opened: dict[str, list[ProcessChannel]] = {}

    def offers(self) -> Sequence[str]:
        return list(self.names)

    def open(self, place: str) -> Channel:
        opened = self.opened.setdefault(place, [])
        opened.append(ProcessChannel(place, self.cache, self.cache.parent / f"{place}-{len(opened)}"))
        return opened[-1]

    def close(self) -> None: ...


def started(events: SimpleQueue[Any]) -> Any:
    """The first event that is no message."""
    return events.get(timeout=30)


class AsNamed:
    """A measurer that behaves as the name of its place says."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def measure(self, tree: Path, spec: TrialSpec, *_: Any) -> Measurement:
        if "broken" in self.place.name:
            raise UserError("the GPU does not answer", code=3)
        speed = 50.0 if self.place.name == "slow" else 100.0
        metrics = {"tokens_per_second": speed, "clock_mhz": 10 * speed}
        return Measurement(
            Outcome.OK, 4.0, metrics=metrics, provenance=Provenance(self.place.name, "its own word")
        )

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        return Measurement(Outcome.OK)

    def close(self) -> None: ...


def as_named(place: Place, *_: Any) -> tuple[AsNamed, dict[str, str]]:
    """See `autoresearch.execute.worker.worker.Maker`."""
    return AsNamed(place), {}
