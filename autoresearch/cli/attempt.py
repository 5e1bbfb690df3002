"""`autoresearch try`: makes an experiment of what a person or an agent changed, and waits for its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli.inspect import Json, dumps, handle


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
