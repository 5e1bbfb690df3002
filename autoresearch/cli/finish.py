"""Commands for the end of a search: what may be claimed, and which changes the evidence supports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.options import Json, Overrides, dumps

if TYPE_CHECKING:
    from autoresearch.search.loop import Search


@contextmanager
def _opened(name: str, overrides: list[str] | None, quiet: bool) -> Iterator[Search]:
    """A search that has ended, opened again; ends the command if a person stops what is done with it."""
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup import open_search

    others = [o for o in overrides or [] if not o.startswith("name=")]
    try:
        with open_search([f"name={name}", *others], "quiet" if quiet else "auto") as search:
            yield search
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit from None


def claim(overrides: Overrides = None, json: Json = False) -> None:
    """Claim the result: start and tip on fresh seeds, scored on the sealed test split, once."""
    from dataclasses import asdict

    from autoresearch.finish.claim import make_claim
    from autoresearch.report.markdown import claim_sentence
    from autoresearch.search.setup import search_folder

    folder = search_folder(overrides or [])
    with _opened(folder.name, overrides, json) as search:
        record = make_claim(search, search.config.claim)
        metric = search.journal.info().metric
    typer.echo(dumps(asdict(record)) if json else claim_sentence(record, metric))


def audit(
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=0, help="Trainings to spend on it.")] = 24,
    json: Json = False,
) -> None:
    """Audit what was kept: train it with random halves left out, and say what is doubtful."""
    from dataclasses import asdict

    from autoresearch.finish.audit import make_audit
    from autoresearch.report.markdown import audit_lines
    from autoresearch.search.setup import search_folder

    folder = search_folder(overrides or [])
    with _opened(folder.name, overrides, json) as search:
        record = make_audit(search, runs)
        metric = search.journal.info().metric
    typer.echo(dumps(asdict(record)) if json else "\n".join(audit_lines(record, metric)))
