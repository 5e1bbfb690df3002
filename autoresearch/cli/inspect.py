"""Commands that show a search and change nothing of it; and what all commands share."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoresearch.api import Order
from autoresearch.cli import complete
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.api.handle import SearchHandle
    from autoresearch.report.summary import Summary
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.journal import Journal

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings; see autoresearch config.",
        show_default=False,
        autocompletion=complete.settings,
    ),
]
Numbered = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="N [KEY=VALUE]...", help="Number of the experiment.", autocompletion=complete.numbered
    ),
]
"""A number and settings, in any order; `numbered` tells them apart."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def chosen(overrides: list[str] | None) -> Path:
    """The folder of the search that a command is about; says which one it took if `name=` names none."""
    from autoresearch.search.setup.settings import search_folder

    given = overrides or []
    folder = search_folder(given)
    if not any(o.startswith("name=") for o in given):
        typer.echo(f"search: {folder.name} (name={folder.name})", err=True)
    return folder


def handle(overrides: list[str] | None) -> SearchHandle:
    """The search that a command is about, as an object."""
    from autoresearch.api.handle import SearchHandle

    return SearchHandle(chosen(overrides))


def open_journal(overrides: list[str] | None) -> tuple[Journal, Repository]:
    """The journal of the search that a command is about, and the repository of that."""
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.journal import Journal

    return Journal.of(chosen(overrides)), Repository(Path.cwd())


def dumps(value: Any, indent: int | None = 2) -> str:
    """JSON for a program."""
    return jsonlib.dumps(value, indent=indent, default=str)


def print_lines(lines: Iterable[tuple[str, str]], json: bool, width: int = 14) -> None:
    """Print headings and texts as they come, or all of them as JSON."""
    if json:
        typer.echo(dumps([{"about": heading, "text": text} for heading, text in lines]))
        return
    for heading, text in lines:
        typer.echo(f"{heading:{width}} {text}")


def numbered(words: list[str] | None) -> tuple[str, list[str]]:
    """The one word that is no setting, or an empty text; and the settings.

    Raises:
        UserError: If there are several such words.
    """
    plain, overrides = apart(words)
    if len(plain) > 1:
        raise UserError(f"{' and '.join(plain)}: one experiment at a time.", "Its number: autoresearch log")
    return "".join(plain), overrides


def apart(words: list[str] | None) -> tuple[list[str], list[str]]:
    """The words that are no settings, and the settings."""
    given = words or []
    return [word for word in given if "=" not in word], [word for word in given if "=" in word]


def an_experiment(words: list[str] | None) -> tuple[int | None, list[str]]:
    """The number of an experiment, None if there is none, and the settings.

    Raises:
        UserError: If it is no number.
    """
    word, overrides = numbered(words)
    if word and not word.isdigit():
        raise UserError(f"{word!r} is no number of an experiment.", f"Did you mean name={word}?")
    return int(word) if word else None, overrides


def status(overrides: Overrides = None, json: Json = False) -> None:
    """Show how far a search has come."""
    search = handle(overrides)
    typer.echo(dumps(search.status()) if json else "\n".join(search.status_lines()))


def log(
    overrides: Overrides = None,
    sort: Annotated[Order, typer.Option(help="Newest, best score or best change last.")] = Order.NUMBER,
    json: Json = False,
) -> None:
    """List the experiments, one in a line, newest last."""
    from autoresearch.api.handle import ordered
    from autoresearch.report.markdown import direction
    from autoresearch.text import one_line, tuning_text, tunings

    search = handle(overrides)
    if json:
        typer.echo("\n".join(dumps(row, indent=None) for row in search.log(sort)))
        return
    summary = search.summary
    metric = summary.metric
    sign = f"{metric.unit}; {direction(metric)} is better; change: against the incumbent of its time"
    typer.echo(f"{'#':>4}  {'verdict':8}  {metric.name:>7}  {'change':8} {'commit':8}  hypothesis  ({sign})")
    for e in ordered(summary, sort):
        effect = e.verdict.effect if e.verdict else None
        score = "      -" if e.score is None else metric.text(e.score)
        change = "        " if effect is None else f"{metric.change(effect):+.{metric.digits}f} "
        verdict = e.verdict.kind if e.verdict else "open" if e.proposal else "baseline"
        words = one_line(e.proposal.hypothesis, 80) if e.proposal else "the starting point"
        typer.echo(f"{e.number:4d}  {verdict:8}  {score}  {change} {e.commit[:8]}  {words}")
    for group in tunings(summary.experiments):
        typer.echo(f"{group[0][1].kind} of #{group[0][0].number}, as measured: {tuning_text(group, metric)}")
    if summary.needed:
        typer.echo(f"A further gain: {summary.needed}.")


def show(words: Numbered = None, json: Json = False) -> None:
    """Show one experiment: what was tried, every trial, the verdict and its reason."""
    from autoresearch.report.summary import experiment_row
    from autoresearch.text import clean, one_line, tuning_text, tunings, visible
    from autoresearch.tracking.experiments import experiment_note

    number, overrides = an_experiment(words)
    if number is None:
        raise UserError("Which experiment?", "Give its number: autoresearch show 7. See: autoresearch log")
    journal = open_journal(overrides)[0]
    experiment = journal.experiment(number)
    if json:
        typer.echo(dumps(experiment_row(experiment, journal.info().metric)))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(experiment_note(experiment, journal.info().metric, diff=False)))
    typer.echo(visible(experiment.diff))  # as it is: a wrapped line would be no diff
    for group in tunings(journal.experiments()):
        if number in [e.number for e, _ in group]:
            found = tuning_text(group, journal.info().metric)
            typer.echo(f"The {group[0][1].kind} of #{group[0][0].number}, as measured: {found}")
    for trial in experiment.diagnoses:
        said = trial.result.log if trial.result else ""
        typer.echo(f"Diagnosis (trial {trial.id}) of the script of then printed:\n{clean(said)}")
    for proposal, reason in journal.dropped(number):
        typer.echo(one_line(f"Dropped after it: {proposal.hypothesis} ({reason})", 1000))


def diff(words: Numbered = None, json: Json = False) -> None:
    """Print the change of experiment N or, without N, everything that was kept so far."""
    from autoresearch.text import visible

    number, overrides = an_experiment(words)
    kept = handle(overrides).diff(number)
    typer.echo(dumps({"experiment": number, "diff": kept}) if json else visible(kept))


def report(overrides: Overrides = None, json: Json = False) -> None:
    """Write the report page and print its path."""
    search = handle(overrides)
    written = search.report()
    if json:
        typer.echo(dumps(asdict(written)))
    else:
        print_result(search.summary, written.html)


def print_result(summary: Summary, page: Path) -> None:
    """Print what a search has found, and where its page lies."""
    from autoresearch.report.markdown import claim_sentence, headline, void_sentence

    typer.echo(headline(summary))
    for void in (c for c in summary.claims if c.void and c != summary.claim):
        typer.echo(void_sentence(void))
    if summary.claim:
        typer.echo(claim_sentence(summary.claim, summary.metric))
    typer.echo(f"report: {page}")


def ui(
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Start the MLflow UI on the store that the search writes to, and say where to look."""
    import os
    import subprocess
    import webbrowser

    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.tracking import ui as tracking
    from autoresearch.tracking.mirror import EXPERIMENT_KEY

    journal, _ = open_journal(overrides)
    folder = journal.path.parent
    uri = recorded_config(folder).tracking.uri
    about = journal.info(), journal.get(EXPERIMENT_KEY)
    shown = tracking.ui(uri, folder.parent / "mlflow", port, *about, host=host)
    typer.echo(f"MLflow: {shown.url}")
    if shown.searches:
        typer.echo(f"All searches side by side: {shown.searches}")
    if not shown.command:
        if browser:
            webbrowser.open(shown.url)
        return
    if host not in tracking.LOOPBACK:
        typer.echo(
            f"Who reaches {host}:{port} can read and change the store: it asks for no password.", err=True
        )
    typer.echo("It takes some seconds to start; end it with Ctrl-C.")
    try:
        with subprocess.Popen(shown.command, env={**os.environ, **shown.environment}) as server:
            if browser and tracking.answers(host, port, lambda: server.poll() is None):
                webbrowser.open(shown.url)
            sys.exit(server.wait())
    except KeyboardInterrupt:
        sys.exit(130)
