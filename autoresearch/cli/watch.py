"""The command that shows a search from another terminal, or on a page in the browser."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Overrides, chosen
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.report.live.terminal import SearchView
    from autoresearch.store.journal import Journal

EVERY = 0.5
"""Seconds between two looks at a search."""


def watch(
    overrides: Overrides = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a page for the browser.")] = False,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 0,
) -> None:
    """Watch a search from anywhere: in this terminal, or with --web on a page that also steers it."""
    folder = chosen(overrides)
    if web:
        _serve(folder, host, port)
    else:
        _show(folder)


def _show(folder: Path) -> None:
    """Draw the panel of a search until it ends, or until Ctrl-C."""
    from autoresearch.report.live.panel import SearchPanel, redrawn
    from autoresearch.report.markdown import headline
    from autoresearch.report.summary import summarize
    from autoresearch.store.journal import Journal
    from autoresearch.store.searches import go_on

    journal = Journal.of(folder)
    try:
        if sys.stdout.isatty() and (view := _view(journal, folder)):
            with redrawn(SearchPanel(view), sys.stdout) as live:
                while view := _view(journal, folder):
                    live.update(SearchPanel(view))
                    time.sleep(EVERY)
    except KeyboardInterrupt:
        pass
    typer.echo(headline(summarize(journal)))
    runner = journal.runner()
    typer.echo(f"Running: {runner}." if runner else f"Not running. Continue: {go_on(folder)}")


def _view(journal: Journal, folder: Path) -> SearchView | None:
    """The state of a search as its own terminal shows it; None if nobody runs it."""
    from autoresearch.report.live.now import read_now
    from autoresearch.report.live.terminal import SearchView
    from autoresearch.types import Progress

    if journal.runner() is None:
        return None
    experiments = journal.experiments()
    view = SearchView(journal.info(), experiments)
    now = read_now(folder)
    view.doing, view.hypothesis = now.get("doing", "getting ready"), now.get("hypothesis", "")
    view.places, view.needed = now.get("places", 1), now.get("needed", "")
    view.left = now.get("seconds_left")
    view.messages.extend((m["text"], m["warning"]) for m in now.get("messages", ()))
    trials = {t.id: t for e in experiments for t in e.trials}
    for told in now.get("trials", ()):
        if trial := trials.get(told["id"]):
            view.running[trial.id] = trial, Progress(**told["progress"]) if told["progress"] else None
    return view


def _serve(folder: Path, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: If the port cannot be listened on.
    """
    import secrets
    import socket

    import uvicorn

    from autoresearch.report.live.web import create_app
    from autoresearch.search.setup.open import unread
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.tasks import create_task

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened on: {error.strerror}.", "Choose another --port, or 0.", code=3
        ) from None
    token = secrets.token_urlsafe(24)
    typer.echo(f"page: http://{host}:{listener.getsockname()[1]}/#{token}")
    typer.echo("Who has this address can steer the search. End the page with Ctrl-C; the search goes on.")
    config = recorded_config(folder)
    fixed, said = create_task(config).brief_fixed, " ".join(unread(config, ""))
    app = create_app(folder, token, [host, "localhost", "127.0.0.1"], fixed=fixed, unread=said)
    uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).run(sockets=[listener])
