"""The live page: one local page that shows a search as it goes on, and steers it.

The page is static and holds no data: it asks for `/state` and draws. Every request but the page itself needs
the token that `watch --web` prints as part of the address, in a header, so that no other page or user of the
machine can ask; the `Host` header must be ours. The page runs its own script alone, fetches from nowhere else
(content security policy), and puts text of others into it as text only. The server reads the journal, and
writes to the inbox as the commands `note`, `idea`, `pause`, `resume` and `stop` do; it runs nothing.
"""

from __future__ import annotations

import hmac
import json
import math
import secrets
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import UserError
from autoresearch.report.markdown import claim_sentence, direction, headline
from autoresearch.report.now import read_now
from autoresearch.report.summary import Summary, experiment_row, summarize
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.text import clean, one_line, scrub, visible

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

WISHES = {"pause": "pause", "resume": "run", "stop": "stop"}
MOST_BYTES = 20_000
"""Largest request."""
SHOWN = 1000
"""Experiments that the page lists, the latest."""


def create_app(folder: Path, token: str, hosts: list[str]) -> Starlette:
    """The server of one search.

    Args:
        folder: Of the search.
        token: What requests must know.
        hosts: Names under which the server may be asked.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def check(request: Request) -> Response:
            given = request.headers.get("x-token", "")
            if not hmac.compare_digest(given.encode(), token.encode()):
                return JSONResponse({"error": "the token is missing or wrong: open the address printed"}, 403)
            try:
                return await answer(request)
            except UserError as error:
                return JSONResponse({"error": f"{error} {error.hint}".strip()}, 400)

        return check

    async def page(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = files("autoresearch.report").joinpath("templates/live.html").read_text("utf-8")
        own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'"
        none = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        headers = {
            "Content-Security-Policy": f"{none}; {own}",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(text.replace("NONCE", nonce), headers=headers)

    async def state_of(request: Request) -> Response:
        return JSONResponse(state(folder))

    async def diff(request: Request) -> Response:
        with _opened(folder) as journal:
            found = journal.experiment(request.path_params["number"])
        return PlainTextResponse(visible(scrub(found.diff)))

    async def say(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return JSONResponse({"error": f"at most {MOST_BYTES} bytes are taken"}, 413)
        try:
            text = str(json.loads(body or b"{}").get("text", "")).strip()
        except (ValueError, AttributeError):
            return JSONResponse({"error": "the request is no JSON object"}, 400)
        return JSONResponse({"said": tell(folder, request.path_params["what"], text)})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/state", guarded(state_of)),
            Route("/diff/{number:int}", guarded(diff)),
            Route("/say/{what}", guarded(say), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


def tell(folder: Path, what: str, text: str) -> str:
    """Pass something on to the search: a wish, a note or an idea.

    Returns:
        What was done, in a line.

    Raises:
        UserError: If it cannot be passed on.
    """
    inbox = Inbox(folder)
    if what in WISHES:
        with _opened(folder) as journal:
            runner = journal.runner()
        if runner is None:
            raise UserError(f"No process runs {folder.name}.", f"Run: autoresearch run name={folder.name}")
        inbox.wish(WISHES[what])
        return f"asked to {what}"
    if what not in ("note", "idea"):
        raise UserError(f"{what!r} cannot be said to a search.")
    if not text:
        raise UserError("There is nothing to say.")
    if what == "note":
        inbox.add_note(text)
        return "noted"
    return f"idea {inbox.add_idea(text)} waits"


def state(folder: Path) -> dict[str, Any]:
    """All that the page shows, as JSON-ready values; texts of others are clean and without secrets."""
    with _opened(folder) as journal:
        summary, runs = summarize(journal), journal.runner() is not None
    inbox = Inbox(folder)
    metric, info = summary.metric, summary.info
    rows = [_row(experiment_row(e, metric)) for e in summary.experiments[-SHOWN:]]
    return {
        "name": info.name,
        "headline": headline(summary),
        "claim": claim_sentence(summary.claim, metric) if summary.claim else "",
        "setting": f"brief {one_line(scrub(info.brief))} on {one_line(info.device)}",
        "metric": {
            "name": metric.name,
            "unit": metric.unit,
            "better": direction(metric),
            "digits": metric.digits,
        },
        "runs": runs,
        "wished": inbox.wished,
        "now": dict(read_now(folder)) if runs else {},
        "tried": summary.tried,
        "limit": info.config.get("experiments"),
        "kept": summary.verdicts["keep"],
        "noise": summary.estimates.noise,
        "steps": [(i.experiment.number, i.estimate.mean) for i in summary.estimates.incumbents],
        "cost": {"device_seconds": summary.cost.device_seconds, "dollars": summary.cost.dollars},
        "incumbent_curve": _incumbent_curve(summary),
        "experiments": rows,
        "notes": [one_line(scrub(note), 400) for note in inbox.notes()],
        "ideas": [
            {"number": e.idea.number, "text": one_line(scrub(e.idea.text), 400), "state": e.state}
            for e in inbox.entries()
        ],
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("number", "verdict", "score", "effect", "interval", "change", "category", "proposer")
    texts = {key: one_line(scrub(clean(str(row[key] or ""))), 400) for key in ("hypothesis", "reason")}
    return {key: _finite(row[key]) for key in keys} | texts


def _finite(value: Any) -> Any:
    """The same, but None for a number that JSON does not have."""
    if isinstance(value, (tuple, list)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _incumbent_curve(summary: Summary) -> list[tuple[float, float]]:
    """The latest loss curve of the incumbent: (fraction of the budget, training loss)."""
    best = summary.estimates.best
    found = [t.result.curve for t in (best.experiment.trials if best else ()) if t.result and t.result.curve]
    points = found[-1][:: max(1, len(found[-1]) // 200)] if found else ()
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _opened(folder: Path) -> closing[Journal]:
    return closing(Journal(folder / "journal.db"))
