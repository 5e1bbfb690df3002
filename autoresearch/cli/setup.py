"""Commands before a search: set a repository up and try it out, look at the machine, prepare, config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoresearch.cli import complete
from autoresearch.cli.inspect import Json, Overrides, dumps, print_lines
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.tasks.command.look import Guess


def init(
    editable: Annotated[list[str] | None, typer.Option(help="Files that may change; a path or glob.")] = None,
    run: Annotated[str | None, typer.Option(help="The command that runs a candidate.")] = None,
    score: Annotated[str | None, typer.Option(help="The command that scores what it leaves.")] = None,
    metric: Annotated[str | None, typer.Option(help="Name of the number that decides.")] = None,
    direction: Annotated[str | None, typer.Option(help="min or max.")] = None,
    metrics: Annotated[str | None, typer.Option(help="lines, json:FILE or regex:PATTERN.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the guesses.")] = False,
) -> None:
    """Set up this git repository: look at it, ask what matters, write autoresearch.yaml and a brief."""
    from autoresearch.store.git.repository import Repository
    from autoresearch.tasks.command import look

    repository = Repository(Path.cwd())
    if direction not in (None, "min", "max"):
        raise UserError(f"--direction {direction} is neither min nor max.", "min: lower is better.")
    guess = look.look(repository)
    script = next((path for path in editable or () if path in guess.scripts), None)
    if script and not run:
        guess = look.with_script(repository, guess, script)
    if not yes and not run and guess.scripts:
        typer.echo(f"Programs here: {', '.join(guess.scripts)}")
        guess = look.with_script(
            repository, guess, typer.prompt("Which one is run", default=guess.scripts[0])
        )
    given: dict[str, Any] = {"editable": tuple(editable or ()), "run": run, "score": score, "metric": metric}
    given |= {"direction": direction, "metrics": metrics}
    guess = replace(guess, **{key: value for key, value in given.items() if value})
    if metric and not metrics and metric != look.look(repository).metric:
        guess = replace(guess, metrics="lines")
    guess = guess if yes else _asked(guess, given)
    guess = replace(guess, direction=guess.direction or look.usual_direction(guess.metric))
    wanted = {"--run": guess.run, "--editable": guess.editable, "--metric": guess.metric}
    wanted["--direction"] = guess.direction
    if missing := [name for name, value in wanted.items() if not value]:
        raise UserError(
            f"{', '.join(missing)} cannot be guessed here.",
            "For example: autoresearch init --editable train.py --run 'python train.py' --metric loss "
            "--direction min --yes",
        )
    written = look.write(repository.root, guess)
    typer.echo(f"Wrote {', '.join(written)}.")
    typer.echo(f"  run     {guess.run}\n  edit    {', '.join(guess.editable)}")
    typer.echo(f"  metric  {guess.metric} ({guess.direction}), said as {guess.metrics}")
    if guess.score:
        typer.echo(f"  score   {guess.score}: it reads AUTORESEARCH_OUT; trust is `artifact`")
    else:
        typer.echo("  trust   printed: the program's own words are believed. A score command would raise it.")
    typer.echo("Next: autoresearch check, then autoresearch run")


def _asked(guess: Guess, given: Mapping[str, Any]) -> Guess:
    """The guess with a person's answers to what the options do not say."""
    from autoresearch.tasks.command import look

    def ask(key: str, question: str, default: str) -> str:
        return default if given.get(key) else str(typer.prompt(question, default=default or None))

    run = ask("run", "Command that runs a candidate", guess.run)
    editable = ask("editable", "Files that may change (globs, with spaces between)", " ".join(guess.editable))
    metric = ask("metric", "Metric that decides", guess.metric)
    direction = ask(
        "direction", "Is lower (min) or higher (max) better", look.usual_direction(metric) or guess.direction
    )
    metrics = ask("metrics", "How it is said: lines, json:FILE or regex:PATTERN", guess.metrics)
    score = guess.score
    if not score:
        score = typer.prompt("Command that scores what it leaves (empty: believe what it says)", default="")
    files = tuple(editable.split())
    chosen = replace(guess, run=run, editable=files, metric=metric, direction=direction)
    return replace(chosen, metrics=metrics, score=score)


def check(overrides: Overrides = None, json: Json = False) -> None:
    """Try the task out: one tryout and two trainings; says noise, time, and what a night can show."""
    from autoresearch.search.setup.check import check_task

    print_lines(check_task(overrides or [], Path.cwd(), lambda said: typer.echo(said, err=True)), json)


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
    from autoresearch.search.setup.required import require_files
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
    from autoresearch.search.setup.settings import place_of, recorded_config, runs_of
    from autoresearch.store.connection import holds_search
    from autoresearch.store.git.repository import Repository

    given = words or []
    overrides, wanted = [w for w in given if "=" in w], [w.rstrip("=") for w in given if "=" not in w]
    place = place_of(overrides)
    named = any(o.startswith("name=") for o in overrides)
    folder = runs_of(place, Repository(Path.cwd())) / place.name if named else None
    if folder is not None and holds_search(folder):
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
