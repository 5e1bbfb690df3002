"""Commands that do the work: search, prepare the data, and say what protects this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli.options import Overrides
from autoresearch.cli.view import report


def run(
    overrides: Overrides = None,
    view: Annotated[str, typer.Option(help="live, plain, quiet, or auto.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run; start nothing.")] = False,
) -> None:
    """Search: propose, train, score, judge, keep. Run again with the same name to go on."""
    if dry_run:
        from autoresearch.search.plan import make_plan

        for heading, text in make_plan(overrides or [], Path.cwd()):
            typer.echo(f"{heading:12} {text}")
        return
    from autoresearch.finish.claim import make_claim
    from autoresearch.search.scheduler import Stopped
    from autoresearch.search.setup import open_search

    name = ""
    try:
        with open_search(overrides or [], view) as search:
            name = search.config.name
            # Who stops a search has not done with it: the test split stays sealed until it ends by itself.
            if search.run() and search.config.claim and any(e.kept for e in search.journal.experiments()):
                try:
                    make_claim(search, search.config.claim)
                except Stopped as stopped:
                    search.view.message(str(stopped))
    except KeyboardInterrupt:
        typer.echo(
            "\nStopped; nothing is lost." + (f" Go on with: autoresearch run name={name}" if name else "")
        )
        sys.exit(130)
    report([*[o for o in overrides or [] if o.startswith("runs=")], f"name={name}"])


def prepare(overrides: Overrides = None) -> None:
    """Prepare the corpus and print where it lies. `run` does this by itself."""
    from autoresearch.config import load
    from autoresearch.search.setup import runs_folder
    from autoresearch.store.git import Repository
    from autoresearch.tasks import create_task

    config = load(overrides or [])
    data = create_task(config).prepare(runs_folder(config, Repository(Path.cwd())) / "cache")
    typer.echo(f"{data.path}\n{data.sizes}")


def doctor(overrides: Overrides = None) -> None:
    """What protects this machine from candidate code here, and what does not."""
    from autoresearch.config import load
    from autoresearch.execute.sandbox import create_sandbox, describe
    from autoresearch.execute.sandbox.gpu import describe as describe_gpu

    sandbox = create_sandbox(load(overrides or []).sandbox["backend"])
    report = describe(sandbox)
    typer.echo(f"sandbox: {report.backend}")
    for item in report.protections:
        typer.echo(f"  {'yes' if item.held else 'NO ':3}  {item.name}: {item.how}")
    typer.echo(f"  GPU: {describe_gpu(sandbox)}")
    if report.warning:
        typer.echo(report.warning)
