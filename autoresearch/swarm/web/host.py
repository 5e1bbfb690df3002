"""Runs a server of tracks on this machine: the lock, the HTTP server, and a verifier process for each track.

One server at a time has a store. A verifier that ends is started again; the verifiers of a server that was
killed end by themselves, and until then no second one verifies the same track, since a search has a lock of
its own. Connections that send too slowly are closed, so that they take no place from others.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.config import Serve as Limits
from autoresearch.errors import UserError
from autoresearch.store.connection import holds_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.lock import RUNS_ALREADY, lock
from autoresearch.swarm.store import FOLDER, Store
from autoresearch.swarm.verify.verifier import require_safe
from autoresearch.swarm.web.server import create_app
from autoresearch.swarm.web.track import Track

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from uvicorn import Server

PATIENCE = 5.0
"""Seconds that a request waits for another process that writes the store."""

CONNECTIONS, OF_ONE = 500, 40
"""Connections at a time, in all and of one address."""

RESTART = (1.0, 5.0, 30.0, 60.0)
"""Seconds before a verifier is started again, for each time in a row that it failed."""


@contextmanager
def opened(
    names: Sequence[str], runs: Path, repository: Repository
) -> Iterator[tuple[dict[str, Track], Store]]:
    """The tracks and the store of a server, which nobody else serves meanwhile.

    Args:
        names: Of the searches that are tracks.
        runs: Folder of searches.
        repository: With their commits.

    Raises:
        UserError: If there is no such search, its candidates are not safe to run, or another process serves.
    """
    for name in names:
        if not holds_search(runs / name):
            raise UserError(
                f"There is no search {name} to make a track of.",
                f"Begin it, and measure its starting point: autoresearch run name={name} experiments=0",
            )
    folder = runs / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder))
        except UserError as error:
            if error.code != RUNS_ALREADY:
                raise
            raise UserError(
                f"Another process serves the tracks in {runs} already.",
                "End it first, or name all tracks in one command: autoresearch serve TRACK TRACK",
                code=RUNS_ALREADY,
            ) from None
        store = stack.enter_context(Store(folder, PATIENCE))
        tracks = {}
        for name in names:
            tracks[name] = track = Track(runs / name, store, repository)
            stack.callback(track.close)
            require_safe(track.config)
            track.begin()
        yield tracks, store


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on.

    Raises:
        UserError: If the port cannot be listened on.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(100)  # who connects before the server has started waits for it
    except OSError as error:
        listener.close()
        hint = "Choose another --port, or 0."
        raise UserError(f"{host}:{port} cannot be listened on: {error.strerror}.", hint, code=3) from None
    return listener


def http_server(tracks: dict[str, Track], store: Store, limits: Limits, proxies: str = "") -> Server:
    """The HTTP server; `run(sockets=[...])` serves until a signal, or until `should_exit` is set.

    Args:
        tracks: Name -> track.
        store: The store.
        limits: What is taken from strangers.
        proxies: Addresses of reverse proxies, with commas: they say who asks, and nobody else is believed.
    """
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            create_app(tracks, store, limits),
            http=_protocol(limits.seconds, proxies),
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=16_384,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies or None,
        )
    )


def _protocol(seconds: float, proxies: str = "") -> type:
    """A protocol that closes connections which do nothing, or only slowly, or are too many of an address.

    A reverse proxy may have any number of them: it has those of everybody.
    """
    trusted = {address.strip() for address in proxies.split(",")}
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        seen: object = None
        idle = 0
        timer: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            mine = self.client[0] if self.client else ""
            others = [getattr(one, "client", None) or ("",) for one in self.connections]
            if mine not in trusted and sum(other[0] == mine for other in others) > OF_ONE:
                transport.abort()
                return
            self.timer = self.loop.call_later(seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.timer is not None:
                self.timer.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            """Close it if no request was begun since the last look, or one is answered for very long."""
            serving = self.cycle is not None and not self.cycle.response_complete
            self.idle = self.idle + 1 if self.cycle is self.seen else 0
            self.seen = self.cycle
            if self.idle > (20 if serving else 0) or self.cycle is None:
                self.transport.abort()
                return
            self.timer = self.loop.call_later(seconds, self._look)

    return Protocol


class Verifiers:
    """A verifier process for each track, started again when it ends. Use it as a context.

    Args:
        tracks: Folders of the searches.
        repository: Where the processes run.
        say: Tells a person something.
        limits: Settings of the server.
    """

    def __init__(
        self,
        tracks: Sequence[Path],
        repository: Repository,
        say: Callable[[str], None],
        limits: Sequence[str] = (),
    ) -> None:
        self._folders, self._root, self._say, self._limits = tracks, repository.root, say, limits
        self._closed = threading.Event()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._threads = [threading.Thread(target=self._keep, args=(one,), daemon=True) for one in tracks]

    def __enter__(self) -> Verifiers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        for process in list(self._processes.values()):
            process.terminate()
        for thread in self._threads:
            thread.join()

    def _keep(self, folder: Path) -> None:
        """Keep the verifier of one track running."""
        name, failed = folder.name, 0
        command = [sys.executable, "-m", "autoresearch", "verify", f"name={name}", f"runs={folder.parent}"]
        command += [*self._limits, "--parent", str(os.getpid())]
        while not self._closed.is_set():
            with (folder / "verifier.log").open("ab") as output:
                process = subprocess.Popen(
                    command, cwd=self._root, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            self._processes[name] = process
            if self._closed.is_set():
                process.terminate()
            code = process.wait()
            if self._closed.is_set():
                return
            if code != RUNS_ALREADY:
                said = f"it says why in {folder / 'verifier.log'}"
                self._say(f"The verifier of {name} ended (exit code {code}); it is started again; {said}")
            self._closed.wait(RESTART[min(failed, len(RESTART) - 1)])
            failed += 1
