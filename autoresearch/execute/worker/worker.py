"""The worker: measures trials at one place of any machine, as told by messages.

It makes the task's measurer from plain data and runs it through the local executor, so that sandbox, scorer
and every check on a trial are those of a search on one machine. It knows nothing of journals or verdicts.
Prepared data lie in its file store, which no sandbox shows. Not covered: how messages travel (`channels`).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from autoresearch import __version__
from autoresearch.errors import UserError
from autoresearch.execute.base import Finished, Measurer, Place, Progressed, Started
from autoresearch.execute.local import LocalExecutor
from autoresearch.execute.worker.fence import superseded
from autoresearch.execute.worker.files import File, FileStore, Listing, pieces
from autoresearch.execute.worker.messages import Order, Setup, Wire, encode_result
from autoresearch.store.files import remove_tree
from autoresearch.types import Measurement

Maker = Callable[
    [Place, Mapping[str, Path], Mapping[str, Any], Callable[[str], None]],
    tuple[Measurer, Mapping[str, str]],
]
"""Makes the measurer of a place from folders, options and a way to tell a person something; also gives what
is known of the place, name -> text. `Setup.maker` names such a function."""

PROGRESS_SECONDS = 0.2
"""Least time between two messages of progress."""

FENCE_SECONDS = 2.0
"""Time between two looks at the fence."""


class Worker:
    """One place. `handle` takes the messages; answers go to `send`, from several threads.

    Attributes:
        ended: Set once the worker has nothing more to do: it was closed, or it was superseded.
    """

    def __init__(self, place: Place, cache: Path, send: Callable[[Wire], None]) -> None:
        """Say hello; makes nothing yet.

        Args:
            place: Its name as the search knows it, and the fingerprint of its device.
            cache: Folder that the workers of this machine share.
            send: Sends a message; may be called from any thread.

        Raises:
            UserError: If the folder cannot be written.
        """
        self.ended = threading.Event()
        self._place, self._send = place, send
        self._store = FileStore(cache.expanduser())
        self._runs = _own_folder(self._store.root / "workers")
        self._arrived: SimpleQueue[Wire | None] = SimpleQueue()
        self._fetching = threading.Lock()
        self._local: LocalExecutor | None = None
        self._trees: dict[str, Listing] = {}
        self._running: dict[str, tuple[str, int]] = {}
        self._cancelled: set[str] = set()
        self._trials: SimpleQueue[Setup | Order | None] = SimpleQueue()
        self._tryouts: SimpleQueue[Setup | Order | None] = SimpleQueue()
        # A process dies with the thread that started it, so these threads live as long as the worker.
        self._threads = [
            threading.Thread(target=self._work, args=pair, daemon=True)
            for pair in ((self._trials, self._run), (self._tryouts, self._try_out))
        ]
        for thread in self._threads:
            thread.start()
        send({"kind": "hello", **asdict(place), "host": socket.gethostname()})

    def handle(self, message: Wire) -> None:
        """Take a message; returns at once."""
        match message["kind"]:
            case "setup":
                self._trials.put(Setup.from_dict(message["setup"]))
            case "order":
                (self._tryouts if message["tryout"] else self._trials).put(Order.from_dict(message["order"]))
            case "cancel":
                self._cancel(message["attempts"])
            case "file":
                self._arrived.put(message)
            case "ping":
                self._send({"kind": "alive"})
            case "close":
                self.ended.set()

    def close(self) -> None:
        """End what runs, and remove what it left, except for the file store."""
        self.ended.set()
        self._arrived.put(None)
        for queue in (self._trials, self._tryouts):
            queue.put(None)
        if self._local is not None:
            self._local.close()
        for thread in self._threads:
            thread.join(5.0)
        remove_tree(self._runs)
        self._runs.with_suffix(".lock").unlink(missing_ok=True)

    def _cancel(self, attempts: list[str]) -> None:
        self._cancelled.update(attempts)
        for attempt in attempts:
            if self._local is not None and (running := self._running.get(attempt)):
                self._local.cancel(running[0], [running[1]])

    # In the threads of the worker

    def _work(self, queue: SimpleQueue[Setup | Order | None], how: Callable[[Order], None]) -> None:
        while (job := queue.get()) is not None and not self.ended.is_set():
            try:
                if isinstance(job, Setup):
                    self._set_up(job)
                else:
                    how(job)
            except BaseException as error:
                if self.ended.is_set():
                    return
                name = {} if isinstance(job, Setup) else {"attempt": job.attempt}
                kind = "failed" if isinstance(job, Setup) else "finished"
                self._send({"kind": kind, **name, **encode_result(error)})

    def _set_up(self, setup: Setup) -> None:
        begun = time.monotonic()
        _check(setup.versions)
        brought, folders = 0, {}
        for name, listing in setup.folders.items():
            if (original := self._store.original(listing)) is None:
                brought += self._fetch(listing)
            folders[name] = original or self._store.folder(listing)
        if setup.trusted is not None:
            brought += self._fetch(setup.trusted)
            folders["trusted"] = self._runs / setup.search / "trusted"
            self._store.copy(setup.trusted, folders["trusted"])
        fetched = time.monotonic()
        module, _, name = setup.maker.partition(":")
        make: Maker = getattr(import_module(module), name)
        measurer, about = make(self._place, folders, setup.options, self._say)
        self._local = LocalExecutor({self._place: measurer}, self._runs, self._export)
        times = {"transfer_seconds": fetched - begun, "setup_seconds": time.monotonic() - fetched}
        self._send({"kind": "ready", "about": dict(about), "bytes": brought, **times})

    def _run(self, order: Order) -> None:
        spec, attempt = order.spec, order.attempt
        assert self._local is not None, "an order comes after the setup"
        home = self._runs / spec.search
        self._fetch(order.tree)
        self._trees[order.tree.key] = order.tree
        if order.kept is not None:
            self._fetch(order.kept)
            self._store.copy(order.kept, kept := home / "kept")
            (home / spec.submission).parent.mkdir(parents=True, exist_ok=True)
            (kept / order.kept.files[0].path).replace(home / spec.submission)
            remove_tree(kept)
        events: SimpleQueue[Any] = SimpleQueue()
        self._running[attempt] = spec.search, spec.trial
        self._local.submit(replace(spec, files={}, tree=order.tree.key), self._place.name, events)
        if attempt in self._cancelled:
            self._local.cancel(spec.search, [spec.trial])
        result = self._forward(order, events)
        del self._running[attempt], self._trees[order.tree.key]
        self._cancelled.discard(attempt)
        if isinstance(result, Measurement):
            result = replace(result, provenance=replace(result.provenance, place=self._place.name))
            self._send_files(order, result)
        for left in (home / spec.items if spec.items else None, home / spec.submission):
            if left is not None and left != home:
                remove_tree(left) if left.is_dir() else left.unlink(missing_ok=True)
        self._send({"kind": "finished", "attempt": attempt, **encode_result(result)})

    def _forward(self, order: Order, events: SimpleQueue[Any]) -> Measurement | BaseException | None:
        """Pass the events of a trial on until it ends; gives its result."""
        told = looked = 0.0
        while not isinstance(event := events.get(), Finished):
            now = time.monotonic()
            if now > looked + FENCE_SECONDS:
                looked = now
                if superseded(order.fence, order.attempt):
                    self.ended.set()
                    assert self._local is not None
                    self._local.cancel(order.spec.search, [order.spec.trial])
            if isinstance(event, Started):
                self._send({"kind": "started", "attempt": order.attempt})
            elif isinstance(event, Progressed) and now > told + PROGRESS_SECONDS:
                told = now
                self._send({"kind": "progress", "attempt": order.attempt, "progress": asdict(event.progress)})
        return event.result

    def _try_out(self, order: Order) -> None:
        assert self._local is not None, "an order comes after the setup"
        self._fetch(order.tree)
        key = f"{order.tree.key} tryout"
        self._trees[key] = order.tree
        result = self._local.tryout(replace(order.spec, files={}, tree=key))
        del self._trees[key]
        self._send({"kind": "finished", "attempt": order.attempt, **encode_result(result)})

    def _send_files(self, order: Order, result: Measurement) -> None:
        """Send the losses of items, and what the candidate submitted if it was not there before."""
        home = self._runs / order.spec.search
        left = list(result.items.values())
        if order.spec.submission and order.kept is None and (home / order.spec.submission).is_file():
            left.append(order.spec.submission)
        for path in left:
            for piece, last in pieces(home / path):
                message = {"kind": "file", "attempt": order.attempt, "path": path, "last": last}
                self._send({**message, "data": piece})

    def _fetch(self, listing: Listing) -> int:
        """Get the files of a listing that this machine lacks; gives how many bytes had to be sent."""
        with self._fetching, self._store.locked(listing):
            missing: dict[str, File] = {file.hash: file for file in self._store.missing(listing)}
            size = sum(file.size for file in missing.values())
            if missing:
                self._send({"kind": "need", "key": listing.key, "hashes": list(missing)})
            while missing:
                message = self._arrived.get()
                if message is None:
                    raise UserError("The worker was closed while it waited for files.", code=3)
                if (file := missing.get(message["hash"])) is not None:
                    self._store.receive(file, message["data"], message["last"])
                    if message["last"]:
                        del missing[file.hash]
            return size

    def _export(self, key: str, folder: Path, files: Mapping[str, str]) -> None:
        self._store.copy(self._trees[key], folder)

    def _say(self, text: str) -> None:
        self._send({"kind": "message", "text": f"{self._place.name} on {socket.gethostname()}: {text}"})


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of packages and of this program; those that are not installed are left out."""
    found = {"autoresearch": __version__}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _check(versions: Mapping[str, str]) -> None:
    """Check that this machine has the versions on which scores depend.

    Raises:
        UserError: If it has others.
    """
    here = installed(versions)
    wrong = [
        f"{name} {here.get(name, '(none)')}, not {wanted}"
        for name, wanted in versions.items()
        if here.get(name) != wanted
    ]
    if wrong:
        raise UserError(
            f"{socket.gethostname()} has {', '.join(wrong)}: its scores would not be comparable.",
            "Install there what the search has.",
            code=3,
        )


def _own_folder(parent: Path) -> Path:
    """A new folder for the trials of this process; those of processes that are gone are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob("*.lock"):
        with suppress(Timeout, OSError), FileLock(path, timeout=0):
            remove_tree(path.with_suffix(""))
            path.unlink(missing_ok=True)
    folder = parent / f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"
    lock = FileLock(folder.with_suffix(".lock"))
    lock.acquire()
    _locks.append(lock)
    folder.mkdir()
    return folder


_locks: list[FileLock] = []
"""Held until the process ends."""
