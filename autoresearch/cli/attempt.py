"""`autoresearch try`: makes an experiment of what a person or an agent changed, and waits for its verdict.

The change is measured and judged like any other, by the search that runs, or by one that is run for it. So
whoever edits files in an editor or a session of their own cannot read a score off their own output.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, chosen, dumps
from autoresearch.cli.steer import incumbent_of
from autoresearch.errors import Refused, UserError

if TYPE_CHECKING:
    from autoresearch.store.inbox import Inbox
    from autoresearch.store.journal import Journal
    from autoresearch.types import Experiment

POLL_SECONDS = 0.5


def attempt(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What is changed, and why.")] = "",
    patch: Annotated[
        Path | None,
        typer.Option("--patch", help="A unified diff; without it: what the working tree changes."),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Wait for the verdict, and run the search if nobody does.")
    ] = True,
    json: Json = False,
) -> None:
    """Try what the working tree changes in the editable files: an experiment like any other."""
    from autoresearch.edit.patch import read_patch
    from autoresearch.store.inbox import Inbox
    from autoresearch.store.journal import Journal

    if not message.strip():
        raise UserError(
            "A change needs a sentence that says what it is.", 'Say it: try -m "tie the embeddings"'
        )
    given = list(overrides or [])
    folder = chosen(given)
    journal, inbox = Journal(folder / "journal.db"), Inbox(folder)
    number = inbox.add_idea(message, _checked(journal, read_patch(patch) if patch else None))
    if wait:
        if journal.runner() is None:
            _run(given, folder.name, "quiet" if json else "auto")
        found = _verdict(journal, inbox, number)
    else:
        found = None
    if found is None:
        typer.echo(f"Idea {number} waits in {folder.name}. Follow it with: autoresearch idea list")
    else:
        _tell(journal, found, json)


def _checked(journal: Journal, patch: str | None) -> str:
    """The change as a patch that applies to the incumbent's files now.

    Raises:
        UserError: If nothing is changed, or if the incumbent has changed the same lines.
    """
    from autoresearch.edit.candidate import diff
    from autoresearch.edit.patch import edits_from_patch
    from autoresearch.store.git import Repository

    repository = Repository(Path.cwd())
    tip, incumbent = incumbent_of(journal, repository)
    hint = f"Start from the branch: git switch --detach {journal.info().branch}"
    if patch is None:
        # The change is carried over from where it was begun, so that it does not undo what was kept since.
        start = repository.common_ancestor("HEAD", tip) or journal.info().base_commit
        base = repository.sources(start, incumbent)
        here = {path: _read(repository.root / path) for path in incumbent}
        merged = {path: repository.merge(incumbent[path], base[path], here[path]) for path in incumbent}
        if clash := [path for path, text in merged.items() if text is None]:
            raise UserError(f"The incumbent has changed the same lines of {', '.join(clash)}.", hint)
        patch = diff(incumbent, {path: text for path, text in merged.items() if text is not None})
    if not patch.strip():
        files = ", ".join(incumbent)
        raise UserError(f"Nothing is changed in {files}.", "Edit there, or give a diff with --patch.")
    try:
        edits_from_patch(patch, incumbent)
    except Refused as error:
        raise UserError(f"The change does not fit the incumbent: {error}", hint) from None
    return patch


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.", "Restore it: git checkout -- FILE") from None


def _run(overrides: list[str], name: str, view: str) -> None:
    """Run the search until the patches that wait are judged; its own plan of experiments stays as it is."""
    from autoresearch.search.setup.open import open_search

    chosen_ones = [o for o in overrides if not o.startswith("name=")]
    with open_search([f"name={name}", *chosen_ones], view, patches_only=True) as search:
        search.run()


def _verdict(journal: Journal, inbox: Inbox, number: int) -> Experiment | None:
    """Wait for the experiment that tests an idea; None if nobody runs the search any more.

    Raises:
        UserError: If the idea was refused.
    """
    while True:
        idle = journal.runner() is None
        for e in journal.experiments():
            if e.proposal and e.proposal.idea == number and e.verdict:
                return e
        entry = next(e for e in inbox.entries() if e.idea.number == number)
        if entry.state in ("refused", "dropped"):
            raise UserError(f"It was not tried: {entry.reason or entry.state}.", "Change it, and try again.")
        if idle:
            return None
        time.sleep(POLL_SECONDS)


def _tell(journal: Journal, experiment: Experiment, json: bool) -> None:
    from autoresearch.report.summary import experiment_row
    from autoresearch.text import verdict_text

    metric, verdict = journal.info().metric, experiment.verdict
    if json:
        typer.echo(dumps(experiment_row(experiment, metric)))
    elif verdict is not None:
        typer.echo(f"#{experiment.number} {verdict_text(verdict, metric)}: {verdict.reason}")
