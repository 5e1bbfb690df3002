"""Commands that look after searches: bring MLflow and git up to date, make room, show where the time went."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli.options import Overrides, open_journal


def sync(
    overrides: Overrides = None,
    git: Annotated[bool, typer.Option("--git", help="Also make commits and refs in git again.")] = False,
) -> None:
    """Rebuild MLflow from the journal: a store that was deleted, or a search that ran with tracking=none."""
    from autoresearch.search.setup import search_folder
    from autoresearch.search.sync import sync_git, sync_mlflow
    from autoresearch.store.files import locked_journal
    from autoresearch.store.git import Repository

    given = overrides or []
    repository = Repository(Path.cwd())
    settings = [o for o in given if not o.startswith(("name=", "runs="))]
    with locked_journal(search_folder(given)) as journal:
        if git:
            done = sync_git(journal, repository)
            typer.echo(f"git: {done.refs} candidates can be reached; {done.branch}")
            if done.remade:
                typer.echo(f"git: made again, the same to the byte: {', '.join(map(str, done.remade))}")
            if done.missing:
                numbers = ", ".join(map(str, done.missing))
                typer.echo(f"git: the commits of these experiments are gone, their diffs are not: {numbers}")
        count = len(journal.experiments())
        problem = sync_mlflow(journal, repository, settings)
    if problem:
        typer.echo(f"error: {problem}", err=True)
        typer.echo("  Run the same again when the store answers: what is written stays.", err=True)
        sys.exit(3)
    typer.echo(f"MLflow: {count} experiments are as in the journal; see them with: autoresearch ui")


def clean(
    overrides: Overrides = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove whole searches that have ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make room: remove what searches leave behind, and shorten old logs. Without name=: of all searches."""
    from autoresearch.config import load
    from autoresearch.errors import UserError
    from autoresearch.search.setup import runs_folder, search_folder
    from autoresearch.store import files
    from autoresearch.store.git import Repository

    given = overrides or []
    config, repository = load(given), Repository(Path.cwd())
    named = any(o.startswith("name=") for o in given)
    folders = [search_folder(given)] if named else files.searches(runs_folder(config, repository))
    total = 0
    for folder in folders:
        try:
            if everything:
                question = f"Remove {folder} with its journal and report? (its commits stay in git)"
                if not yes and not typer.confirm(question):
                    continue
                freed = {"all of it": files.remove_search(folder)}
            else:
                freed = files.clean(folder, config.keep_logs)
        except UserError as error:
            typer.echo(f"{folder.name}: left alone: {error}")
            continue
        total += sum(freed.values())
        said = ", ".join(f"{what} {_megabytes(size)}" for what, size in freed.items())
        typer.echo(f"{folder.name}: {said or 'nothing to remove'}")
    repository.prune_worktrees(runs_folder(config, repository))
    typer.echo(f"freed {_megabytes(total)}")


def trace(overrides: Overrides = None) -> None:
    """Write what was done when as a Chrome trace, for ui.perfetto.dev, and print where it lies."""
    from autoresearch.report.timeline import time_use
    from autoresearch.report.timeline import trace as make
    from autoresearch.text import duration

    journal, _ = open_journal(overrides)
    found = journal.timeline()
    path = journal.path.parent / "report" / "trace.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(make(journal.info().name, found, journal.experiments())), encoding="utf-8")
    time = time_use(found)
    if time.busy is not None:
        typer.echo(f"training {time.busy:.1%} of {duration(time.wall)}")
    typer.echo(f"trace: {path}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
