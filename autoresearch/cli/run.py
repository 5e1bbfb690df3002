"""The command that runs a search, here or in the background, and what a signal means to it."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Overrides, handle, print_lines, print_result
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.search.loop import Search
    from autoresearch.store.lock import Lease

DETACH_SECONDS = 20.0
"""How long `run --detach` waits for the search to begin; preparing a corpus may take longer."""

ENDING = ("SIGTERM", "SIGHUP")
"""Signals that end a command as Ctrl-C does. One that is ignored, as under nohup, stays so."""


class ViewKind(StrEnum):
    """How a run is shown."""

    AUTO = "auto"
    LIVE = "live"
    PLAIN = "plain"
    QUIET = "quiet"


def run(
    overrides: Overrides = None,
    view: Annotated[ViewKind, typer.Option(help="How to show it.")] = ViewKind.AUTO,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run; start nothing.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background; closing the terminal ends nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
) -> None:
    """Search: propose, train, score, judge, keep. Run again with the same name to go on."""
    from autoresearch.search.setup.plan import make_plan
    from autoresearch.search.setup.settings import named, place_of, runs_of
    from autoresearch.store.connection import holds_search
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.searches import go_on

    given = named(overrides or [])
    if dry_run or view is not ViewKind.QUIET:
        print_lines(make_plan(given, Path.cwd()), json and dry_run, 12)
    if dry_run:
        return
    if detach:
        _detach(given)
        return
    if sys.stdout.isatty():
        typer.echo("Closing this terminal stops it; with --detach it runs in the background.")
    place = place_of(given)
    folder = runs_of(place, Repository(Path.cwd())) / place.name
    try:
        with told_to_end():
            while more := _search(given, view):
                given = [*given, *more]
    except KeyboardInterrupt as end:
        begun = holds_search(folder)
        say_the_end(end, go_on(folder) if begun else "")
    summary = handle([*(o for o in given if o.startswith("runs=")), f"name={place.name}"]).summary
    print_result(summary, folder / "report" / "report.html")  # written as the search was closed


def _search(given: list[str], view: ViewKind) -> list[str]:
    """Run a search to its end, with its claim.

    Returns:
        Settings to begin again with, if the starting script does not fit into the memory but may with these.
    """
    from autoresearch.config.profiles import smaller
    from autoresearch.finish.claim import make_claim
    from autoresearch.finish.devise import devise_if_drifted
    from autoresearch.finish.transfer import run_with_transfers
    from autoresearch.search.baseline import OutOfMemory
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup.open import open_search

    with open_search(given, view) as search:
        try:
            by_itself = run_with_transfers(search)
        except OutOfMemory as error:
            if not (less := smaller(search.config)):
                raise
            search.view.message(f"{error} It begins again with a smaller profile: {less[0]}.", warning=True)
            return less
        # The test split stays sealed until the search ends by itself: a person who stops it may go on.
        kept = by_itself and any(e.kept for e in search.journal.experiments())
        if kept and search.config.claim and search.task.sealed:
            try:
                make_claim(search, search.config.claim)
                for line in devise_if_drifted(search):
                    search.view.message(line, warning=True)
            except Stopped as stopped:
                search.view.message(str(stopped))
    return []


def _detach(given: list[str]) -> None:
    """Start a search in a session of its own, and wait until it runs or has failed.

    Raises:
        UserError: If it ends before it runs; with what it said.
    """
    import subprocess

    from autoresearch.search.setup.settings import place_of, runs_folder
    from autoresearch.store.connection import JOURNAL
    from autoresearch.store.git.repository import Repository

    place = place_of(given)
    runs = runs_folder(place, Repository(Path.cwd()))
    journal, log = runs / place.name / JOURNAL, runs / f"{place.name}.log"
    command = [sys.executable, "-m", "autoresearch", "run", "--view", "plain", *given]
    with log.open("ab") as output:
        started = log.stat().st_size
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + DETACH_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and (runner := _runner(journal)) and runner.pid == process.pid:
            break
        time.sleep(0.1)
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace")[started:].strip()
        raise UserError(f"It did not start: {said[-2000:]}", code=process.returncode)
    typer.echo(f"{place.name} runs in the background, as process {process.pid}; it writes {log}")
    typer.echo(
        f"Watch it: autoresearch watch name={place.name}; stop it: autoresearch stop name={place.name}"
    )


def _runner(journal: Path) -> Lease | None:
    """Which process runs a search; None also while its journal is being made."""
    from autoresearch.store.journal import Journal

    try:
        with Journal(journal) as opened:
            return opened.runner()
    except (UserError, sqlite3.Error):
        return None


@contextmanager
def opened_to_train(given: list[str], quiet: bool, start: str = "HEAD") -> Iterator[Search]:
    """A search opened for trainings that a command wants; asks no proposer. A person's stop ends the command.

    Args:
        given: Settings of the search.
        quiet: Whether to show warnings only.
        start: The commit that a new search begins with.
    """
    from autoresearch.search.recovery import recover
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup.open import open_search

    view = "quiet" if quiet else "auto"
    try:
        with told_to_end(), open_search(given, view, proposes=False, start=start) as search:
            recover(search.state, search.view)  # an earlier command may have been killed
            yield search
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit from None
    except KeyboardInterrupt as end:
        say_the_end(end, "the same command")


@contextmanager
def told_to_end() -> Iterator[None]:
    """Within it a termination signal raises KeyboardInterrupt with its number; a second one kills."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt(number)

    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def say_the_end(end: KeyboardInterrupt, again: str) -> None:
    """Leave a line that says what ended the command and how to go on; exits.

    Args:
        end: From Ctrl-C, or with the number of a signal.
        again: The command that goes on; empty if there is none.
    """
    number = signal.Signals(end.args[0]) if end.args else signal.SIGINT
    by = f" by {number.name}" if end.args else ""
    with suppress(OSError):  # the terminal may be gone
        typer.echo(f"\nStopped{by}; nothing is lost." + (f" Go on with: {again}" if again else ""))
        sys.stdout.flush()
    sys.exit(128 + number)
