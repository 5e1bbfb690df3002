"""The server of tracks: hands out what a contributor needs, takes contributions, shows where things stand.

No request runs code of a stranger: what arrives is measured while it streams in, checked as text, and written
down; candidates run where the verifiers are. A request that is too large, too slow or one too many is turned
away before it costs anything. What was answered with 202 is on the disk. Not covered: TLS, which a reverse
proxy adds (docs/swarm.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from autoresearch.config import Serve as Limits
from autoresearch.errors import Refused, UserError
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.intake import from_bundle
from autoresearch.swarm.store import Busy, OverQuota, Received, State, Store
from autoresearch.swarm.web import page
from autoresearch.swarm.web.guard import Answers, Guard, Rates, network_of
from autoresearch.swarm.web.track import Track

BUNDLE = "application/x-git-bundle"
"""Content type of a contribution that is one signed commit, as a bundle."""

MOST_ENTRIES = 500
"""Entries of a log in one answer."""

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request."""

OfTrack = Callable[[Request, Track], Response]
"""Answers a request about a track; runs in a thread."""


class TooLarge(Exception):
    """The body of a request has more bytes than are taken."""


@dataclass(frozen=True)
class Site:
    """What the handlers know.

    Attributes:
        tracks: Name -> track.
        store: Where contributions are kept.
        limits: What is taken from strangers.
        answers: What was answered lately.
    """

    tracks: Mapping[str, Track]
    store: Store
    limits: Limits
    answers: Answers = field(default_factory=Answers)


def create_app(tracks: Mapping[str, Track], store: Store, limits: Limits) -> Starlette:
    """The server; see `Site`."""
    app = Starlette(routes=ROUTES, middleware=[Middleware(Guard, rates=Rates(limits.requests))])
    app.state.site = Site(tracks, store, limits)
    return app


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


# How a handler is made


def of_track(handle: Callable[[Request, Track], Awaitable[Response]]) -> Handler:
    """Find the track that is asked for."""

    async def answer(request: Request) -> Response:
        track = _site(request).tracks.get(request.path_params["track"])
        if track is None:
            return JSONResponse({"error": "there is no such track"}, 404)
        return await handle(request, track)

    return answer


def made(make: OfTrack) -> Handler:
    """Make an answer about a track in a thread."""
    return of_track(lambda request, track: guarded(lambda: make(request, track)))


def shown(make: OfTrack) -> Handler:
    """What is the same for everybody is made once, however many ask."""

    def answer(request: Request, track: Track) -> Response:
        key = request.url.path, request.headers.get("host", "")
        return _site(request).answers.get(key, track, lambda: make(request, track))

    return made(answer)


def json_of(value: Callable[[Track], Any]) -> Handler:
    """Show plain values of a track."""
    return shown(lambda request, track: JSONResponse(value(track)))


async def guarded(make: Callable[[], Response]) -> Response:
    """Answer from a thread; errors become answers that say whether to try again."""
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


# What is shown


async def index(request: Request) -> Response:
    """The list of tracks, for people."""
    tracks = list(_site(request).tracks.values())
    return await guarded(lambda: HTMLResponse(page.index(tracks, str(request.base_url))))


async def listing(request: Request) -> Response:
    """The list of tracks, for programs."""
    tracks = _site(request).tracks.values()
    return await guarded(lambda: JSONResponse([track.about() for track in tracks]))


async def openapi(request: Request) -> Response:
    """The description of the API."""
    text = files("autoresearch.swarm.web").joinpath("templates/openapi.json").read_text("utf-8")
    return Response(text, media_type="application/json")


async def robots(request: Request) -> Response:
    """What search engines shall leave alone."""
    return PlainTextResponse("User-agent: *\nDisallow: /api/\n")


def leaderboard(request: Request, track: Track) -> Response:
    """The page of a track."""
    return HTMLResponse(page.track_page(track, str(request.base_url)))


def feed(request: Request, track: Track) -> Response:
    """The links of a track as an Atom feed."""
    return Response(page.feed(track, str(request.base_url)), media_type="application/atom+xml")


def entries(request: Request, track: Track) -> Response:
    """A part of the log of a track."""
    given = request.query_params.get("first", "0")
    if not given.isascii() or not given.isdigit() or len(given) > 15:
        raise Refused("first must be the number of an entry")
    found = track.store.entries(track.name, int(given), MOST_ENTRIES)
    return JSONResponse([entry.to_dict() for entry in found])


def one(request: Request, track: Track) -> Response:
    """What became of a contribution."""
    row = track.row(request.path_params["digest"])
    return JSONResponse(row or {"error": "there is no such contribution"}, 200 if row else 404)


def bundle(request: Request, track: Track) -> Response:
    """The tip of a track and its chain, for git."""
    return FileResponse(track.bundle(), media_type=BUNDLE)


# What comes in


async def submit(request: Request, track: Track) -> Response:
    """Take a contribution."""
    site = _site(request)
    limits = site.limits
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
    place = network_of(request.scope)

    def taken() -> Response:
        received = take(track, site.store, body, kind == BUNDLE, place, limits)
        refused = received.state is State.REFUSED
        return JSONResponse(track.shown(received), 400 if refused else 202)

    return await guarded(taken)


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
    try:
        claim = track.check(signed)
    except Refused as error:
        return store.receive(signed, place, 0.0, limits, problem=str(error))
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


API = "/api/tracks/{track}"

ROUTES = [
    Route("/", index),
    Route("/robots.txt", robots),
    Route("/openapi.json", openapi),
    Route("/api/tracks", listing),
    Route(API, json_of(Track.about)),
    Route(f"{API}/chain", json_of(Track.chain)),
    Route(f"{API}/people", json_of(Track.people)),
    Route(f"{API}/tried", json_of(Track.tried)),
    Route(f"{API}/ideas", json_of(Track.ideas)),
    Route(f"{API}/log", made(entries)),
    Route(f"{API}/bundle", made(bundle)),
    Route(f"{API}/contributions", json_of(Track.contributions), methods=["GET"]),
    Route(f"{API}/contributions", of_track(submit), methods=["POST"]),
    Route(f"{API}/contributions/{{digest}}", made(one)),
    Route("/{track}", shown(leaderboard)),
    Route("/{track}/feed.atom", shown(feed)),
]
"""What is answered where."""
