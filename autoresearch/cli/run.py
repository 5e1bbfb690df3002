"""Commands that do the work: run a search, claim and audit its result; prepare the data, check protection."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, chosen, dumps, open_journal, print_result

if TYPE_CHECKING:
    from autoresearch.search.loop import Search


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
) -> None:
    """Search: propose, train, score, judge, keep. Run again with the same name to go on."""
    if dry_run:
        from autoresearch.search.plan import make_plan

        for heading, text in make_plan(overrides or [], Path.cwd()):
            typer.echo(f"{heading:12} {text}")
        return
    from autoresearch.finish.claim import make_claim
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup import open_search

    name = ""
    try:
        with _told_to_end(), open_search(overrides or [], view) as search:
            name = search.config.name
            # The test split stays sealed until the search ends by itself: a person who stops it may go on.
            kept = search.run() and any(e.kept for e in search.journal.experiments())
            if kept and search.config.claim and search.task.sealed:
                try:
                    make_claim(search, search.config.claim)
                except Stopped as stopped:
                    search.view.message(str(stopped))
    except KeyboardInterrupt as end:
        _say_the_end(end, f"autoresearch run name={name}" if name else "")
    journal, _ = open_journal([*[o for o in overrides or [] if o.startswith("runs=")], f"name={name}"])
    print_result(journal, journal.path.parent / "report" / "report.html")  # written as the search was closed


def prepare(overrides: Overrides = None) -> None:
    """Prepare the corpus and print where it lies. `run` does this by itself."""
    from autoresearch.config import load
    from autoresearch.search.create import require_files
    from autoresearch.search.setup import runs_folder
    from autoresearch.store.git import Repository
    from autoresearch.tasks import create_task

    config, repository = load(overrides or []), Repository(Path.cwd())
    task = create_task(config)
    require_files(repository, task)
    data = task.prepare(runs_folder(config, repository) / "cache")
    typer.echo(f"{data.path}\n{data.sizes}")


def doctor(overrides: Overrides = None) -> None:
    """Show what protects this machine from candidate code, and what does not."""
    from autoresearch.config import load
    from autoresearch.execute.sandbox import create_sandbox, describe
    from autoresearch.execute.sandbox.gpu import describe as describe_gpu

    sandbox = create_sandbox(load(overrides or []).sandbox["backend"], typer.echo)
    report = describe(sandbox)
    typer.echo(f"sandbox: {report.backend}")
    for item in report.protections:
        typer.echo(f"  {'yes' if item.held else 'NO ':3}  {item.name}: {item.how}")
    typer.echo(f"  GPU: {describe_gpu(sandbox)}")
    if report.warning:
        typer.echo(report.warning)


def claim(overrides: Overrides = None, json: Json = False) -> None:
    """Claim the result: train start and tip on fresh seeds, score them on the sealed test split, once."""
    from autoresearch.finish.claim import make_claim
    from autoresearch.report.markdown import claim_sentence

    with _opened(overrides, json) as search:
        record = make_claim(search, search.config.claim)
    typer.echo(dumps(asdict(record)) if json else claim_sentence(record, search.task.metric))


def audit(
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=0, help="Trainings to spend on it.")] = 24,
    json: Json = False,
) -> None:
    """Audit what was kept: train it with random halves left out, and say what is doubtful."""
    from autoresearch.finish.audit import make_audit
    from autoresearch.report.markdown import audit_lines

    with _opened(overrides, json) as search:
        record = make_audit(search, runs)
    typer.echo(dumps(asdict(record)) if json else "\n".join(audit_lines(record, search.task.metric)))


@contextmanager
def _told_to_end() -> Iterator[None]:
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


def _say_the_end(end: KeyboardInterrupt, again: str) -> None:
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


@contextmanager
def _opened(overrides: list[str] | None, quiet: bool) -> Iterator[Search]:
    """A search that has ended, opened again; a person's stop ends the command."""
    from autoresearch.search.recovery import recover
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup import open_search

    given = overrides or []
    place = [o for o in given if o.startswith(("name=", "runs="))]
    named = [f"name={chosen(place).name}", *(o for o in given if not o.startswith("name="))]
    try:
        with _told_to_end(), open_search(named, "quiet" if quiet else "auto", proposes=False) as search:
            recover(search.state, search.view)  # an earlier claim or audit may have been killed
            yield search
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit from None
    except KeyboardInterrupt as end:
        _say_the_end(end, "the same command")
