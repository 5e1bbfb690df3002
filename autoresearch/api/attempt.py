"""Makes an experiment of a change that a person or an agent made, and waits for its verdict.

The change is measured and judged like any other, by the search that runs, or by one that is run for it. So
whoever edits files in an editor or a session of their own cannot read a score off their own output.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoresearch.edit.candidate import diff
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.search.setup.open import open_search
from autoresearch.search.setup.settings import recorded_config
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import RUNS_ALREADY
from autoresearch.tasks import create_task
from autoresearch.types import Experiment, in_order

POLL_SECONDS = 0.5


def leave_change(folder: Path, hypothesis: str, patch: str | None) -> int:
    """Leave a change for the search to try.

    Args:
        folder: Of the search.
        hypothesis: What is changed, and why.
        patch: A unified diff of the incumbent's editable files; None: what the working tree changes in them.

    Returns:
        The number of the idea.

    Raises:
        UserError: If it says nothing, changes nothing, or does not fit the incumbent.
    """
    if not hypothesis.strip():
        raise UserError(
            "A change needs a sentence that says what it is.", 'Say it: try -m "tie the embeddings"'
        )
    with Journal.of(folder) as journal:
        tip, incumbent = incumbent_of(journal, repository := Repository(Path.cwd()))
        hint = f"Start from the branch: git switch --detach {journal.info().branch}"
        if patch is None:
            base = repository.common_ancestor("HEAD", tip) or journal.info().base_commit
            patch = _working_tree(repository, base, incumbent, hint)
    if not patch.strip():
        files = ", ".join(incumbent)
        raise UserError(f"Nothing is changed in {files}.", "Edit there, or give a diff with --patch.")
    require_fit(patch, incumbent, hint)
    return Inbox(folder).add_idea(hypothesis, patch)


def verdict_of(
    folder: Path, number: int, overrides: Sequence[str] = (), view: str = "quiet"
) -> Experiment | None:
    """Wait for the experiment that tests an idea, and run the search for it where nobody does.

    Args:
        folder: Of the search.
        number: Of the idea.
        overrides: Settings for a run of it.
        view: How to show that run.

    Returns:
        The experiment with its verdict, or None if the search was stopped before it had one.

    Raises:
        UserError: If the idea was refused.
    """
    ran = False
    while True:
        found = _wait(folder, number)
        if found is not None or ran:
            return found
        chosen = [o for o in overrides if not o.startswith("name=")]
        try:
            with open_search([f"name={folder.name}", *chosen], view, patches_only=True) as search:
                search.run()
            ran = True
        except UserError as error:
            if error.code != RUNS_ALREADY:
                raise
            time.sleep(POLL_SECONDS)  # somebody else was faster: it takes up what waits


def incumbent_of(journal: Journal, repository: Repository) -> tuple[str, Mapping[str, str]]:
    """The incumbent's commit, and its editable files: path -> text."""
    kept = [e.commit for e in in_order(journal.experiments()) if e.kept]
    tip = kept[-1] if kept else journal.info().base_commit
    return tip, repository.sources(tip, create_task(recorded_config(journal.path.parent)).editable)


def require_fit(patch: str, incumbent: Mapping[str, str], hint: str) -> None:
    """Refuse at once a patch that does not apply to the incumbent's files.

    Raises:
        UserError: If it does not; with the hint.
    """
    try:
        edits_from_patch(patch, incumbent)
    except Refused as error:
        raise UserError(f"The change does not fit the incumbent: {error}", hint) from None


def _working_tree(repository: Repository, start: str, incumbent: Mapping[str, str], hint: str) -> str:
    """What the working tree changes since `start`, as a diff of the incumbent: it undoes nothing kept since.

    Raises:
        UserError: If the incumbent has changed the same lines.
    """
    base = repository.sources(start, incumbent)
    here = {path: _read(repository.root / path) for path in incumbent}
    merged = {path: repository.merge(incumbent[path], base[path], here[path]) for path in incumbent}
    if clash := [path for path, text in merged.items() if text is None]:
        raise UserError(f"The incumbent has changed the same lines of {', '.join(clash)}.", hint)
    return diff(incumbent, {path: text for path, text in merged.items() if text is not None})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Restore it: git checkout -- FILE") from None


def _wait(folder: Path, number: int) -> Experiment | None:
    """Wait for a verdict on an idea; None if nobody runs the search any more.

    Raises:
        UserError: If the idea was refused.
    """
    with Journal.of(folder) as journal:
        while True:
            idle = journal.runner() is None  # asked first: what it wrote last is read below
            for e in journal.experiments():
                if e.proposal and e.proposal.idea == number and e.verdict:
                    return e
            entry = next(e for e in Inbox(folder).entries() if e.idea.number == number)
            if entry.state in ("refused", "dropped"):
                raise UserError(f"It was not tried: {entry.reason or entry.state}.", "Change it, try again.")
            if idle:
                return None
            time.sleep(POLL_SECONDS)
