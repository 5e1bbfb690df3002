"""The executor `ray`: one worker in an actor at each place of a Ray cluster, kept warm between trials.

Places follow from the resources of the nodes: one for each GPU, or for each so many CPUs as a trial has
threads. Nodes may come and go: a node that dies takes its places with it, a new one adds some. An actor ends
with its driver, or when nobody has asked it for anything for a while. Ray is imported when it is used.
Not covered: how a cluster is made (docs/clusters.md).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pydantic import Field

from autoresearch.config import Executor as ExecutorOptions
from autoresearch.config import Options, parse
from autoresearch.errors import UserError
from autoresearch.execute.base import Place
from autoresearch.execute.local import Export
from autoresearch.execute.places import cores, fingerprint
from autoresearch.execute.remote import RemoteExecutor
from autoresearch.execute.worker.channels import Channel, WorkerLost
from autoresearch.execute.worker.messages import Setup, Wire
from autoresearch.execute.worker.worker import Worker

LEASE_SECONDS = 120.0
"""Seconds after which an actor that nobody asks for anything ends."""
START_SECONDS = 120.0
"""Seconds that an actor may take to start once it has its place."""
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
"""No reports to Ray's makers, and no cluster that nobody asked for."""


class RayOptions(Options):
    """What configs/executor/ray.yaml has beside the options of every executor."""

    address: str | None
    cache: Path
    start_seconds: float = Field(gt=0)


class RayExecutor(RemoteExecutor):
    """Runs trials on a Ray cluster; see `autoresearch.execute.base.Executor`."""

    remote = True

    def __init__(
        self,
        setup: Setup,
        options: ExecutorOptions,
        runs: Path,
        export: Export,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Connect to the cluster, or start one on this machine, and start workers.

        Args:
            setup: What each worker makes its measurer of.
            options: The group `executor`.
            runs: The folder that holds the folders of the searches.
            export: Writes the tree of a candidate.
            say: Tells a person something.

        Raises:
            UserError: If Ray is not installed or does not answer, or if no worker gets ready in time.
        """
        given = self.check(options)
        need = {"num_gpus": 1} if options.device == "cuda" else {"num_cpus": options.threads or 1}
        engine = RayEngine(given.address, given.cache, need, options.workers)
        self._disconnect = engine.disconnect
        super().__init__(setup, engine, runs, export, start_seconds=given.start_seconds, say=say)

    @staticmethod
    def check(options: ExecutorOptions) -> RayOptions:
        """Check the options that are Ray's own.

        Raises:
            UserError: If one is wrong.
        """
        return parse(RayOptions, options.model_extra or {}, "executor")

    def close(self) -> None:
        """See `Executor`; leaves the cluster last, for threads of the places still use the connection."""
        super().close()
        self._disconnect()


class RayEngine:
    """Starts workers as actors; implements `remote.Engine`."""

    def __init__(
        self, address: str | None, cache: Path, need: Mapping[str, int], most: int | None = None
    ) -> None:
        """Connect.

        Args:
            address: Of a cluster, as `ray.init` takes it; None: start Ray on this machine.
            cache: Folder that the workers of a machine share; they make it.
            need: What an actor needs from Ray: {"num_cpus": 2} or {"num_gpus": 1}.
            most: Largest number of places; None: as many as there is room for.

        Raises:
            UserError: If Ray is not installed, or does not answer.
        """
        self._cache, self._need, self._most = cache, dict(need), most
        [(kind, self._each)] = need.items()
        self._resource = "GPU" if kind == "num_gpus" else "CPU"
        self._closed = threading.Event()
        self._actors: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ray = _connect(address, most * self._each if most and self._resource == "CPU" else None)
        if address is not None and most is not None:
            _ask_for(self._ray, [{self._resource: self._each}] * most)

    def offers(self) -> Sequence[str]:
        """One place for each GPU, or for each so many CPUs, of every node that lives."""
        if self._closed.is_set():
            return []
        with self._lock, suppress(Exception):  # the head may be away for a moment: what was known still holds
            found: dict[str, str] = {}
            for node in self._ray.nodes():
                if node["Alive"]:
                    number = int(node["Resources"].get(self._resource, 0) // self._each)
                    name = f"{node['NodeManagerHostname']}-{node['NodeID'][:4]}"
                    word = self._resource.lower()
                    found |= {f"{name}:{word}:{i}": node["NodeID"] for i in range(number)}
            self._nodes = found
        return list(self._nodes)[: self._most]

    def open(self, place: str) -> Channel:
        """Start an actor on the node of a place; see `Engine`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = self._nodes.get(place)
        if node is None:
            raise WorkerLost("its node is gone")
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        groups = {"orders": 1, "answers": 1}
        kind = self._ray.remote(**self._need, max_restarts=0, concurrency_groups=groups)(_Actor)
        with self._lock:
            if self._closed.is_set():
                raise WorkerLost("the executor is closed")
            actor = kind.options(scheduling_strategy=strategy).remote(place, str(self._cache), self._resource)
            self._actors[place] = actor
        return _Connection(self._ray, actor)

    def close(self) -> None:
        """Kill what still runs."""
        self._closed.set()
        with self._lock:
            actors = list(self._actors.values())
        if self._most is not None:
            _ask_for(self._ray, [])
        deadline = time.monotonic() + 5.0
        for actor in actors:
            with suppress(Exception):
                self._ray.get(actor.end.remote(), timeout=max(0.1, deadline - time.monotonic()))
            with suppress(Exception):
                self._ray.kill(actor)

    def disconnect(self) -> None:
        """Leave the cluster; Ray ends where it was started here."""
        self._ray.shutdown()


class _Actor:
    """The worker of one place, inside Ray."""

    def __init__(self, place: str, cache: str, resource: str) -> None:
        device = "cuda:0" if resource == "GPU" else "cpu"  # Ray shows it only its own GPU
        self._answers: SimpleQueue[Wire] = SimpleQueue()
        self._early: dict[int, Wire] = {}
        self._next = 0
        self._asked = time.monotonic()
        self._worker = Worker(Place(place, fingerprint(device)), Path(cache), self._answers.put)
        threading.Thread(target=self._watch, daemon=True).start()

    def order(self, number: int, message: Wire) -> None:
        """Take a message; they may arrive in another order than they were sent."""
        self._early[number] = message
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._worker.handle(following)

    def answers(self, seconds: float) -> list[Wire]:
        """What the worker has to say; waits up to so many seconds for something."""
        self._asked = time.monotonic()
        found: list[Wire] = []
        with suppress(Empty):
            found.append(self._answers.get(timeout=seconds))
            while len(found) < 100:
                found.append(self._answers.get_nowait())
        return found

    def end(self) -> None:
        """End what runs."""
        self._worker.close()

    def _watch(self) -> None:
        while not self._worker.ended.wait(1.0):
            if time.monotonic() > self._asked + LEASE_SECONDS:
                self._worker.close()
        time.sleep(30.0)  # the driver fetches the last answer, and kills this process
        os._exit(0)


class _Connection:
    """Messages to and from an actor; implements `worker.channels.Channel`."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._sending = threading.Lock()
        self._sent = 0
        self._heard: list[Wire] = []
        self._begun, self._first = time.monotonic(), True

    def send(self, message: Wire) -> None:
        """See `Channel`; waits only with pieces of files, so that they do not pile up."""
        with self._sending:
            taken = self._call(self._actor.order.options(concurrency_group="orders"), self._sent, message)
            self._sent += 1
        if message["kind"] == "file":
            self._result(taken, START_SECONDS)

    def receive(self, seconds: float) -> Wire | None:
        """See `Channel`."""
        if not self._heard:
            asked = self._call(self._actor.answers.options(concurrency_group="answers"), seconds)
            patience = START_SECONDS if self._first else LEASE_SECONDS
            self._heard = self._result(asked, seconds + patience)
            self._first = False
        return self._heard.pop(0) if self._heard else None

    def close(self) -> None:
        """See `Channel`."""
        with suppress(Exception):
            self._ray.get(self._actor.end.remote(), timeout=5.0)
        with suppress(Exception):
            self._ray.kill(self._actor)

    def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return method.remote(*arguments)
        except Exception as error:
            raise WorkerLost(_said(error)) from None

    def _result(self, reference: Any, seconds: float) -> Any:
        try:
            return self._ray.get(reference, timeout=seconds)
        except Exception as error:
            raise WorkerLost(_said(error)) from None


def _connect(address: str | None, cpus: int | None) -> Any:
    """Import Ray and connect; gives the module.

    Raises:
        UserError: If that fails.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is None:  # whoever may connect runs code
        # What Ray does by itself on macOS and Windows: it listens on the loopback, not on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise UserError(
            "executor=ray needs Ray, which is not installed.",
            "Install it: pip install 'autoresearch[ray]'",
            code=3,
        ) from None
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"address": "local", "num_cpus": cpus or cores(), "include_dashboard": False}
    try:
        # Ray lets workers import from the current folder: a checkout of the user, perhaps of another version.
        with chdir("/"):
            ray.init(**options, log_to_driver=False, logging_level="error", namespace="autoresearch")
    except Exception as error:
        raise UserError(
            f"Ray does not answer at {address or 'this machine'}: {_said(error)}",
            "See `ray status`, and docs/clusters.md.",
            code=3,
        ) from None
    return ray


def _ask_for(ray: Any, bundles: list[dict[str, int]]) -> None:
    """Tell an autoscaling cluster what is wanted; another cluster ignores it."""
    with suppress(Exception):
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)


def _said(error: Exception) -> str:
    """What Ray says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
