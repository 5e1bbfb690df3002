"""Commands about this machine and what is set on it: doctor, prepare, config."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli import complete
from autoresearch.cli.inspect import Json, Overrides, dumps, print_lines


def doctor(
    overrides: Overrides = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the two trainings.")] = False,
    json: Json = False,
) -> None:
    """Look at this machine: protection, git, disk, data, key, device; train twice, and say what suits it."""
    from autoresearch.config import load
    from autoresearch.execute import is_remote
    from autoresearch.search.setup.doctor import examine

    config = load(overrides or [])
    found = [] if is_remote(config.executor.name) else _protection(config.sandbox["backend"])
    looked = examine(overrides or [], Path.cwd(), lambda t: typer.echo(t, err=True), quick=quick)
    print_lines(chain(found, looked), json)


def _protection(backend: str) -> list[tuple[str, str]]:
    """What the sandbox of this machine protects from, as lines of a heading and a text."""
    from autoresearch.execute.sandbox import create_sandbox, describe
    from autoresearch.execute.sandbox.gpu import describe as describe_gpu

    sandbox = create_sandbox(backend, lambda text: typer.echo(text, err=True))
    report = describe(sandbox)
    found = [("sandbox", report.backend)]
    found += [(f"  {'yes' if p.held else 'NO'}", f"{p.name}: {p.how}") for p in report.protections]
    found.append(("GPU", describe_gpu(sandbox)))
    return [*found, ("warning", report.warning)] if report.warning else found


def prepare(overrides: Overrides = None, json: Json = False) -> None:
    """Prepare the corpus and print its path. `run` does this by itself."""
    from autoresearch.config import load
    from autoresearch.search.setup.create import require_files
    from autoresearch.search.setup.settings import runs_folder
    from autoresearch.store.git.repository import Repository
    from autoresearch.tasks import create_task

    config, repository = load(overrides or []), Repository(Path.cwd())
    task = create_task(config)
    require_files(repository, task)
    data = task.prepare(runs_folder(config, repository) / "cache")
    told = {"path": data.path, "sizes": data.sizes, "about": data.about}
    typer.echo(dumps(told) if json else f"{data.path}\n{data.sizes}")


def config(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY]... [KEY=VALUE]...",
            help="Keys to show; none: all.",
            autocompletion=complete.settings,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print what is set, where each value comes from, and what it means; with name=, what a search has."""
    from autoresearch.config.compose import suggest
    from autoresearch.config.explain import keys, settings
    from autoresearch.config.files import quoted
    from autoresearch.errors import UserError
    from autoresearch.search.setup.settings import place_of, recorded_config, runs_of
    from autoresearch.store.git.repository import Repository

    given = words or []
    overrides, wanted = [w for w in given if "=" in w], [w.rstrip("=") for w in given if "=" not in w]
    place = place_of(overrides)
    named = any(o.startswith("name=") for o in overrides)
    folder = runs_of(place, Repository(Path.cwd())) / place.name if named else None
    if folder is not None and (folder / "journal.db").exists():
        known = settings(overrides, recorded=recorded_config(folder))
    else:
        known = settings(overrides)
    shown = [s for s in known if not wanted or any(s.key == w or s.key.startswith(f"{w}.") for w in wanted)]
    for word in wanted:
        if not any(s.key == word or s.key.startswith(f"{word}.") for s in shown):
            raise UserError(f"There is no setting {word}.", suggest(word, keys(), "keys"))
    if json:
        typer.echo(dumps([asdict(setting) for setting in shown]))
        return
    for setting in shown:
        typer.echo(f"{setting.key}={quoted(setting.value)}  # {setting.source}")
        if wanted and setting.comment:
            typer.echo(f"    {setting.comment}")
