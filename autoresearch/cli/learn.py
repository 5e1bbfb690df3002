"""Commands that learn from other searches of the same task: lessons, scout."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from autoresearch.cli.compare import summaries
from autoresearch.cli.inspect import Json, apart, chosen, dumps
from autoresearch.errors import UserError

Searches = Annotated[
    list[str] | None, typer.Argument(metavar="[SEARCH]... [KEY=VALUE]...", help="Searches; none: all.")
]


def lessons(names: Searches = None, json: Json = False) -> None:
    """Show what all searches of a task found: which kinds of change gained, and what was kept."""
    from autoresearch.config import load
    from autoresearch.report.lessons import as_text, learn, of_task
    from autoresearch.search.setup.settings import runs_of
    from autoresearch.store.git.repository import Repository

    wanted, overrides = apart(names)
    runs = runs_of(load(overrides), Repository(Path.cwd()))
    found = summaries(runs, wanted)
    if not found:
        raise UserError(f"There is no search in {runs} that tried something.", "Start one: autoresearch run")
    latest = found[-1]
    same = of_task(found, latest.info.task, latest.metric)
    learned = learn(same)
    if json:
        typer.echo(dumps(learned.to_dict()))
        return
    typer.echo(as_text(learned))
    if others := [search.info.name for search in found if search not in same]:
        typer.echo(f"Of another task, and left out: {', '.join(others)}")


def scout(
    names: Searches = None,
    most: Annotated[int, typer.Option(min=1, max=100, help="Largest number of ideas offered.")] = 10,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A paper (PDF, text, arXiv id) or repository (path, URL) to be read; repeatable."),
    ] = None,
    max_dollars: Annotated[
        float, typer.Option(min=0.001, help="Most that a search's reading may cost.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Offer a search (name=) what others of its task have kept; with --source, what a model reads there."""
    if source:
        _read_sources(apart(names)[1], source, most, max_dollars, json)
        return
    from autoresearch.report.lessons import learn, of_task, offered
    from autoresearch.store.inbox import Inbox
    from autoresearch.text import one_line

    wanted, overrides = apart(names)
    folder = chosen(overrides)
    [ours] = summaries(folder.parent, [folder.name])
    others = [search for search in summaries(folder.parent, wanted) if search.info.name != ours.info.name]
    others = of_task(others, ours.info.task, ours.metric)
    inbox, added = Inbox(folder), list[dict[str, object]]()
    known = {entry.idea.patch for entry in inbox.entries()}
    diffs = {(s.info.name, e.number): e.diff for s in others for e in s.experiments}
    for change in offered(learn(others), ours.experiments) if others else ():
        diff = diffs[change.search, change.number]
        if len(added) == most or not diff or diff in known:
            continue
        known.add(diff)
        words = f"{change.search} kept this (#{change.number}, {change.share:+.2%}): {change.hypothesis}"
        place = f"search {change.search}, experiment {change.number}"
        number = inbox.add_scouted(one_line(words, 1000), place, one_line(change.hypothesis, 1000), diff)
        added.append({"idea": number, "search": change.search, "experiment": change.number, "text": words})
    if json:
        typer.echo(dumps(added))
        return
    for idea in added:
        typer.echo(f"{idea['idea']:4d}  {one_line(str(idea['text']), 120)}")
    waits = f"{len(added)} of their kept changes wait in {ours.info.name}"
    said = waits if added else "There is nothing new to try"
    typer.echo(f"{said}. Searches looked at: {', '.join(s.info.name for s in others) or 'none'}.")


def _read_sources(overrides: list[str], names: list[str], most: int, max_dollars: float, json: bool) -> None:
    """Have a model read sources, and leave the best new ideas in the queue of a search."""
    from autoresearch.config import resume
    from autoresearch.propose.llm.reader import Reader
    from autoresearch.propose.scout.ideas import scout as read
    from autoresearch.propose.scout.sources import read_source
    from autoresearch.report.sections.worth import source_lines
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.store.calls import CallLog
    from autoresearch.store.inbox import Inbox
    from autoresearch.tasks import create_task
    from autoresearch.text import one_line

    folder = chosen(overrides)
    config, inbox, calls = resume(recorded_config(folder), overrides), Inbox(folder), CallLog(folder)
    [ours] = summaries(folder.parent, [folder.name])
    reader = Reader("scout", config.proposer, max_dollars, calls.spent("scout"), calls.record)
    sources = [read_source(name) for name in dict.fromkeys(names)]
    queue = [entry.plain or entry.idea.text for entry in inbox.entries()]
    prompt = create_task(config).prompt()
    done = read(sources, reader, prompt, ours.metric, ours.experiments, queue)
    for name, dollars in done.dollars.items():
        inbox.paid_for(name, dollars)
    offered = done.ideas[:most]
    numbers = [inbox.add_scouted(idea.words()[:4000], idea.provenance, idea.text) for idea in offered]
    if json:
        told = [{"idea": n, **asdict(idea)} for n, idea in zip(numbers, offered, strict=True)]
        typer.echo(dumps({"ideas": told, "alike": done.alike, "notes": done.notes, "dollars": done.dollars}))
        return
    for number, idea in zip(numbers, offered, strict=True):
        typer.echo(f"{number:4d}  {one_line(idea.text, 100)}  ({one_line(idea.provenance, 60)})")
    for note in done.notes:
        typer.echo(one_line(note, 300))
    left = f"; {len(done.ideas) - len(offered)} less promising ones are left out" if done.ideas[most:] else ""
    typer.echo(f"{len(offered)} ideas wait in {ours.info.name}; {done.alike} were known already{left}.")
    typer.echo("\n".join(source_lines(inbox.entries(), ours.experiments, inbox.readings(), ours.metric)))
