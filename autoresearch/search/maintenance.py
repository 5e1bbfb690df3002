"""What is done to searches that do not run: mirrored again, rebuilt in git, cleaned, removed.

Whoever changes a search holds its lock, so none that runs is touched. Commits stay in git, and what MLflow
shows stays in MLflow. Not covered: what can be thrown away (`retention`), and how git is rebuilt (`rebuild`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.config import Config, load
from autoresearch.errors import UserError
from autoresearch.search.rebuild import Rebuilt, rebuild
from autoresearch.search.setup import create_mirror, recorded_config, write_page
from autoresearch.store.git import Repository, Worktree
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.store.retention import SCRATCH, removed, trim
from autoresearch.tasks import create_task

SYNC_SECONDS = 3600.0


@contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """The journal of a search that nobody runs meanwhile.

    Raises:
        UserError: If it runs.
    """
    with lock(folder):
        journal = Journal(folder / "journal.db")
        try:
            yield journal
        finally:
            journal.close()


def mirror_again(journal: Journal, repository: Repository, overrides: list[str]) -> str | None:
    """Write a whole search into MLflow, whatever is there already.

    Args:
        journal: Of the search.
        repository: It is about.
        overrides: Settings that differ from those it ran with, such as another store.

    Returns:
        Why MLflow is not up to date, in one line; None if it is.
    """
    folder = journal.path.parent
    recorded = recorded_config(folder)
    tracking = [] if recorded.tracking.enabled else ["tracking=mlflow"]
    config: Config = load([*recorded.overrides, *tracking, *overrides], environment={})
    if not config.tracking.enabled:
        raise UserError("tracking=none leaves nothing to bring up to date.", "Leave it out.")
    journal.unmirrored()
    report = write_page(journal, repository)
    files = [path for path in (report.markdown, report.html, report.png) if path]
    mirror = create_mirror(config, repository, folder)
    return mirror.close(journal, files, seconds=SYNC_SECONDS)


def rebuild_git(journal: Journal, repository: Repository) -> Rebuilt:
    """Make a search's commits that are gone again, and point its refs and its branch at what is there."""
    folder = journal.path.parent
    done = rebuild(journal, repository, folder, create_task(recorded_config(folder)).editable)
    Worktree(repository, folder / "worktree").remove()
    return done


def clean(folder: Path, keep_logs: int) -> dict[str, int]:
    """Remove what a search can do without.

    Args:
        folder: Of the search.
        keep_logs: Of how many of its latest experiments to keep whole logs.

    Returns:
        Bytes that were freed, by what they were.

    Raises:
        UserError: If it runs.
    """
    freed: dict[str, int] = {}
    with opened(folder) as journal:
        for pattern in SCRATCH:
            if size := sum(map(removed, list(folder.glob(pattern)))):
                name = pattern.removesuffix(".*")
                freed[name] = freed.get(name, 0) + size
        freed |= trim(journal, keep_logs)
    return freed


def remove(folder: Path) -> int:
    """Remove a finished search altogether, but for what git and MLflow have of it.

    Returns:
        Bytes that were freed.

    Raises:
        UserError: If it runs, or has not ended.
    """
    with opened(folder) as journal:
        if journal.info().finished is None:
            raise UserError(
                f"The search {folder.name} has not ended.",
                f"Go on with it (autoresearch run name={folder.name}), or delete {folder} yourself.",
            )
        # What is left below an open lock is a folder that the next search of that name finds empty.
        return removed(folder)


def searches(runs: Path) -> list[Path]:
    """Folders of all searches, oldest first."""
    return sorted((p.parent for p in runs.glob("*/journal.db")), key=lambda p: p.stat().st_mtime)
