"""Commands that steer a search while it runs: notes, ideas, pause, resume and stop.

They write into its inbox and return at once; the search reads it between its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, chosen, dumps, open_journal
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.store.git import Repository
    from autoresearch.store.inbox import Inbox
    from autoresearch.store.journal import Journal

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT] [KEY=VALUE]...", help="What to say, in quotes.")
]

idea = typer.Typer(no_args_is_help=True, help="Leave an idea or a patch for the proposer, list or drop them.")


def note(words: Words = None) -> None:
    """Leave a note to the proposer, which sees it from its next call on."""
    from autoresearch.search.setup.open import recorded_config, unread

    text, overrides = _split(words)
    if not text:
        raise UserError("There is nothing to say.", 'Say it in quotes: autoresearch note "try fewer heads"')
    inbox = _inbox(overrides)
    inbox.add_note(text)
    typer.echo(f"Noted for {inbox.path.parent.name}.")
    for line in unread(recorded_config(inbox.path.parent), ""):
        typer.echo(f"But nobody reads it now. {line}")


@idea.command("add")
def add(
    words: Words = None,
    patch: Annotated[
        Path | None, typer.Option("--patch", help="A unified diff of the script, tried as it is.")
    ] = None,
) -> None:
    """Leave an idea in words, or a patch that is tried before any proposer is asked."""
    from autoresearch.edit.patch import read_patch
    from autoresearch.propose import PROPOSERS
    from autoresearch.search.setup.open import recorded_config

    text, overrides = _split(words)
    diff = "" if patch is None else read_patch(patch)
    if not text and patch is None:
        raise UserError("There is no idea.", 'For example: autoresearch idea add "tie the embeddings"')
    inbox = _inbox(overrides)
    if diff:
        _check(diff, inbox.path.parent)
    number = inbox.add_idea(text or f"patch {patch.name if patch else ''}", diff)
    typer.echo(f"Idea {number} waits in {inbox.path.parent.name}.")
    name = recorded_config(inbox.path.parent).proposer["name"]
    if not diff and not getattr(PROPOSERS.load(name), "reads_ideas", False):
        typer.echo(f"But no model reads it there: the proposer is {name}, and only patches are tried.")


@idea.command("list")
def list_ideas(overrides: Overrides = None, json: Json = False) -> None:
    """List every idea and what became of it."""
    from autoresearch.store.inbox import Inbox
    from autoresearch.text import one_line

    journal, _ = open_journal(overrides)
    inbox = Inbox(journal.path.parent)
    tested = {
        e.proposal.idea: f"experiment {e.number}" + (f": {e.verdict.kind}" if e.verdict else "")
        for e in journal.experiments()
        if e.proposal and e.proposal.idea
    }
    entries = inbox.entries()
    if json:
        told = {e.idea.number: tested.get(e.idea.number) or e.reason for e in entries}
        typer.echo(dumps([{**asdict(e), "about": told[e.idea.number]} for e in entries]))
        return
    for entry in entries:
        about = tested.get(entry.idea.number) or entry.reason
        kind = "patch" if entry.idea.patch else "words"
        state = f"{entry.state} ({one_line(about, 160)})" if about else entry.state
        typer.echo(f"{entry.idea.number:4d}  {kind}  {one_line(entry.idea.text, 80)}  [{state}]")
    if not entries:
        typer.echo("There are no ideas.")


@idea.command("drop")
def drop(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the idea.")],
    overrides: Overrides = None,
) -> None:
    """Drop an idea that no proposal tests yet."""
    _inbox(overrides or []).drop(number)
    typer.echo(f"Idea {number} is dropped.")


def pause(overrides: Overrides = None) -> None:
    """Pause a search at its next step; trials that are running finish."""
    _wish("pause", overrides, "{name} pauses at its next step. Go on with: autoresearch resume name={name}")


def resume(overrides: Overrides = None) -> None:
    """Continue a paused search."""
    _wish("run", overrides, "{name} goes on.")


def stop(overrides: Overrides = None) -> None:
    """Stop a search at its next step; `run` with its name continues it. No claim follows by itself."""
    from autoresearch.search.setup.open import recorded_config
    from autoresearch.tasks import create_task

    folder = _wish("stop", overrides, "{name} stops at its next step.")
    config, name = recorded_config(folder), folder.name
    if config.claim and create_task(config).sealed:
        typer.echo(
            "No claim follows, because the search may go on: the test split stays sealed. To claim what it "
            f"has found: autoresearch claim name={name}"
        )
    typer.echo(f"Go on later with: autoresearch run name={name}")


def _wish(value: str, overrides: list[str] | None, words: str) -> Path:
    """Ask a search for something; returns its folder.

    Raises:
        UserError: If no process runs it, so that nobody would hear.
    """
    journal, _ = open_journal(overrides)
    name, runner = journal.path.parent.name, journal.runner()
    journal.close()
    if runner is None:
        raise UserError(f"No process runs {name}.", f"Go on with it: autoresearch run name={name}")
    from autoresearch.store.inbox import Inbox

    Inbox(journal.path.parent).wish(value)
    typer.echo(words.format(name=name))
    return journal.path.parent


def _inbox(overrides: list[str]) -> Inbox:
    from autoresearch.store.inbox import Inbox

    return Inbox(chosen(overrides))


def _split(words: list[str] | None) -> tuple[str, list[str]]:
    """What is said, and trailing `name=` and `runs=`, which choose the search."""
    said = list(words or [])
    overrides: list[str] = []
    while said and said[-1].startswith(("name=", "runs=")):
        overrides.insert(0, said.pop())
    return " ".join(said).strip(), overrides


def incumbent_of(journal: Journal, repository: Repository) -> tuple[str, Mapping[str, str]]:
    """The incumbent's commit, and its editable files: path -> text."""
    from autoresearch.search.setup.open import recorded_config
    from autoresearch.tasks import create_task
    from autoresearch.types import in_order

    kept = [e.commit for e in in_order(journal.experiments()) if e.kept]
    tip = kept[-1] if kept else journal.info().base_commit
    return tip, repository.sources(tip, create_task(recorded_config(journal.path.parent)).editable)


def _check(diff: str, folder: Path) -> None:
    """Refuse at once a patch that does not apply to the script as it is now."""
    from autoresearch.edit.patch import edits_from_patch
    from autoresearch.errors import Refused
    from autoresearch.store.git import Repository
    from autoresearch.store.journal import Journal

    _, sources = incumbent_of(Journal(folder / "journal.db"), Repository(Path.cwd()))
    try:
        edits_from_patch(diff, sources)
    except Refused as error:
        raise UserError(
            f"That patch cannot be tried: {error}", "Make it against the branch of the search."
        ) from None
