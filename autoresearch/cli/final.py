"""Commands for the end of a search: what may be claimed, and which changes the evidence supports."""

from __future__ import annotations

from typing import Annotated

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


def audit(
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=0, help="Trainings to spend on it.")] = 24,
    json: Json = False,
) -> None:
    """Audit what was kept: train it with random halves left out, and say what is doubtful."""
    from dataclasses import asdict

    from autoresearch.audit import make_audit
    from autoresearch.launch import open_search, search_folder
    from autoresearch.record.audits import lines

    folder = search_folder(overrides or [])
    others = [o for o in overrides or [] if not o.startswith("name=")]
    with open_search([f"name={folder.name}", *others], "quiet" if json else "auto") as search:
        record = make_audit(search, runs)
    typer.echo(dumps(asdict(record)) if json else "\n".join(lines(record)))
