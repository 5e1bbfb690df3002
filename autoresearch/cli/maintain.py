"""Commands that maintain searches: bring MLflow and git up to date, make room, write the trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, chosen, dumps, open_journal
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.config import Config
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.journal import Journal

SYNC_SECONDS = 3600.0
"""How long MLflow may take."""


def sync(
    overrides: Overrides = None,
    git: Annotated[bool, typer.Option("--git", help="Also make commits and refs in git again.")] = False,
) -> None:
    """Rebuild MLflow from the journal: a store that was deleted, or a search that ran with tracking=none.

    With --git and tracking=none only git is brought up to date.
    """
    from autoresearch.store.files import locked_journal
    from autoresearch.store.git.repository import Repository

    given = overrides or []
    repository = Repository(Path.cwd())
    with locked_journal(chosen(given)) as journal:
        if git:
            _sync_git(journal, repository)
        count = len(journal.experiments())
        config = _tracked_config(
            journal.path.parent, [o for o in given if not o.startswith(("name=", "runs="))]
        )
        if not config.tracking.enabled:
            if git:
                return
            raise UserError("tracking=none leaves nothing to bring up to date.", "Leave it out.")
        problem = _sync_mlflow(journal, repository, config)
    if problem:
        typer.echo(f"error: {problem}", err=True)
        typer.echo("  Run the same again when the store answers: what is written stays.", err=True)
        sys.exit(3)
    typer.echo(f"MLflow: {count} experiments are as in the journal; see them with: autoresearch ui")


def _sync_git(journal: Journal, repository: Repository) -> None:
    """Make lost commits of a search again, and point its refs and its branch at its commits."""
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.store.git.commits import rebuild
    from autoresearch.tasks import create_task

    folder = journal.path.parent
    done = rebuild(journal, repository, create_task(recorded_config(folder)).editable)
    typer.echo(f"git: {done.refs} candidates can be reached; {done.branch}")
    if done.remade:
        typer.echo(f"git: made again, the same to the byte: {', '.join(map(str, done.remade))}")
    if done.missing:
        numbers = ", ".join(map(str, done.missing))
        typer.echo(f"git: the commits of these experiments are gone, their diffs are not: {numbers}")


def _tracked_config(folder: Path, overrides: list[str]) -> Config:
    """The settings that a search was begun with, and MLflow, if the overrides do not say otherwise."""
    from autoresearch.config import load
    from autoresearch.search.setup.settings import recorded_config

    recorded = recorded_config(folder)
    tracking = [] if recorded.tracking.enabled else ["tracking=mlflow"]
    return load([*recorded.overrides, *tracking, *overrides], environment={}, own_file=False)


def _sync_mlflow(journal: Journal, repository: Repository, config: Config) -> str | None:
    """Write a whole search into MLflow, whatever is there already; says why MLflow is not up to date."""
    from autoresearch.report.page import write_page
    from autoresearch.search.setup.open import create_mirror

    journal.unmirrored()
    report = write_page(journal, repository)
    files = [path for path in (report.markdown, report.html, report.png) if path]
    return create_mirror(config, repository, journal.path.parent).close(journal, files, seconds=SYNC_SECONDS)


def clean(
    overrides: Overrides = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove whole searches that have ended.")] = False,
    git: Annotated[
        bool,
        typer.Option("--git", help="With --all: their branches and candidates, too. The name is free then."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make room: remove what searches leave behind, and shorten old logs. Without name=: of all searches."""
    from autoresearch.config import load
    from autoresearch.search.setup.settings import runs_folder, search_folder
    from autoresearch.store import files
    from autoresearch.store.git.repository import Repository

    given = overrides or []
    if git and not everything:
        raise UserError(
            "clean --git is not enough.", "To remove searches with their branches: clean --all --git"
        )
    config, repository = load(given), Repository(Path.cwd())
    runs = runs_folder(config, repository)
    folders = files.leftovers(runs)
    if any(o.startswith("name=") for o in given):
        folder = runs / config.name
        if folder not in folders and not (git and _in_git(repository, config.name)):
            search_folder(given)  # says that there is none
        folders = [folder]
    total = 0
    for folder in folders:
        try:
            if everything:
                kept = "" if git else " (git keeps its branch and candidates)"
                what = " with its journal and report" + (
                    ", its branch and its candidates in git" if git else ""
                )
                if not yes and not typer.confirm(f"Remove {folder}{what}?{kept}"):
                    continue
                freed = {"all of it": _remove(folder, repository, git)}
            else:
                freed = files.clean(folder, config.keep_logs)
        except UserError as error:
            typer.echo(f"{folder.name}: left alone: {error}" + (f" {error.hint}" if error.hint else ""))
            continue
        total += sum(freed.values())
        said = ", ".join(f"{what} {_megabytes(size)}" for what, size in freed.items())
        typer.echo(f"{folder.name}: {said or 'nothing to remove'}")
    repository.prune_worktrees(runs)
    typer.echo(f"freed {_megabytes(total)}")


def _in_git(repository: Repository, name: str) -> bool:
    """Whether git has a branch or candidates of a search of this name."""
    return any(repository.refs(f"refs/{place}/{name}") for place in ("heads/autoresearch", "autoresearch"))


def _remove(folder: Path, repository: Repository, git: bool) -> int:
    """Remove a whole search, and say what git has of it, or had."""
    from autoresearch.store.files import remove_search
    from autoresearch.store.git.commits import forget

    name, removed = folder.name, ""

    def forgotten() -> None:
        nonlocal removed
        removed = forget(repository, name)

    freed = remove_search(folder, forgotten if git else lambda: None)
    if removed:
        typer.echo(f"{name}: removed from git: {removed}")
    elif _in_git(repository, name):
        typer.echo(
            f"{name}: git keeps its branch and candidates, so a new search cannot have this name. To remove "
            f"them, too: autoresearch clean --all --git name={name}"
        )
    return freed


def trace(overrides: Overrides = None, json: Json = False) -> None:
    """Write what was done when as a Chrome trace, for ui.perfetto.dev, and print its path."""
    from autoresearch.report import timeline
    from autoresearch.text import duration

    journal, _ = open_journal(overrides)
    found = journal.timeline()
    path = journal.path.parent / "report" / "trace.json"
    path.parent.mkdir(exist_ok=True)
    made = timeline.trace(journal.info().name, found, journal.experiments())
    path.write_text(dumps(made, indent=None), encoding="utf-8")
    if json:
        typer.echo(dumps({"trace": path}))
        return
    time = timeline.time_use(found)
    if time.busy is not None:
        typer.echo(f"training {time.busy:.1%} of {duration(time.wall)}")
    typer.echo(f"trace: {path}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
