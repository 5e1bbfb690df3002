"""Bringing MLflow and git up to date with the journal of a search that does not run."""

from __future__ import annotations

from autoresearch.config import Config, load
from autoresearch.errors import UserError
from autoresearch.search.setup import create_mirror, recorded_config, write_page
from autoresearch.store.commits import Rebuilt, rebuild
from autoresearch.store.git import Repository, Worktree
from autoresearch.store.journal import Journal
from autoresearch.tasks import create_task

SYNC_SECONDS = 3600.0
"""How long MLflow may take."""


def sync_mlflow(journal: Journal, repository: Repository, overrides: list[str]) -> str | None:
    """Write a whole search into MLflow, whatever is there already.

    Args:
        journal: Of the search; its lock is held.
        repository: It is about.
        overrides: Settings that differ from those it ran with, such as another store.

    Returns:
        Why MLflow is not up to date, in one line; None if it is.
    """
    folder = journal.path.parent
    recorded = recorded_config(folder)
    tracking = [] if recorded.tracking.enabled else ["tracking=mlflow"]
    config: Config = load([*recorded.overrides, *tracking, *overrides], environment={}, own_file=False)
    if not config.tracking.enabled:
        raise UserError("tracking=none leaves nothing to bring up to date.", "Leave it out.")
    journal.unmirrored()
    report = write_page(journal, repository)
    files = [path for path in (report.markdown, report.html, report.png) if path]
    mirror = create_mirror(config, repository, folder)
    return mirror.close(journal, files, seconds=SYNC_SECONDS)


def sync_git(journal: Journal, repository: Repository) -> Rebuilt:
    """Make lost commits of a search again, and point its refs and its branch at its commits."""
    folder = journal.path.parent
    done = rebuild(journal, repository, folder, create_task(recorded_config(folder)).editable)
    Worktree(repository, folder / "worktree").remove()
    return done
