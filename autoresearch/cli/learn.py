"""Commands that learn from other searches of the same task: lessons, scout."""

from __future__ import annotations

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
    most: Annotated[int, typer.Option(min=1, max=100, help="Largest number of patches offered.")] = 10,
    json: Json = False,
) -> None:
    """Offer a search (name=) what other searches of its task have kept, as patches that it tries."""
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
        number = inbox.add_idea(one_line(words, 1000), diff)
        added.append({"idea": number, "search": change.search, "experiment": change.number, "text": words})
    if json:
        typer.echo(dumps(added))
        return
    for idea in added:
        typer.echo(f"{idea['idea']:4d}  {one_line(str(idea['text']), 120)}")
    waits = f"{len(added)} of their kept changes wait in {ours.info.name}"
    said = waits if added else "There is nothing new to try"
    typer.echo(f"{said}. Searches looked at: {', '.join(s.info.name for s in others) or 'none'}.")
