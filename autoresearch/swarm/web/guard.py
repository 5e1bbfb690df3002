"""What stands before the handlers of a server: limits of requests, headers, answers that are made once."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from autoresearch.swarm.queue import network
from autoresearch.swarm.web.track import FRESH, Track

MOST_NETWORKS = 10_000
"""Networks whose requests are counted, the latest: a flood of addresses takes no more memory."""

MOST_ANSWERS = 64
"""Answers that are remembered, the latest."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Rates:
    """Counts the requests of each network: a bucket of tokens that fills up again within a minute.

    Args:
        most: Requests in a minute.
        clock: Seconds, by a clock that cannot be set.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, who: str) -> float:
        """Count a request; 0 if it may be served, else the seconds until one may."""
        now = self._clock()
        left, last = self._buckets.pop(who, (float(self._most), now))
        left = min(left + (now - last) * self._most / 60, float(self._most))
        waits = 0.0 if left >= 1 else (1 - left) * 60 / self._most
        self._buckets[who] = (left - 1 if left >= 1 else left), now
        while len(self._buckets) > MOST_NETWORKS:
            self._buckets.popitem(last=False)
        return waits


class Answers:
    """Remembers what was answered lately, so that a flood of readers costs no more than one a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], tuple[int, float, Response]] = OrderedDict()

    def get(self, key: tuple[str, str], track: Track, make: Callable[[], Response]) -> Response:
        """The answer to a question about a track, made anew if something has happened since, or in time."""
        version, now = track.store.version(track.name), time.monotonic()
        with self._lock:
            known = self._known.get(key)
        if known is not None and known[0] == version and now - known[1] < FRESH:
            return known[2]
        made = make()
        with self._lock:
            self._known[key] = version, now, made
            self._known.move_to_end(key)
            while len(self._known) > MOST_ANSWERS:
                self._known.popitem(last=False)
        return made


class Guard:
    """Turns requests away that are one too many, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self.app, self.rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        waits = self.rates.wait(network_of(scope))
        if waits:
            said = {"error": "your network has sent too many requests", "retry": True}
            answer = JSONResponse(said, 429, headers={"Retry-After": str(math.ceil(waits))})
            await answer(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def network_of(scope: Scope) -> str:
    """The network that a request came from."""
    client = scope.get("client")
    return network(client[0]) if client else "unknown"
