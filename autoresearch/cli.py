"""The command line: `autoresearch COMMAND [key=value ...]`.

Owns the words that a person and a script see. Settings are Hydra overrides in any order; `name=` chooses
the search (without it: today's for `run`, the latest for everything else). Exit codes: 0 done; 1 a defect of
ours; 2 something in the request; 3 something on this machine; 4 the search is already running; 130 stopped
by Ctrl-C. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoresearch import __version__
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.record.git import Repository
    from autoresearch.record.journal import Journal

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Machine-learning research while you sleep, with results you can believe.",
)
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings; see configs/.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Number = Annotated[int, typer.Argument(metavar="N", help="Number of the experiment.")]


def main() -> None:
    """Entry point: errors a person can mend become one clear message."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        if error.hint:
            typer.echo(f"  {error.hint}", err=True)
        sys.exit(error.code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        typer.echo(f"error: {error.strerror}: {error.filename or 'the runs folder'}", err=True)
        typer.echo("  Make room there, then run the same command again: nothing is lost.", err=True)
        sys.exit(3)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    overrides: Overrides = None,
    view: Annotated[str, typer.Option(help="live, plain, quiet, or auto.")] = "auto",
) -> None:
    """Search: propose, train, score, judge, keep. Run again with the same name to go on."""
    from autoresearch.launch import open_search

    name = ""
    try:
        with open_search(overrides or [], view) as search:
            name = search.config.name
            search.run()
    except KeyboardInterrupt:
        typer.echo(
            "\nStopped; nothing is lost." + (f" Go on with: autoresearch run name={name}" if name else "")
        )
        sys.exit(130)
    report([*[o for o in overrides or [] if o.startswith("runs=")], f"name={name}"])


@app.command()
def prepare(overrides: Overrides = None) -> None:
    """Prepare the corpus and print where it lies. `run` does this by itself."""
    from autoresearch.config import load
    from autoresearch.launch import prepare_data, runs_folder
    from autoresearch.record.git import Repository

    config = load(overrides or [])
    path, meta = prepare_data(config, runs_folder(config, Repository(Path.cwd())))
    tokens = {split: about["tokens"] for split, about in meta["splits"].items()}
    typer.echo(f"{path}\n" + ", ".join(f"{split}: {count:,} tokens" for split, count in tokens.items()))


@app.command()
def status(overrides: Overrides = None, json: Json = False) -> None:
    """How far a search has come."""
    from autoresearch.record.report import headline
    from autoresearch.record.summary import summarize

    summary = summarize(_journal(overrides)[0])
    typer.echo(_dumps(summary) if json else headline(summary))


@app.command()
def log(overrides: Overrides = None, json: Json = False) -> None:
    """Every experiment in a line, newest last."""
    from autoresearch.record.summary import summarize

    rows = summarize(_journal(overrides)[0])["experiments"]
    if json:
        typer.echo("\n".join(_dumps(row, indent=None) for row in rows))
        return
    from autoresearch.record.text import one_line

    for row in rows:
        score = "      -" if row["score"] is None else f"{row['score']:.4f}"
        effect = "        " if row["effect"] is None else f"{-row['effect']:+.4f} "
        verdict = row["verdict"] or ("baseline" if row["number"] == 0 else "open")
        words = row["hypothesis"] or "the starting script"
        typer.echo(
            f"{row['number']:4d}  {verdict:8}  {score}  {effect} {row['commit'][:8]}  {one_line(words, 80)}"
        )


@app.command()
def show(number: Number, overrides: Overrides = None, json: Json = False) -> None:
    """One experiment: what was tried, every trial, the verdict and its reason."""
    from autoresearch.record.notes import experiment_note
    from autoresearch.record.summary import summarize

    journal = _journal(overrides)[0]
    experiment = journal.experiment(number)
    if json:
        typer.echo(_dumps(next(r for r in summarize(journal)["experiments"] if r["number"] == number)))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(experiment_note(experiment)))


@app.command()
def diff(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[N] [KEY=VALUE]...")] = None,
) -> None:
    """The change of experiment N, or (without N) everything that was kept so far."""
    from autoresearch.launch import cumulative_diff

    number, overrides = None, arguments or []
    if overrides and overrides[0].isdigit():
        number, overrides = int(overrides[0]), overrides[1:]
    journal, repository = _journal(overrides)
    typer.echo(
        journal.experiment(number).diff if number is not None else cumulative_diff(journal, repository)
    )


@app.command()
def report(overrides: Overrides = None) -> None:
    """Write the report page and print where it lies."""
    from autoresearch.launch import write_page
    from autoresearch.record.report import headline
    from autoresearch.record.summary import summarize

    journal, repository = _journal(overrides)
    written = write_page(journal, repository)
    typer.echo(headline(summarize(journal)))
    typer.echo(f"report: {written.html}")


@app.command()
def ui(
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Start the MLflow UI on the store that the search writes to, and say where to look."""
    import os
    import subprocess

    from autoresearch.launch import recorded_config
    from autoresearch.record import views
    from autoresearch.record.mlflow import EXPERIMENT_KEY

    journal, _ = _journal(overrides)
    folder = journal.path.parent
    uri = recorded_config(folder).tracking.uri
    shown = views.ui(uri, folder.parent / "mlflow", port, journal.info(), journal.get(EXPERIMENT_KEY))
    typer.echo(f"MLflow: {shown.url}")
    if shown.command:
        typer.echo("It takes some seconds to start; end it with Ctrl-C.")
        try:
            sys.exit(subprocess.run(shown.command, env={**os.environ, **shown.environment}).returncode)
        except KeyboardInterrupt:
            sys.exit(130)


@app.command()
def doctor(overrides: Overrides = None) -> None:
    """What protects this machine from candidate code here, and what does not."""
    from autoresearch.config import load
    from autoresearch.run.sandbox import create_sandbox, describe
    from autoresearch.run.sandbox.gpu import describe as describe_gpu

    sandbox = create_sandbox(load(overrides or []).sandbox["backend"])
    report = describe(sandbox)
    typer.echo(f"sandbox: {report.backend}")
    for item in report.protections:
        typer.echo(f"  {'yes' if item.held else 'NO ':3}  {item.name}: {item.how}")
    typer.echo(f"  GPU: {describe_gpu(sandbox)}")
    if report.warning:
        typer.echo(report.warning)


def _journal(overrides: list[str] | None) -> tuple[Journal, Repository]:
    from autoresearch.launch import search_folder
    from autoresearch.record.git import Repository
    from autoresearch.record.journal import Journal

    return Journal(search_folder(overrides or []) / "journal.db"), Repository(Path.cwd())


def _dumps(value: Any, indent: int | None = 2) -> str:
    return json.dumps(value, indent=indent, default=str)
