"""Commands that show a search and change nothing of it; and what all commands share."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from dataclasses import asdict
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
SHOWN_CHANGES = 5
"""Of so many changed settings `status` tells, the last ones; the report tells of all."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def chosen(overrides: list[str] | None) -> Path:
    """The folder of the search that a command is about; says which one it took if `name=` names none."""
    from autoresearch.search.setup import search_folder

    given = overrides or []
    folder = search_folder(given)
    if not any(o.startswith("name=") for o in given):
        typer.echo(f"search: {folder.name} (name={folder.name})", err=True)
    return folder


def open_journal(overrides: list[str] | None) -> tuple[Journal, Repository]:
    """The journal of the search that a command is about, and the repository of that."""
    from autoresearch.store.git import Repository
    from autoresearch.store.journal import Journal

    return Journal(chosen(overrides) / "journal.db"), Repository(Path.cwd())


def dumps(value: Any, indent: int | None = 2) -> str:
    """JSON for a program."""
    return jsonlib.dumps(value, indent=indent, default=str)


def list_searches(overrides: Overrides = None, json: Json = False) -> None:
    """List all searches, the latest last: what runs, what came of each, and what it cost."""
    from autoresearch.config import load
    from autoresearch.report.markdown import headline
    from autoresearch.report.summary import summarize
    from autoresearch.search.setup import runs_of
    from autoresearch.store.git import Repository
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
        list[str] | None, typer.Argument(metavar="[NAME]... [KEY=VALUE]...", help="Searches; none: all.")
    ] = None,
    by: Annotated[str, typer.Option(help="What to compare: name, brief or proposer.")] = "name",
    json: Json = False,
) -> None:
    """Compare searches, briefs or proposers: gains with intervals, cost, progress; as a table and a page."""
    from autoresearch.config import load
    from autoresearch.errors import UserError
    from autoresearch.report import compare as comparing
    from autoresearch.report.summary import summarize
    from autoresearch.search.setup import runs_of
    from autoresearch.store.git import Repository
    from autoresearch.store.searches import journals, searches

    given = names or []
    wanted = [name for name in given if "=" not in name]
    runs = runs_of(load([o for o in given if "=" in o]), Repository(Path.cwd()))
    if by not in list(comparing.By):
        raise UserError(f"Searches cannot be compared by {by!r}.", "Choose --by name, brief or proposer.")
    known = searches(runs)
    asked = [search for search in known if not wanted or search.name in wanted]
    found = {journal.path.parent.name: summarize(journal) for journal in journals(asked)}
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"There is no search called {missing[0]}.",
            f"There are: {', '.join(search.name for search in known) or 'none'}.",
        )
    chosen_ones = [found[name] for name in wanted or found]
    if not chosen_ones:
        raise UserError(f"There is no search in {runs}.", "Start one: autoresearch run")
    result = comparing.compare(chosen_ones, comparing.By(by))
    if json:
        typer.echo(dumps(result.to_dict()))
        return
    typer.echo(comparing.as_text(result))
    comparing.write_comparison(chosen_ones, result, comparing.By(by), page := runs / "compare.html")
    typer.echo(f"page: {page}")


def status(overrides: Overrides = None, json: Json = False) -> None:
    """Show how far a search has come."""
    from autoresearch.report.markdown import drift, headline, setting_text
    from autoresearch.report.stopping import stopping
    from autoresearch.report.summary import summarize
    from autoresearch.report.timeline import time_use
    from autoresearch.search.scheduler import WAITS_KEY
    from autoresearch.store.inbox import Inbox
    from autoresearch.store.notes import read_unbilled
    from autoresearch.text import count, one_line, times

    journal = open_journal(overrides)[0]
    runner = journal.runner()
    summary = summarize(journal)
    if json:
        runs = {"runner": asdict(runner) if runner else None}
        typer.echo(dumps(summary.to_dict() | {"time": time_use(journal.timeline()).to_dict()} | runs))
        return
    typer.echo(headline(summary))
    typer.echo(f"Tried: {summary.tried}.")
    resume = f"Not running. Continue: autoresearch run name={summary.info.name}"
    typer.echo(f"Running: {runner}." if runner else resume)
    if runner and (why := journal.get(WAITS_KEY)):
        typer.echo(f"It waits until the machine has room: {why}.")
    for who, cost in read_unbilled(journal).items():
        if cost.calls:
            typer.echo(f"{one_line(who)}: {count(cost.calls, 'call')} since its last proposal led to none.")
    saved = stopping(summary.experiments).sentence(summary.metric)
    for line in filter(None, (drift(summary), saved, Inbox(journal.path.parent).told())):
        typer.echo(line)
    if changes := summary.brief_changes:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(changes[-1].time))
        typer.echo(f"The brief was changed {times(len(changes))}, last at {when}.")
    for change in summary.setting_changes[-SHOWN_CHANGES:]:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(change.time))
        typer.echo(f"Since {when}: {setting_text(change)}.")


def log(overrides: Overrides = None, json: Json = False) -> None:
    """List the experiments, one in a line, newest last."""
    from autoresearch.report.markdown import direction
    from autoresearch.report.summary import experiment_row, summarize

    summary = summarize(open_journal(overrides)[0])
    if json:
        rows = (experiment_row(e, summary.metric) for e in summary.experiments)
        typer.echo("\n".join(dumps(row, indent=None) for row in rows))
        return
    from autoresearch.text import one_line, tuning_text, tunings

    metric = summary.metric
    sign = f"{metric.unit}; {direction(metric)} is better; change: against the incumbent of its time"
    typer.echo(f"{'#':>4}  {'verdict':8}  {metric.name:>7}  {'change':8} {'commit':8}  hypothesis  ({sign})")
    for e in summary.experiments:
        effect = e.verdict.effect if e.verdict else None
        score = "      -" if e.score is None else metric.text(e.score)
        change = "        " if effect is None else f"{metric.change(effect):+.{metric.digits}f} "
        verdict = e.verdict.kind if e.verdict else "open" if e.proposal else "baseline"
        words = one_line(e.proposal.hypothesis, 80) if e.proposal else "the starting point"
        typer.echo(f"{e.number:4d}  {verdict:8}  {score}  {change} {e.commit[:8]}  {words}")
    for group in tunings(summary.experiments):
        typer.echo(f"{group[0][1].kind} of #{group[0][0].number}, as measured: {tuning_text(group, metric)}")


def show(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the experiment.")],
    overrides: Overrides = None,
    json: Json = False,
) -> None:
    """Show one experiment: what was tried, every trial, the verdict and its reason."""
    from autoresearch.report.summary import experiment_row
    from autoresearch.text import clean, one_line, tuning_text, tunings, visible
    from autoresearch.tracking.runs import experiment_note

    journal = open_journal(overrides)[0]
    experiment = journal.experiment(number)
    if json:
        typer.echo(dumps(experiment_row(experiment, journal.info().metric)))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(experiment_note(experiment, journal.info().metric, diff=False)))
    typer.echo(visible(experiment.diff))  # as it is: a wrapped line would be no diff
    for group in tunings(journal.experiments()):
        if number in [e.number for e, _ in group]:
            found = tuning_text(group, journal.info().metric)
            typer.echo(f"The {group[0][1].kind} of #{group[0][0].number}, as measured: {found}")
    for trial in experiment.diagnoses:
        said = trial.result.log if trial.result else ""
        typer.echo(f"Diagnosis (trial {trial.id}) of the script of then printed:\n{clean(said)}")
    for proposal, reason in journal.dropped(number):
        typer.echo(one_line(f"Dropped after it: {proposal.hypothesis} ({reason})", 1000))


def diff(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[N] [KEY=VALUE]...")] = None,
) -> None:
    """Print the change of experiment N or, without N, everything that was kept so far."""
    from autoresearch.search.setup import cumulative_diff
    from autoresearch.text import visible

    number, overrides = None, arguments or []
    if overrides and overrides[0].isdigit():
        number, overrides = int(overrides[0]), overrides[1:]
    journal, repository = open_journal(overrides)
    kept = cumulative_diff(journal, repository) if number is None else journal.experiment(number).diff
    typer.echo(visible(kept))


def report(overrides: Overrides = None) -> None:
    """Write the report page and print where it lies."""
    from autoresearch.search.setup import write_page

    journal, repository = open_journal(overrides)
    print_result(journal, write_page(journal, repository).html)


def importance(overrides: Overrides = None, json: Json = False) -> None:
    """Show which knobs matter, by what the search has tried of them, as a list and a plot."""
    from autoresearch.errors import UserError
    from autoresearch.execute.places import device
    from autoresearch.propose.base import ProposerError
    from autoresearch.propose.tune.knobs import tunables
    from autoresearch.propose.tune.optuna import observations
    from autoresearch.propose.tune.study import ENOUGH, importances
    from autoresearch.report.importance import write_importance_plot
    from autoresearch.search.setup import recorded_config
    from autoresearch.search.state import SearchState
    from autoresearch.tasks import create_task

    journal, repository = open_journal(overrides)
    config, folder = recorded_config(journal.path.parent), journal.path.parent
    column = int(device(config) == "cuda")
    context = SearchState(config, journal, repository, create_task(config)).context(brief="")
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


def print_result(journal: Journal, page: Path) -> None:
    """Print what a search has found, and where its page lies."""
    from autoresearch.report.markdown import claim_sentence, headline, void_sentence
    from autoresearch.report.summary import summarize

    summary = summarize(journal)
    typer.echo(headline(summary))
    for void in (c for c in summary.claims if c.void and c != summary.claim):
        typer.echo(void_sentence(void))
    if summary.claim:
        typer.echo(claim_sentence(summary.claim, summary.metric))
    typer.echo(f"report: {page}")


def ui(
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Start the MLflow UI on the store that the search writes to, and say where to look."""
    import os
    import subprocess

    from autoresearch.search.setup import recorded_config
    from autoresearch.tracking import store as tracking
    from autoresearch.tracking.mirror import EXPERIMENT_KEY

    journal, _ = open_journal(overrides)
    folder = journal.path.parent
    uri = recorded_config(folder).tracking.uri
    shown = tracking.ui(uri, folder.parent / "mlflow", port, journal.info(), journal.get(EXPERIMENT_KEY))
    typer.echo(f"MLflow: {shown.url}")
    if shown.command:
        typer.echo("It takes some seconds to start; end it with Ctrl-C.")
        try:
            sys.exit(subprocess.run(shown.command, env={**os.environ, **shown.environment}).returncode)
        except KeyboardInterrupt:
            sys.exit(130)
