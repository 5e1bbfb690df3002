"""Commands for what a search has found: claim, audit and ablate it; take it home as text, branch or file.

Those that train open the search as `run` does, so that nobody else runs it meanwhile; none asks a proposer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoresearch.cli import complete
from autoresearch.cli.inspect import Json, Overrides, chosen, dumps, numbered, open_journal
from autoresearch.cli.run import opened_to_train
from autoresearch.errors import UserError

if TYPE_CHECKING:
    from autoresearch.search.loop import Search
    from autoresearch.store.records.claims import Design


def claim(overrides: Overrides = None, json: Json = False) -> None:
    """Claim the result: train start and tip on fresh seeds, score them on the sealed test split, once."""
    from autoresearch.finish.claim import make_claim
    from autoresearch.finish.devise import devise_if_drifted
    from autoresearch.report.markdown import claim_sentence

    with opened(overrides, json) as search:
        record = make_claim(search, search.config.claim)
        drift = devise_if_drifted(search)
    said = [claim_sentence(record, search.task.metric), *drift]
    typer.echo(dumps(asdict(record)) if json else "\n".join(said))


def audit(
    overrides: Overrides = None,
    runs: Annotated[int, typer.Option(min=0, help="Trainings to spend on it.")] = 24,
    json: Json = False,
) -> None:
    """Audit what was kept: train it with random halves left out, and say what is doubtful."""
    from autoresearch.store.records.claims import Design

    _audit(overrides, runs, Design.HALVES, json)


def ablate(
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings without each change.")] = 3,
    json: Json = False,
) -> None:
    """Leave out each kept change in turn, train the rest, and mark what no longer pays."""
    from autoresearch.store.records.claims import Design

    _audit(overrides, seeds, Design.ONE_LEFT_OUT, json)


def _audit(overrides: list[str] | None, runs: int, design: Design, json: bool) -> None:
    from autoresearch.finish.audit import make_audit
    from autoresearch.report.markdown import audit_lines

    with opened(overrides, json) as search:
        record = make_audit(search, runs, design)
    typer.echo(dumps(asdict(record)) if json else "\n".join(audit_lines(record, search.task.metric)))


def transfer(
    overrides: Overrides = None,
    scale: Annotated[
        list[float] | None, typer.Option(min=1.01, max=1000, help="A larger scale, as a factor; repeatable.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Another corpus, as in data=NAME; repeatable.")
    ] = None,
    budget: Annotated[
        list[float] | None, typer.Option(min=0.1, max=1000, help="Another budget, as a factor; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, max=100, help="Trainings of each commit on each rung.")] = 3,
    retune: Annotated[
        int, typer.Option(min=0, max=100, help="Optuna trials of the learning rates on each rung.")
    ] = 0,
    json: Json = False,
) -> None:
    """Train what was kept at larger scales and on other data: which changes hold, fade or reverse there?"""
    from autoresearch.finish.transfer import make_transfer
    from autoresearch.report.sections.transfer import transfer_lines

    with opened(overrides, json) as search:
        record = make_transfer(search, scale or (), data or (), seeds, budget or (), retune)
    metric = search.task.metric
    typer.echo(dumps(record.to_dict()) if json else "\n".join(transfer_lines(record, metric)))


def sample(
    overrides: Overrides = None,
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "",
    tokens: Annotated[int, typer.Option(min=1, max=100_000, help="Length of each text.")] = 200,
    count: Annotated[int, typer.Option(min=1, max=64, help="Texts of each model.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.0, max=100.0, help="0: the likeliest token.")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of tokens.")] = 0,
    json: Json = False,
) -> None:
    """Let the models of start and tip write text; trains both, unless their weights are still there."""
    from autoresearch.finish.sample import make_samples
    from autoresearch.text import visible
    from autoresearch.types import TextRequest

    with opened(overrides, json) as search:
        samples = make_samples(search, TextRequest(prompt, tokens, count, temperature, seed))
    if json:
        typer.echo(dumps([asdict(sample) for sample in samples]))
        return
    for sample in samples:
        typer.echo(f"--- {f'tip, experiment {sample.experiment}' if sample.experiment else 'start'}")
        typer.echo("\n---\n".join(map(visible, sample.texts)))


def reproduce(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="N|COMMIT [KEY=VALUE]...",
            help="An experiment; 0: the start.",
            autocompletion=complete.numbered,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a commit again with the same seed and data: is the score the same, and if not, what differs?"""
    from autoresearch.finish.reproduce import meant_by, reproduced_lines
    from autoresearch.finish.reproduce import reproduce as train_again

    what, overrides = numbered(words)
    if not what:
        raise UserError("Which experiment?", "Give its number or commit: autoresearch reproduce 7")
    with opened(overrides, json) as search:
        experiment = meant_by(what, search.journal.experiments(), search.repository)
        record = train_again(search, experiment)
    told = {**asdict(record), "same": record.same}
    typer.echo(dumps(told) if json else "\n".join(reproduced_lines(record, search.task.metric)))


def branch(
    overrides: Overrides = None,
    without: Annotated[
        list[int] | None, typer.Option("--without", metavar="N", help="Leave out a kept experiment.")
    ] = None,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Name of the branch.")] = "",
    json: Json = False,
) -> None:
    """Make a branch to be reviewed: one commit for each kept change. Your checkout stays as it is."""
    from autoresearch.finish.stack import make_branch
    from autoresearch.search.setup.settings import recorded_config
    from autoresearch.search.state import SearchState
    from autoresearch.tasks import create_task
    from autoresearch.text import count

    journal, repository = open_journal(overrides)
    config = recorded_config(journal.path.parent)
    made = make_branch(SearchState(config, journal, repository, create_task(config)), without or (), name)
    if json:
        typer.echo(dumps(asdict(made)))
        return
    base = journal.info().base_commit[:10]
    typer.echo(f"branch {made.branch}: {count(len(made.commits), 'commit')}, one for each kept change")
    if not made.whole:
        typer.echo("This selection has not been trained: autoresearch ablate says what each change gains.")
    typer.echo(f"Look at it: git log -p --reverse {base}..{made.branch}")


def export(
    overrides: Overrides = None,
    to: Annotated[Path | None, typer.Option("--to", help="The file; without it: NAME.zip here.")] = None,
) -> None:
    """Write everything of a search into one file that opens elsewhere."""
    from autoresearch.finish.export import export_search
    from autoresearch.store.git.repository import Repository

    folder = chosen(overrides)
    target = to or Path(f"{folder.name}.zip")
    size = export_search(folder, Repository(Path.cwd()), target)
    typer.echo(f"{target} ({size / 1e6:,.1f} MB), with the history of the repository up to these commits")
    typer.echo(f"Open it elsewhere: autoresearch import {target.name} --into FOLDER")


def open_exported(
    file: Annotated[Path, typer.Argument(help="What `autoresearch export` wrote.")],
    overrides: Overrides = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="A new folder, in which a repository is made.")
    ] = None,
) -> None:
    """Open an exported search, in this repository or in a new one."""
    from autoresearch.config import load
    from autoresearch.finish.export import import_search, new_repository
    from autoresearch.search.setup.settings import runs_of
    from autoresearch.store.git.repository import Repository

    repository = new_repository(file, into) if into else Repository(Path.cwd())
    folder = import_search(file, repository, runs_of(load(overrides or []), repository))
    go = f"cd {into} && " if into else ""
    typer.echo(f"{folder.name} is in {folder}")
    typer.echo(f"See it: {go}autoresearch report name={folder.name}; into MLflow: autoresearch sync")
    typer.echo(
        f"Before it goes on, look at its settings, which can name programs: {go}autoresearch config "
        f"name={folder.name}"
    )


def opened(overrides: list[str] | None, quiet: bool) -> AbstractContextManager[Search]:
    """The search that a command means, opened again for trainings."""
    given = overrides or []
    place = [o for o in given if o.startswith(("name=", "runs="))]
    named = [f"name={chosen(place).name}", *(o for o in given if not o.startswith("name="))]
    return opened_to_train(named, quiet)
