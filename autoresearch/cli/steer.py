"""Commands that steer a search while it runs: a change to try, notes, ideas, pause, resume and stop.

They write into its inbox, which the search reads between its steps. All but `try` return at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, dumps, handle

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT] [KEY=VALUE]...", help="What to say, in quotes.")
]

idea = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Leave an idea or a patch for the proposer, list or drop them.",
)


def note(words: Words = None) -> None:
    """Leave a note to the proposer, which sees it from its next call on."""
    text, overrides = _split(words)
    typer.echo(handle(overrides).note(text))


@idea.command("add")
def add(
    words: Words = None,
    patch: Annotated[
        Path | None, typer.Option("--patch", help="A unified diff of the script, tried as it is.")
    ] = None,
) -> None:
    """Leave an idea in words, or a patch that is tried before any proposer is asked."""
    from autoresearch.edit.patch import read_patch

    text, overrides = _split(words)
    diff = read_patch(patch) if patch else ""
    typer.echo(handle(overrides).idea(text or (f"patch {patch.name}" if patch else ""), diff))


@idea.command("list")
def list_ideas(overrides: Overrides = None, json: Json = False) -> None:
    """List every idea and what became of it."""
    from autoresearch.text import one_line

    ideas = handle(overrides).ideas()
    if json:
        typer.echo(dumps(ideas))
        return
    for entry in ideas:
        about, idea = entry["about"], entry["idea"]
        kind = "patch" if idea["patch"] else "words"
        state = f"{entry['state']} ({one_line(about, 160)})" if about else entry["state"]
        source = f"  from {one_line(entry['source'], 60)}" if entry["source"] else ""
        said = one_line(entry["plain"] or idea["text"], 80)
        typer.echo(f"{idea['number']:4d}  {kind}  {said}{source}  [{state}]")
    for line in handle(overrides).sources():
        typer.echo(line)
    if not ideas:
        typer.echo("There are no ideas.")


@idea.command("drop")
def drop(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the idea.")],
    overrides: Overrides = None,
) -> None:
    """Drop an idea that no proposal tests yet."""
    typer.echo(handle(overrides).drop(number))


def pause(overrides: Overrides = None) -> None:
    """Pause a search at its next step; trials that are running finish."""
    typer.echo(handle(overrides).pause())


def resume(overrides: Overrides = None) -> None:
    """Continue a paused search."""
    typer.echo(handle(overrides).resume())


def stop(overrides: Overrides = None) -> None:
    """Stop a search at its next step; `run` with its name continues it. No claim follows by itself."""
    typer.echo(handle(overrides).stop())


def _split(words: list[str] | None) -> tuple[str, list[str]]:
    """What is said, and trailing `name=` and `runs=`, which choose the search."""
    said = list(words or [])
    overrides: list[str] = []
    while said and said[-1].startswith(("name=", "runs=")):
        overrides.insert(0, said.pop())
    return " ".join(said).strip(), overrides


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

    given = list(overrides or [])
    search = handle(given)
    diff = read_patch(patch) if patch else None
    view = "quiet" if json else "auto"
    row = search.attempt(message, diff, wait=wait, overrides=given, view=view)
    if json:
        typer.echo(dumps(row))
    elif "idea" in row:
        typer.echo(
            f"Idea {row['idea']} waits in {search.folder.name}. Follow it with: autoresearch idea list"
        )
    else:
        found = ": ".join(filter(None, (row["verdict"], row["change"], row["reason"])))
        typer.echo(f"#{row['number']} {found}")
