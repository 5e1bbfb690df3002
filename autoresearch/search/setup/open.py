"""Makes a search that is ready to run from a configuration: data, git, journal, executor, proposer.

Decides where files lie: `runs/cache` for prepared data, `runs/<name>/` for one search (journal, lock,
trusted tree, report). It finds every error before the first trial, with one clear message, and in
an order that leaves nothing incomplete.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from autoresearch.config import Config, load, resume
from autoresearch.errors import UserError
from autoresearch.execute import is_remote
from autoresearch.execute.base import Message
from autoresearch.execute.local import exporter
from autoresearch.execute.places import device, require_device
from autoresearch.execute.sandbox import Sandbox, create_sandbox, describe
from autoresearch.execute.sandbox.gpu import UNUSABLE
from autoresearch.execute.sandbox.gpu import describe as describe_gpu
from autoresearch.execute.sandbox.plain import run_tool
from autoresearch.propose import PROPOSERS, create_proposer
from autoresearch.propose.base import Nobody, Proposer, SearchServices
from autoresearch.propose.tune.knobs import scope
from autoresearch.report.lessons import for_prompt, learn, of_task
from autoresearch.report.live.now import Published
from autoresearch.report.live.panel import create_view
from autoresearch.report.page import Report, write_report
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.search.observers import View
from autoresearch.search.setup.create import (
    begin,
    check_new,
    check_settings,
    is_scored,
    prepare_data,
    record_data,
    recorded_data,
    reopen,
    shelve,
    trusted_tree,
)
from autoresearch.search.setup.environment import record_environment
from autoresearch.store.calls import CallLog
from autoresearch.store.files import trim
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.store.lock import lock
from autoresearch.store.records.notes import ABOUT, record_settings
from autoresearch.store.searches import STOPPED, journals, meant, searches, unnamed
from autoresearch.tasks import create_task
from autoresearch.tasks.base import TRUST, Dataset, Task, Trust
from autoresearch.tasks.worker import about_places, create_executor
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Cost, Proposal, in_order


def runs_of(config: Config, repository: Repository) -> Path:
    """The folder for everything that searches write; it need not exist."""
    return config.runs if config.runs.is_absolute() else repository.root / config.runs


def runs_folder(config: Config, repository: Repository) -> Path:
    """The folder for everything that searches write.

    Raises:
        UserError: If it cannot be written.
    """
    folder = runs_of(config, repository)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written: {error.strerror}.",
            "Free some space, mend its permissions, or choose another: runs=/some/folder",
            code=3,
        ) from None
    return folder


def search_folder(overrides: list[str]) -> Path:
    """The folder of the search that `name=` names; without it, of the one that runs or was begun last.

    Raises:
        UserError: If there is none, or if several run.
    """
    config = load(overrides)
    runs = runs_of(config, Repository(Path.cwd()))
    if not any(o.startswith("name=") for o in overrides):
        return meant(runs)[0].folder
    if not (runs / config.name / "journal.db").exists():
        known = ", ".join(sorted(p.parent.name for p in runs.glob("*/journal.db")))
        raise UserError(
            f"There is no search called {config.name}.",
            f"There are: {known}." if known else "Start one: autoresearch run",
        )
    return runs / config.name


def place_of(overrides: Iterable[str]) -> Config:
    """The settings that say where a search lies: its name and the folder of searches."""
    return load([o for o in overrides if o.startswith(("name=", "runs="))])


def meant_by(overrides: Sequence[str], repository: Repository) -> Config:
    """The settings of `run` as far as they can be read without those of a search that goes on.

    Of such a search they say only its name and its place: its options are those of its own choices.

    Raises:
        UserError: If the settings of a new search are wrong.
    """
    place = place_of(overrides)
    known = (runs_of(place, repository) / place.name / "journal.db").exists()
    return place if known else load(overrides)


def named(overrides: Sequence[str]) -> list[str]:
    """The settings of `run` with the name of the search that they mean, if they name none."""
    if any(o.startswith("name=") for o in overrides):
        return list(overrides)
    config, repository = load([o for o in overrides if o.startswith("runs=")]), Repository(Path.cwd())
    taken = repository.refs("refs/heads/autoresearch") | repository.refs("refs/autoresearch")
    names = {re.sub(r"^refs/(heads/)?autoresearch/?", "", ref).partition("/")[0] for ref in taken}
    return [f"name={unnamed(runs_of(config, repository), names)}", *overrides]


@contextmanager
def open_search(
    overrides: list[str],
    view: str = "auto",
    *,
    proposes: bool = True,
    patches_only: bool = False,
    proposer: Proposer | None = None,
    start: str = "HEAD",
) -> Iterator[Search]:
    """A search that is ready to run, new or continued by its name; closed at the end.

    Args:
        overrides: Configuration, see `autoresearch.config`.
        view: How to show it: "live", "plain", "quiet" or "auto".
        proposes: Whether it will ask its proposer for anything. If not, that needs no key and no program.
        patches_only: Try the patches that wait in its inbox, and nothing else; its own plan stays recorded.
        proposer: Is asked instead of its own until it has nothing left, however many experiments were planned
            and whatever fails alike: its proposals are strangers'. Its own plan stays recorded.
        start: The commit that a new search begins with.

    Raises:
        UserError: For every error that a person can fix before the first trial.
    """
    queues: list[SimpleQueue[Any]] = [SimpleQueue()]

    def say(text: str) -> None:
        queues[-1].put(Message(text, warning=True))

    overrides = named(overrides)
    repository = Repository(Path.cwd())
    place = meant_by(overrides, repository)
    runs = runs_folder(place, repository)
    folder = runs / place.name
    with lock(folder) as lease, ExitStack() as stack:
        found = (folder / "journal.db").exists()
        scored = found and is_scored(folder)
        config = resume(recorded_config(folder), overrides, scored=scored) if found else load(overrides)
        check_settings(config, new=not found)
        brief = config.read_brief()
        require_device(config)
        passed_over: list[str] = []
        remote = is_remote(config.executor.name)
        sandbox = None if remote else create_sandbox(config.sandbox["backend"], passed_over.append)
        inbox = Inbox(folder)
        inbox.begin()
        if not found:
            shelve(inbox, config.idea_paths)
        planned = config
        if patches_only:
            config = config.model_copy(update={"proposer": {"name": "queue", "wait": False}})
        if proposer is not None:
            config = config.model_copy(update={"experiments": sys.maxsize, "minutes": None, "alarm": None})
        elif proposes:
            proposer = proposer_of(config, repository, folder, say)
        else:
            proposer = Nobody(str(config.proposer["name"]))
        task = create_task(config)
        if scored:
            journal, data = reopened(repository, task, folder)
        else:
            if not found:
                check_new(config.name, repository, task, start)
            otherwise, data = prepare_data(config, task, overrides, runs / "cache", passed_over.append)
            config, planned = (c.model_copy(update=otherwise) for c in (config, planned))
            task = create_task(config)
            journal = begun(config, repository, task, folder, brief, data, start)
        stack.callback(journal.close)
        journal.set("lease", lease.to_json())
        stack.callback(journal.set, "lease", "")
        record_environment(journal, config, task)
        anew = record_settings(journal, planned.model_dump(mode="json"), chosen_at_start(journal.info()))
        if patches_only:
            waiting = len(journal.experiments()) - 1 + sum(bool(idea.patch) for idea in inbox.ideas())
            config = config.model_copy(update={"experiments": waiting})
            ended = journal.info().finished is not None and not journal.get(STOPPED)
            stack.callback(journal.set, STOPPED, "" if ended else "yes")
        shown: View = Published(create_view(view, journal.info(), journal.experiments()), folder)
        stack.enter_context(shown)
        journal.say = partial(shown.message, warning=True)
        for warning in passed_over:
            shown.message(warning, warning=True)
        if anew:
            shown.message(f"It goes on with other settings: {', '.join(change.key for change in anew)}.")
        if sandbox is not None:
            tell_protection(config, sandbox, shown)
        tell_terms(config, repository, task, data, brief, shown)
        trusted = trusted_tree(config, repository, journal, folder)
        export = exporter(repository, task.frozen)
        executor = create_executor(config, task, data, sandbox, trusted, export, say)
        stack.callback(executor.close)
        for line in about_places(executor):
            shown.message(line)
        mirror = create_mirror(config, repository, folder, say)
        search = Search(config, task, repository, journal, executor, proposer, mirror, shown, inbox)
        queues.append(search.scheduler.events)
        while not queues[0].empty():
            queues[1].put(queues[0].get())
        stack.callback(search.scheduler.close)
        stack.callback(_conclude, search, mirror)
        yield search


def begun(
    config: Config,
    repository: Repository,
    task: Task,
    folder: Path,
    brief: str,
    data: Dataset,
    start: str = "HEAD",
) -> Journal:
    """The journal of a search that has no score yet, so that another budget or corpus spoils nothing."""
    if (folder / "journal.db").exists():
        journal = reopen(folder, repository)
        journal.update(data=dict(data.about))
    else:
        journal = begin(config, repository, folder, brief, dict(data.about), start)
    record_data(journal, data, folder.parent)
    told = [*task.about(data), *(earlier_lessons(journal) if config.lessons else ())]
    journal.set(ABOUT, json.dumps(told))
    return journal


def earlier_lessons(journal: Journal) -> list[str]:
    """What earlier searches of the task found, as models are told it; nothing if there are none."""
    ours, folder = journal.info(), journal.path.parent
    others = journals(known for known in searches(folder.parent) if known.folder != folder)
    found = of_task(map(summarize, others), ours.task, ours.metric)
    return [for_prompt(learn(found))] if found else []


def reopened(repository: Repository, task: Task, folder: Path) -> tuple[Journal, Dataset]:
    """The journal of a search that goes on, and the data that it was begun with."""
    journal = reopen(folder, repository)
    data = recorded_data(task, journal, folder.parent)
    if not journal.get(ABOUT):  # journals of older versions
        journal.set(ABOUT, json.dumps(task.about(data)))
    return journal, data


def write_page(journal: Journal, repository: Repository) -> Report:
    """Write the report of a search into its folder."""
    diff = cumulative_diff(journal, repository)
    return write_report(journal, diff, journal.path.parent / "report", journal.timeline())


def cumulative_diff(journal: Journal, repository: Repository) -> str:
    """All kept changes, as one unified diff; empty if there are none, or if git has lost them."""
    kept = [e.commit for e in in_order(journal.experiments()) if e.kept and repository.resolve(e.commit)]
    return repository.diff(journal.info().base_commit, kept[-1]) if kept else ""


def _conclude(search: Search, mirror: Mirror) -> None:
    """Write the report, and bring MLflow up to date if it answers, however the search ended."""
    report = write_page(search.journal, search.repository)
    problem = mirror.close(search.journal, [f for f in (report.markdown, report.html, report.png) if f])
    if problem:
        search.view.message(problem, warning=True)  # and it needs all of what is kept, later
    else:
        with suppress(UserError, OSError, sqlite3.Error):  # an error in cleaning up must not fail the search
            trim(search.journal, search.config.keep_logs)


def proposer_of(
    config: Config, repository: Repository, folder: Path, say: Callable[[str], None] = print
) -> Proposer:
    """Make the configured proposer for the search in `folder`; writes nothing.

    Args:
        config: Of the search.
        repository: The user's repository.
        folder: Of the search; need not exist.
        say: Tells a person something.
    """
    calls = CallLog(folder)

    def unbilled(name: str) -> Cost:
        if not (folder / "journal.db").exists():
            return Cost()
        with closing(Journal(folder / "journal.db")) as journal:
            return calls.unbilled(name, journal.experiments(), journal.drafts())

    def refused(proposal: Proposal, reason: str) -> None:
        with closing(Journal(folder / "journal.db")) as journal:
            journal.refused(proposal, reason)

    def export(place: Path) -> None:
        with closing(Journal(folder / "journal.db")) as journal:
            base = journal.info().base_commit
        repository.export(base, create_task(config).frozen, place)

    services = SearchServices(
        folder / "agent", export, run_tool, Inbox(folder), calls.record, unbilled, say, refused
    )
    return create_proposer(**config.proposer, column=int(device(config) == "cuda"), services=services)


def unread(config: Config, brief: str) -> list[str]:
    """What to say of a proposer that reads neither the brief nor people's notes; nothing of others."""
    name = config.proposer["name"]
    if getattr(PROPOSERS.load(name), "reads_ideas", False):
        return []
    said = f"The proposer {name} reads neither the brief nor notes"
    if knobs := scope(brief):
        return [f"{said}; of the brief's front matter, proposers that tune knobs follow: {', '.join(knobs)}."]
    return [f"{said}. A brief can limit what is tuned: docs/proposers.md, `knobs:`."]


def tell_protection(config: Config, sandbox: Sandbox, view: View) -> None:
    """Show warnings about the sandbox and the GPU before anything runs.

    Raises:
        UserError: If the GPU does not answer inside the sandbox.
    """
    if warning := describe(sandbox).warning:
        view.message(warning, warning=True)
    if device(config) != "cuda":
        return
    said = describe_gpu(sandbox)
    if said.startswith(UNUSABLE):
        raise UserError(f"No trial can use the GPU: {said}.", "Train on the CPU: executor.device=cpu", code=3)
    view.message(f"GPU: {said}")


def tell_terms(
    config: Config, repository: Repository, task: Task, data: Dataset, brief: str, view: View
) -> None:
    """Show what measures the score, what the task warns of, and what is not part of the search."""
    view.message(f"Trust: {task.trust}. {TRUST[task.trust]}", warning=task.trust is Trust.PRINTED)
    for warning in task.warnings(data):
        view.message(warning, warning=True)
    for line in unread(config, brief):
        view.message(line)
    if repository.is_modified(task.frozen):
        changed = ", ".join(task.frozen)
        view.message(f"Uncommitted changes in {changed}/ are not part of this search.", warning=True)


def recorded_config(folder: Path) -> Config:
    """The configuration that a search was last run with, with what was chosen by itself when it was begun."""
    with closing(Journal(folder / "journal.db")) as journal:
        info = journal.info()
    given = [o for o in info.config["overrides"] if o != "executor.device=auto"]
    keys = {override.partition("=")[0] for override in given}
    found = info.config.get("choices", {}) | chosen_at_start(info)
    automatic = [f"{key}={value}" for key, value in found.items() if key not in keys]
    return load([*automatic, *given], environment={}, own_file=False)


def chosen_at_start(info: SearchInfo) -> dict[str, str]:
    """The device, and how many trials share it where that changes scores: the same until a search ends."""
    kind, *more = info.device.split(", ")
    found = {"executor.device": kind} if kind in ("cpu", "cuda") else {}
    if kind == "cpu" and info.config["budget"].get("kind") == "seconds":  # as many as share the machine
        found["executor.workers"] = next((part.split()[0] for part in more if "at a time" in part), "1")
    return found


def create_mirror(
    config: Config, repository: Repository, folder: Path, say: Callable[[str], None] = print
) -> Mirror:
    """The configured mirror, which shows the search in `folder` in MLflow; `say` tells of its problems."""
    tracking, task = config.tracking, create_task(config)
    return Mirror(
        enabled=tracking.enabled,
        uri=tracking.uri,
        experiment=tracking.experiment,
        folder=folder.parent / "mlflow",
        sources=lambda commit: repository.sources(commit, task.editable),
        calls=CallLog(folder),
        writes=task.writes,
        say=say,
    )
