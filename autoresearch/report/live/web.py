"""The live page: one local page that shows a search as it goes on, and steers it.

The page is static and holds no data: it asks for `/state` and draws. Every request but the page itself needs
the token that `watch --web` prints as part of the address, in a header, so that no other page or user of the
machine can ask; the `Host` header must be ours. The page runs its own script alone, fetches from nowhere else
(content security policy), and puts text of others into it as text only. The server reads the journal, and
writes to the inbox as the commands `note`, `idea`, `pause`, `resume` and `stop` do, and a text of the brief
that the search reads at its next question; it runs nothing.
"""

from __future__ import annotations

import hmac
import json
import math
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from autoresearch.errors import UserError
from autoresearch.report.live.now import read_now
from autoresearch.report.markdown import claim_sentence, direction, headline
from autoresearch.report.summary import Summary, experiment_row, summarize
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import MAX_BRIEF, Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Brief, read_briefs
from autoresearch.store.searches import go_on
from autoresearch.text import clean, one_line, scrub, visible
from autoresearch.types import Draft

Answer = Callable[[Request], Awaitable[Response]]

WISHES = {"pause": "pause", "resume": "run", "stop": "stop"}
MOST_BYTES = 4 * MAX_BRIEF
"""Largest request."""
LANES = 80
"""Trials that the lanes of the places show, the latest."""
THOUGHT = 3000
"""Characters of the latest answer of a model that are shown."""
SHOWN = 1000
"""Experiments that the page lists, the latest."""


def create_app(folder: Path, token: str, hosts: list[str], *, fixed: str = "", unread: str = "") -> Starlette:
    """The server of one search.

    Args:
        folder: Of the search.
        token: What requests must know.
        hosts: Names under which the server may be asked.
        fixed: Why the brief cannot be edited; empty if it can.
        unread: Who does not read the brief, in words; empty if the proposer does.
    """
    answers = _Answers(folder, fixed, unread)
    return Starlette(
        routes=[
            Route("/", page),
            Route("/state", _guarded(answers.state, token)),
            Route("/brief", _guarded(answers.brief, token)),
            Route("/diff/{number:int}", _guarded(answers.diff, token)),
            Route("/say/{what}", _guarded(answers.say, token), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


def _guarded(answer: Answer, token: str) -> Answer:
    """The same for who knows the token; errors of the request become answers."""

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
    """The page itself, with a new nonce for its own script and style."""
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


class _Answers:
    """Answers the page's requests about one search; see `create_app`."""

    def __init__(self, folder: Path, fixed: str, unread: str) -> None:
        self._folder, self._fixed, self._unread = folder, fixed, unread

    async def state(self, request: Request) -> Response:
        return JSONResponse(state(self._folder))

    async def brief(self, request: Request) -> Response:
        return JSONResponse({**brief(self._folder), "fixed": self._fixed, "unread": self._unread})

    async def diff(self, request: Request) -> Response:
        with Journal.of(self._folder) as journal:
            found = journal.experiment(request.path_params["number"])
        return PlainTextResponse(visible(scrub(found.diff)))

    async def say(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return JSONResponse({"error": f"at most {MOST_BYTES} bytes are taken"}, 413)
        try:
            text = str(json.loads(body or b"{}").get("text", "")).strip()
        except (ValueError, AttributeError):
            return JSONResponse({"error": "the request is no JSON object"}, 400)
        what = request.path_params["what"]
        if what == "brief" and self._fixed:
            raise UserError(f"The brief cannot be changed: {self._fixed}")
        return JSONResponse({"said": tell(self._folder, what, text)})


def tell(folder: Path, what: str, text: str) -> str:
    """Pass something on to the search: a wish, a note, an idea or a brief.

    Returns:
        What was done, in a line.

    Raises:
        UserError: If it cannot be passed on.
    """
    inbox = Inbox(folder)
    if what in WISHES:
        with Journal.of(folder) as journal:
            runner = journal.runner()
        if runner is None:
            raise UserError(f"No process runs {folder.name}.", f"Run: {go_on(folder)}")
        inbox.wish(WISHES[what])
        return f"asked to {what}"
    if what not in ("note", "idea", "brief"):
        raise UserError(f"{what!r} cannot be said to a search.")
    if not text:
        raise UserError("There is nothing to say.")
    if what == "brief":
        with Journal.of(folder) as journal:
            name = str(journal.info().config.get("brief") or journal.info().brief)
        edited = inbox.edit_brief(name, text)
        return f"the next question to a proposer has this brief (hash {edited.hash})"
    if what == "note":
        inbox.add_note(text)
        return "noted"
    return f"idea {inbox.add_idea(text)} waits"


def brief(folder: Path) -> dict[str, str]:
    """The brief of the next question, as far as the search's folder says it, and the one in use."""
    edited = Inbox(folder).edited_brief()
    with Journal.of(folder) as journal:
        info = journal.info()
        used = [Brief(info.created, info.brief, info.brief_text), *read_briefs(journal)][-1]
    name = str(info.config.get("brief") or info.brief)
    new = edited if edited is not None and edited.name == name and edited.time > used.time else used
    waits = "" if new.hash == used.hash else new.hash
    return {"name": used.name, "text": new.text, "hash": used.hash, "waits": waits}


def state(folder: Path) -> dict[str, Any]:
    """All that the page shows, as JSON-ready values; texts of others are clean and without secrets."""
    with Journal.of(folder) as journal:
        summary, runs = summarize(journal), journal.runner() is not None
        drafts = journal.drafts()
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
        "lanes": _lanes(summary),
        "queue": [_queued(draft) for draft in drafts],
        "thought": _thought(folder),
        "notes": [one_line(scrub(note), 400) for note in inbox.notes()],
        "ideas": [
            {"number": e.idea.number, "text": one_line(scrub(e.idea.text), 400), "state": e.state}
            for e in inbox.entries()
        ],
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("number", "verdict", "score", "effect", "interval", "change", "category", "proposer")
    texts = {
        key: one_line(scrub(clean(str(row[key] or ""))), 400) for key in ("hypothesis", "reason", "guards")
    }
    return {key: _finite(row[key]) for key in keys} | texts


def _queued(draft: Draft) -> dict[str, str]:
    """A proposal that was made ahead and waits for its turn."""
    p = draft.proposal
    texts = {"hypothesis": p.hypothesis, "why": p.mechanism, "proposer": p.proposer, "kind": str(p.category)}
    return {key: one_line(scrub(clean(text)), 600) for key, text in texts.items()}


def _thought(folder: Path) -> dict[str, Any]:
    """What a model said last, of itself or of why it was refused; empty if none was asked."""
    calls = CallLog(folder)
    latest = [call for name in calls.conversations()[-1:] for call in calls.of(name)[-1:]]
    if not latest:
        return {}
    call = latest[0]
    text = visible(scrub(call.answered or call.problem))
    return {"who": one_line(call.model), "time": call.started, "text": text[:THOUGHT]}


def _lanes(summary: Summary) -> list[dict[str, Any]]:
    """The latest trials of each place: where, of which experiment, from when to when, and what came of it."""
    trials = sorted((t for e in summary.experiments for t in e.trials), key=lambda t: t.started)[-LANES:]
    return [
        {
            "place": one_line(t.place) or "here",
            "experiment": t.experiment,
            "arm": str(t.arm),
            "start": t.started,
            "end": t.finished,
            "outcome": str(t.result.outcome) if t.result else "",
        }
        for t in trials
    ]


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
