"""What the commands share: the types of their arguments, and how they find and print a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from autoresearch.store.git import Repository
    from autoresearch.store.journal import Journal

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings; see configs/.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Number = Annotated[int, typer.Argument(metavar="N", help="Number of the experiment.")]


def open_journal(overrides: list[str] | None) -> tuple[Journal, Repository]:
    """The journal of the search that `name=` names, or of the latest one, and the repository it is about."""
    from autoresearch.search.setup import search_folder
    from autoresearch.store.git import Repository
    from autoresearch.store.journal import Journal

    return Journal(search_folder(overrides or []) / "journal.db"), Repository(Path.cwd())


def dumps(value: Any, indent: int | None = 2) -> str:
    """JSON for a program."""
    return json.dumps(value, indent=indent, default=str)
