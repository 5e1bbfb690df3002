"""Commands about briefs: let them compete, have a better one written, see what their instructions paid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, apart, dumps, open_journal

if TYPE_CHECKING:
    from autoresearch.tasks.brief.result import Result

ROUNDS = 12

brief = typer.Typer(no_args_is_help=True, help="What the instructions of a brief were worth.")


def contest(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BRIEF]... [KEY=VALUE]...", help="Briefs: files, a folder, or names."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=2, help="Most searches of each brief [12].")] = None,
    dollars: Annotated[float | None, typer.Option(min=0, help="Most that all may pay for models.")] = None,
    per_dollar: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="PRICE", help="Race the gain per dollar, at this price of a device hour."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Let briefs compete under equal budgets until their ranking is established; run again to go on."""
    from autoresearch.cli.run import say_the_end, told_to_end
    from autoresearch.contest import page
    from autoresearch.contest.contest import Contest
    from autoresearch.contest.plan import continued, make_plan
    from autoresearch.search.setup.settings import place_of, runs_folder
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.searches import PLAN, go_on

    briefs, overrides = apart(words)
    if not any(o.startswith("name=") for o in overrides):
        overrides.append("name=contest")
    repository = Repository(Path.cwd())
    folder = runs_folder(place_of(overrides), repository) / place_of(overrides).name
    if briefs or not (folder / PLAN).exists():
        plan = make_plan(briefs, overrides, repository, rounds or ROUNDS, dollars, per_dollar)
    else:
        plan = continued(Contest(folder).plan, overrides, rounds, dollars, per_dollar)

    def tell(brief: str, number: int, result: Result) -> None:
        metric = held.metric
        typer.echo(
            f"round {number + 1}: {brief} gained {metric.text(result.gain)} {metric.unit} "
            f"({result.kept} of {result.tried} kept, {result.dollars:.2f} dollars)",
            err=json,
        )

    try:
        held = Contest.begin(folder, plan)
        for said in () if json else page.announcement(held):
            typer.echo(said)
        for said in page.unlike_in_vain(held):
            typer.echo(f"Warning: {said}", err=True)
        with told_to_end(), held.alone():
            why = held.run(repository, tell)
            written = page.write(held)
    except KeyboardInterrupt as end:
        say_the_end(end, go_on(folder))
    if json:
        typer.echo(dumps(page.to_dict(held) | {"ended": why}))
        return
    typer.echo(page.to_text(held))
    typer.echo(f"It ended since {why}.")
    typer.echo(f"page: {written}")


def evolve(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONTEST [KEY=VALUE]...", help="A contest, and settings as for run."),
    ] = None,
) -> None:
    """Have a model write a better brief from a contest's evidence; it must beat the best one of it."""
    from autoresearch.cli.run import ViewKind, run
    from autoresearch.contest.contest import Contest
    from autoresearch.contest.evolve import settings
    from autoresearch.search.setup.settings import place_of, runs_of
    from autoresearch.store.connection import holds_search
    from autoresearch.store.git.repository import Repository

    named, overrides = apart(words)
    name = named[0] if named else "contest"
    if not any(o.startswith("name=") for o in overrides):
        overrides.append(f"name={name}-evolved")
    repository, place = Repository(Path.cwd()), place_of(overrides)
    runs = runs_of(place, repository)
    if not holds_search(runs / place.name):
        overrides = settings(Contest(runs / name), repository, overrides)
    run(overrides, ViewKind.AUTO, dry_run=False, detach=False, json=False)


@brief.command("stats")
def stats(overrides: Overrides = None, json: Json = False) -> None:
    """Show which instructions of the brief proposals followed and what each paid, in a search or contest."""
    from dataclasses import asdict

    from autoresearch.contest.contest import Contest
    from autoresearch.report.sections.instructions import as_text, shares
    from autoresearch.search.setup.settings import place_of, runs_of
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.records.notes import read_briefs
    from autoresearch.store.searches import PLAN

    given = overrides or []
    place = place_of(given)
    folder = runs_of(place, Repository(Path.cwd())) / place.name
    if any(o.startswith("name=") for o in given) and (folder / PLAN).exists():
        held = Contest(folder)
        found, metric = {}, held.metric
        for name, results in held.standing().results.items():
            experiments = [e for result in results.values() for e in result.experiments]
            found[name] = shares(experiments, [dict(held.plan.briefs)[name]])
    else:
        journal, _ = open_journal(given)
        info, texts = journal.info(), [known.text for known in read_briefs(journal)]
        found, metric = {info.brief: shares(journal.experiments(), texts)}, info.metric
    if json:
        typer.echo(dumps({name: [asdict(share) for share in rows] for name, rows in found.items()}))
        return
    for name, rows in found.items():
        typer.echo(f"brief {name}, gains in {metric.unit}:")
        typer.echo(as_text(rows, metric))
