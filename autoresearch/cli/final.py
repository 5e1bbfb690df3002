"""Commands for the end of a search: what may be claimed."""

from __future__ import annotations

import typer

from autoresearch.cli.options import Json, Overrides, dumps


def claim(overrides: Overrides = None, json: Json = False) -> None:
    """Claim the result: start and tip on fresh seeds, scored on the sealed test split, once."""
    from dataclasses import asdict

    from autoresearch.claim import make_claim
    from autoresearch.launch import open_search, search_folder
    from autoresearch.record.claimed import sentence

    folder = search_folder(overrides or [])
    others = [o for o in overrides or [] if not o.startswith("name=")]
    with open_search([f"name={folder.name}", *others], "quiet" if json else "auto") as search:
        record = make_claim(search, search.config.claim)
    typer.echo(dumps(asdict(record)) if json else sentence(asdict(record)))
