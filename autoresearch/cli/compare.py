"""Commands about several searches, and about what mattered in one: list, compare, importance."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli.inspect import Json, Overrides, apart, dumps, open_journal
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.report.summary import Summary


def list_searches(overrides: Overrides = None, json: Json = False) -> None:
    """List all searches, the latest last: what runs, what came of each, and what it cost."""
    from autoresearch.config import load
    from autoresearch.report.markdown import headline
    from autoresearch.report.summary import summarize
    from autoresearch.search.setup.settings import runs_of
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.searches import journals, searches
    from autoresearch.text import duration

    runs = runs_of(load(overrides or []), Repository(Path.cwd()))
    found = {known.name: known for known in searches(runs)}
    rows = []
    for journal in journals(found.values()):
        summary = summarize(journal)
        known = found[journal.path.parent.name]
        rows.append(
            {
                "name": known.name,
                "begun": time.strftime("%Y-%m-%d %H:%M", time.localtime(known.created)),
                "state": "running" if known.runs else "ended" if known.done else "stopped",
                "brief": summary.info.brief,
                "tried": summary.tried,
                "kept": summary.verdicts["keep"],
                "device_seconds": summary.cost.device_seconds,
                "dollars": summary.cost.dollars,
                "result": headline(summary),
            }
        )
    if json:
        typer.echo(dumps(rows))
        return
    if not rows:
        typer.echo(f"There is no search in {runs}. Start one: autoresearch run")
        return
    head = f"{'name':16}  {'begun':16}  {'state':7}  {'brief':12}  tried  kept  {'device time':>12}  result"
    typer.echo(head)
    for r in rows:
        line = f"{r['name']:16}  {r['begun']}  {r['state']:7}  {r['brief']:12}  {r['tried']:5}  {r['kept']:4}"
        typer.echo(f"{line}  {duration(float(r['device_seconds'])):>12}  {r['result']}")


def compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]... [KEY=VALUE]...", help="Searches and contests"),
    ] = None,
    by: Annotated[str, typer.Option(help="What to compare: name, brief or proposer.")] = "name",
    json: Json = False,
) -> None:
    """Compare searches, contests, briefs or proposers: gains with intervals, cost, progress, a page."""
    from dataclasses import replace

    from autoresearch.config import load
    from autoresearch.contest import page as contest_page
    from autoresearch.contest.contest import Contest
    from autoresearch.report import compare as comparing
    from autoresearch.search.setup.settings import runs_of
    from autoresearch.store.git.repository import Repository
    from autoresearch.store.searches import PLAN

    wanted, overrides = apart(names)
    runs = runs_of(load(overrides), Repository(Path.cwd()))
    if by not in list(comparing.By):
        raise UserError(f"Searches cannot be compared by {by!r}.", "Choose --by name, brief or proposer.")
    contests = [Contest(runs / name) for name in wanted if (runs / name / PLAN).exists()]
    if contests and len(wanted) == 1:
        held = contests[0]
        typer.echo(dumps(contest_page.to_dict(held)) if json else contest_page.to_text(held))
        if not json:
            typer.echo(f"page: {contest_page.write(held)}")
        return
    others = [name for name in wanted if not (runs / name / PLAN).exists()]
    chosen_ones = summaries(runs, others) if others or not wanted else []
    if contests:  # their searches are grouped by contest and brief, each other search is a group of its own
        by = "brief"
        chosen_ones = contest_page.labelled(contests, chosen_ones)
    if not chosen_ones:
        raise UserError(f"There is no search in {runs}.", "Start one: autoresearch run")
    result = comparing.compare(chosen_ones, comparing.By(by))
    if contests:
        result = replace(result, statements=(*result.statements, *contest_page.headlines(contests)))
    if json:
        typer.echo(dumps(result.to_dict()))
        return
    typer.echo(comparing.as_text(result))
    comparing.write_comparison(chosen_ones, result, comparing.By(by), page := runs / "compare.html")
    typer.echo(f"page: {page}")


def summaries(runs: Path, wanted: Sequence[str] = ()) -> list[Summary]:
    """Summaries of the searches of these names, in that order; of all, the latest last, without a name.

    Raises:
        UserError: If there is none of a name.
    """
    from autoresearch.report.summary import summarize
    from autoresearch.store.searches import journals, searches

    known = searches(runs)
    asked = [search for search in known if not wanted or search.name in wanted]
    found = {journal.path.parent.name: summarize(journal) for journal in journals(asked)}
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"There is no search called {missing[0]}.",
            f"There are: {', '.join(search.name for search in known)}."
            if known
            else "Start one: autoresearch run",
        )
    return [found[name] for name in wanted or found]


def importance(overrides: Overrides = None, json: Json = False) -> None:
    """Show which knobs matter, by what the search has tried of them, as a list and a plot."""
    from autoresearch.propose.base import ProposerError
    from autoresearch.propose.tune.knobs import tunables
    from autoresearch.propose.tune.optuna import observations
    from autoresearch.propose.tune.study import ENOUGH, importances
    from autoresearch.report.plots.findings import write_importance_plot
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.search.state import SearchState
    from autoresearch.tasks import create_task

    journal, repository = open_journal(overrides)
    config, folder = recorded_config(journal.path.parent), journal.path.parent
    state = SearchState(config, journal, repository, create_task(config))
    context, column = state.context(brief=""), state.column
    try:
        knobs = tunables(context, column)
    except ProposerError as error:
        raise UserError(
            f"There is nothing to compare: {error}.", "docs/proposers.md says what a knob is."
        ) from None
    shares = importances(knobs, observations(context, knobs, column))
    if json:
        typer.echo(dumps(shares))
        return
    if not shares:
        raise UserError(
            f"Fewer than {ENOUGH} points with a score, or no knob was moved: too little to say what matters.",
            "Let the search try more of them: proposer=optuna",
        )
    for name, share in shares.items():
        typer.echo(f"{share:6.1%}  {name}  (now {knobs[name].value})")
    (folder / "report").mkdir(exist_ok=True)
    if plot := write_importance_plot(shares, folder.name, folder / "report"):
        typer.echo(f"plot: {plot[0]}")
