"""The server of tracks: hands out what a contributor needs, takes contributions, shows where things stand.

No request runs code of a stranger: what arrives is measured while it streams in, checked as text, and written
down; candidates run where the verifiers are. A request that is too large, too slow or one too many is turned
away before it costs anything. What was answered with 202 is on the disk. Not covered: TLS, which a reverse
proxy adds (docs/swarm.md).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from autoresearch.config import Serve as Limits
from autoresearch.errors import Refused, UserError
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.intake import from_bundle
from autoresearch.swarm.queue import network
from autoresearch.swarm.store import Busy, OverQuota, Received, State, Store
from autoresearch.swarm.web import page
from autoresearch.swarm.web.track import FRESH, Track

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    Answer = Callable[[Request], Awaitable[Response]]

BUNDLE = "application/x-git-bundle"
"""Content type of a contribution that is one signed commit, as a bundle."""

MOST_NETWORKS = 10_000
"""Networks whose requests are counted, the latest: a flood of addresses takes no more memory."""

MOST_ANSWERS = 64
"""Answers that are remembered, the latest."""

MOST_ENTRIES = 500
"""Entries of a log in one answer."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class TooLarge(Exception):
    """The body of a request has more bytes than are taken."""


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
        from starlette.datastructures import MutableHeaders
        from starlette.responses import JSONResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        waits = self.rates.wait(_network(scope))
        if waits:
            said = {"error": "your network has sent too many requests", "retry": True}
            answer = JSONResponse(said, 429, headers={"Retry-After": str(math.ceil(waits))})
            await answer(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


def create_app(tracks: Mapping[str, Track], store: Store, limits: Limits) -> Starlette:
    """The server.

    Args:
        tracks: Name -> track.
        store: Where contributions are kept.
        limits: What is taken from strangers.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def of_track(make: Callable[[Request, Track], Response]) -> Answer:
        async def answer(request: Request) -> Response:
            track = tracks.get(request.path_params["track"])
            if track is None:
                return JSONResponse({"error": "there is no such track"}, 404)
            return await guarded(lambda: make(request, track))

        return answer

    answers = Answers()

    def shown(make: Callable[[Request, Track], Response]) -> Answer:
        """What is the same for everybody is made once, however many ask."""

        def answer(request: Request, track: Track) -> Response:
            key = request.url.path, request.headers.get("host", "")
            return answers.get(key, track, lambda: make(request, track))

        return of_track(answer)

    async def guarded(make: Callable[[], Response]) -> Response:
        try:
            return await run_in_threadpool(make)
        except Busy as error:
            return JSONResponse({"error": str(error), "retry": True}, 503, headers={"Retry-After": "30"})
        except OverQuota as error:
            return JSONResponse({"error": str(error), "retry": True}, 429, headers={"Retry-After": "3600"})
        except Refused as error:
            return JSONResponse({"error": str(error), "retry": False}, 400)
        except (UserError, OSError):  # what the machine says is no business of strangers
            said = {"error": "the server cannot do this now", "retry": True}
            return JSONResponse(said, 503, headers={"Retry-After": "60"})

    def json_of(value: Callable[[Track], Any]) -> Answer:
        return shown(lambda request, track: JSONResponse(value(track)))

    def entries(request: Request, track: Track) -> Response:
        given = request.query_params.get("first", "0")
        if not given.isascii() or not given.isdigit() or len(given) > 15:
            raise Refused("first must be the number of an entry")
        first = int(given)
        return JSONResponse([entry.to_dict() for entry in store.entries(track.name, first, MOST_ENTRIES)])

    def one(request: Request, track: Track) -> Response:
        row = track.row(request.path_params["digest"])
        return JSONResponse(row or {"error": "there is no such contribution"}, 200 if row else 404)

    def bundle(request: Request, track: Track) -> Response:
        return FileResponse(track.bundle(), media_type=BUNDLE)

    def feed(request: Request, track: Track) -> Response:
        text = page.feed(track, str(request.base_url))
        return Response(text, media_type="application/atom+xml")

    def leaderboard(request: Request, track: Track) -> Response:
        return HTMLResponse(page.track_page(track, str(request.base_url)))

    async def index(request: Request) -> Response:
        return await guarded(lambda: HTMLResponse(page.index(list(tracks.values()), str(request.base_url))))

    async def listing(request: Request) -> Response:
        return await guarded(lambda: JSONResponse([track.about() for track in tracks.values()]))

    async def openapi(request: Request) -> Response:
        text = files("autoresearch.swarm.web").joinpath("templates/openapi.json").read_text("utf-8")
        return Response(text, media_type="application/json")

    async def robots(request: Request) -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /api/\n")

    async def submit(request: Request) -> Response:
        track = tracks.get(request.path_params["track"])
        if track is None:
            return JSONResponse({"error": "there is no such track"}, 404)
        try:
            async with asyncio.timeout(limits.seconds):
                body = await _body(request, 1000 * limits.kilobytes)
        except TooLarge:
            said = {"error": f"at most {limits.kilobytes} kB are taken", "retry": False}
            return JSONResponse(said, 413, headers={"Connection": "close"})
        except TimeoutError:
            said = {"error": f"a request must arrive within {limits.seconds:g} s", "retry": True}
            return JSONResponse(said, 408, headers={"Connection": "close"})
        except ClientDisconnect:  # nobody waits for an answer
            return Response(status_code=400)
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        place = _network(request.scope)
        return await guarded(lambda: _told(track, take(track, store, body, kind == BUNDLE, place, limits)))

    def _told(track: Track, received: Received) -> Response:
        row = track.row(received.digest)
        return JSONResponse(row, 400 if received.state is State.REFUSED else 202)

    api = "/api/tracks/{track}"
    return Starlette(
        routes=[
            Route("/", index),
            Route("/robots.txt", robots),
            Route("/openapi.json", openapi),
            Route("/api/tracks", listing),
            Route(api, json_of(Track.about)),
            Route(f"{api}/chain", json_of(Track.chain)),
            Route(f"{api}/people", json_of(Track.people)),
            Route(f"{api}/tried", json_of(Track.tried)),
            Route(f"{api}/ideas", json_of(Track.ideas)),
            Route(f"{api}/log", of_track(entries)),
            Route(f"{api}/bundle", of_track(bundle)),
            Route(f"{api}/contributions", json_of(Track.contributions), methods=["GET"]),
            Route(f"{api}/contributions", submit, methods=["POST"]),
            Route(f"{api}/contributions/{{digest}}", of_track(one)),
            Route("/{track}", shown(leaderboard)),
            Route("/{track}/feed.atom", shown(feed)),
        ],
        middleware=[Middleware(Guard, rates=Rates(limits.requests))],
    )


def take(track: Track, store: Store, body: bytes, bundle: bool, place: str, limits: Limits) -> Received:
    """Take a contribution, or write down why it is refused.

    Args:
        track: That it was sent to.
        store: Where it goes.
        body: What was sent.
        bundle: Whether that is a bundle of git.
        place: The network of the sender.
        limits: What is taken.

    Raises:
        Refused: If it is malformed, its signature is bad, or its sender may send nothing now.
        Busy: If nothing can be written.
    """
    editable = track.task.editable
    signed = from_bundle(body, track.repository, editable) if bundle else Signed.from_json(body)
    if signed.contribution.track != track.name:
        raise Refused(f"this was signed for the track {signed.contribution.track}")
    if known := store.find(signed.contribution.digest):
        return known
    try:
        claim = track.check(signed)
    except Refused as error:
        return store.turn_away(signed, place, str(error), limits)
    return store.receive(signed, place, claim, limits)


async def _body(request: Request, most: int) -> bytes:
    """The body of a request; what is too large is not read to its end.

    Raises:
        TooLarge: If it has more bytes than that.
    """
    if int(request.headers.get("content-length") or 0) > most:
        raise TooLarge
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise TooLarge
    return bytes(body)


def _network(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    return network(client[0]) if client else "unknown"
