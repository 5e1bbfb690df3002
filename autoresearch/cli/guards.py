"""Commands for guards: further metrics on which what is kept may not lose."""

from __future__ import annotations

from typing import Annotated

import typer

from autoresearch.cli.finish import opened
from autoresearch.cli.inspect import Json, Overrides, chosen, dumps
from autoresearch.errors import UserError

guards = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Further metrics on which what is kept may not lose: list, devise, accept, drop, measure, release.",
)

Number = Annotated[int, typer.Argument(metavar="N", help="Number of the guard.")]


@guards.command("list")
def list_guards(overrides: Overrides = None, json: Json = False) -> None:
    """List the guards that were proposed for a search, and what was decided about each."""
    from autoresearch.finish.devise import guard_line
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.store.inbox import Inbox

    folder = chosen(overrides)
    found = Inbox(folder).guards()
    if json:
        typer.echo(dumps([guard.to_dict() for guard in found]))
        return
    config = recorded_config(folder).guards
    typer.echo(f"Declared (guards.metrics): {', '.join(config.metrics) or 'none'}; action: {config.action}")
    for guard in found:
        typer.echo(guard_line(guard.number, guard))


@guards.command()
def devise(overrides: Overrides = None, json: Json = False) -> None:
    """Ask a model (at most $1 a search) what the gains may exploit, and for slices that would show it."""
    from autoresearch.config import resume
    from autoresearch.finish import devise as devising
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.store.inbox import Inbox
    from autoresearch.tasks import create_task

    folder = chosen(overrides)
    config = resume(recorded_config(folder), overrides or [])
    summary = devising.summary_of(folder)
    found, refused, dollars = devising.devise(summary, create_task(config), folder, config.proposer)
    if json:
        typer.echo(dumps({"guards": [g.to_dict() for g in found], "refused": refused, "dollars": dollars}))
        return
    typer.echo("\n".join(devising.devised_lines(found, refused, dollars, Inbox(folder))))


@guards.command()
def accept(number: Number, overrides: Overrides = None) -> None:
    """Use a proposed guard from the next trial on."""
    from autoresearch.store.inbox import Inbox

    guard = Inbox(chosen(overrides)).decide_guard(number, "accepted")
    typer.echo(f"{guard.metric.name} guards what is kept from now on ({guard.metric.text}).")
    typer.echo("What it says of earlier keeps: autoresearch guards measure (trains)")


@guards.command()
def drop(number: Number, overrides: Overrides = None) -> None:
    """Give up a guard, proposed or accepted."""
    from autoresearch.store.inbox import Inbox

    guard = Inbox(chosen(overrides)).decide_guard(number, "dropped")
    typer.echo(f"{guard.metric.name} guards nothing any more.")


@guards.command()
def measure(
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Trainings of each commit.")] = 3,
    json: Json = False,
) -> None:
    """Train the kept history with all guards: which earlier keep lost on one?"""
    from autoresearch.finish.guards import measure_guards
    from autoresearch.report.sections.guards import lines, measured_sentence, measured_table

    with opened(overrides, json) as search:
        record = measure_guards(search, seeds)
    said = [*lines(measured_table(record)), measured_sentence(record)]
    typer.echo(dumps(record.to_dict()) if json else "\n".join(said))


@guards.command()
def release(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the held experiment.")],
    overrides: Overrides = None,
) -> None:
    """Let a held change be tried again, and kept although it loses on a guard."""
    from autoresearch.search.checks.guards import HELD
    from autoresearch.store.inbox import Inbox
    from autoresearch.store.journal import Journal

    folder = chosen(overrides)
    with Journal.of(folder) as journal:
        found = next((e for e in journal.experiments() if e.number == number), None)
    if found is None or found.verdict is None or not found.verdict.reason.startswith(HELD):
        raise UserError(f"Experiment {number} is not held.", "See what is: autoresearch log")
    inbox = Inbox(folder)
    text = f"released by a person: {found.proposal.hypothesis if found.proposal else ''}"
    idea = inbox.add_idea(text[:1000], found.diff)
    inbox.release(number, idea)
    typer.echo(f"It waits as idea {idea}, and is tried when the search goes on.")
