"""Makes a search that is ready to run from a configuration: data, git, journal, executor, proposer.

Decides where files lie: `runs/cache` for prepared data, `runs/<name>/` for one search (journal, lock,
trusted tree, report). It finds every error before the first trial, with one clear message, and in
an order that leaves nothing incomplete.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from autoresearch.report.live.now import Published
from autoresearch.report.live.panel import create_view
from autoresearch.report.page import write_page
from autoresearch.search.loop import Search
from autoresearch.search.observers import View
from autoresearch.search.setup.create import begun, is_scored, prepare_data, reopened, shelve, trusted_tree
from autoresearch.search.setup.environment import record_environment
from autoresearch.search.setup.required import check_new, check_settings
from autoresearch.search.setup.settings import chosen_at_start, meant_by, named, recorded_config, runs_folder
from autoresearch.store.calls import CallLog
from autoresearch.store.connection import holds_search
from autoresearch.store.files import trim
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease, lock
from autoresearch.store.records.notes import record_settings
from autoresearch.store.searches import STOPPED
from autoresearch.tasks import create_task
from autoresearch.tasks.base import TRUST, Dataset, Task, Trust
from autoresearch.tasks.worker import about_places, create_executor
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Cost, Proposal


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
    said = Announcements()
    overrides = named(overrides)
    repository = Repository(Path.cwd())
    place = meant_by(overrides, repository)
    runs = runs_folder(place, repository)
    folder = runs / place.name
    with lock(folder) as lease, ExitStack() as stack:
        found = holds_search(folder)
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
        planned, config = config, _for_now(config, patches_only=patches_only, strangers=proposer is not None)
        if proposer is None:
            proposer = (
                proposer_of(config, repository, folder, said.say)
                if proposes
                else Nobody(str(config.proposer["name"]))
            )
        if scored:
            task = create_task(planned)
            journal, data = reopened(repository, task, folder)
        else:
            if not found:
                check_new(config.name, repository, create_task(config), start)
            otherwise, data = prepare_data(
                config, create_task(config), overrides, runs / "cache", passed_over.append
            )
            config, planned = (c.model_copy(update=otherwise) for c in (config, planned))
            task = create_task(planned)
            journal = begun(config, repository, task, folder, brief, data, start)
        _hold(journal, lease, stack)
        record_environment(journal, config, task)
        anew = record_settings(journal, planned.model_dump(mode="json"), chosen_at_start(journal.info()))
        if patches_only:
            config = config.model_copy(update={"experiments": _with_patches(journal, inbox)})
            ended = journal.info().finished is not None and not journal.get(STOPPED)
            stack.callback(journal.set, STOPPED, "" if ended else "yes")
        shown = stack.enter_context(_published(view, journal, passed_over))
        if anew:
            shown.message(f"It goes on with other settings: {', '.join(change.key for change in anew)}.")
        tell_terms(config, repository, task, data, brief, sandbox, shown)
        trusted = trusted_tree(config, repository, journal, folder)
        export = exporter(repository, task.frozen)
        executor = create_executor(config, task, data, sandbox, trusted, export, said.say)
        stack.callback(executor.close)
        for line in about_places(executor):
            shown.message(line)
        mirror = create_mirror(config, repository, folder, said.say)
        search = Search(config, task, repository, journal, executor, proposer, mirror, shown, inbox)
        said.hand_to(search.scheduler.events)
        stack.callback(search.scheduler.close)
        stack.callback(_conclude, search, mirror)
        yield search


class Announcements:
    """What the parts of a search say, from any thread: kept until the search has its queue of events."""

    def __init__(self) -> None:
        self._queues: list[SimpleQueue[Any]] = [SimpleQueue()]

    def say(self, text: str) -> None:
        """Tell a person something that he should know."""
        self._queues[-1].put(Message(text, warning=True))

    def hand_to(self, events: SimpleQueue[Any]) -> None:
        """Put there what was said before, and from now on what is said."""
        self._queues.append(events)
        while not self._queues[0].empty():
            events.put(self._queues[0].get())


def _for_now(config: Config, *, patches_only: bool, strangers: bool) -> Config:
    """What holds in this run alone; see `open_search`."""
    changed: dict[str, object] = {"proposer": {"name": "queue", "wait": False}} if patches_only else {}
    if strangers:
        changed |= {"experiments": sys.maxsize, "minutes": None, "alarm": None}
    return config.model_copy(update=changed)


def _hold(journal: Journal, lease: Lease, stack: ExitStack) -> None:
    """Say in the journal who runs the search, until the end of `stack`, which closes it."""
    stack.callback(journal.close)
    journal.set("lease", lease.to_json())
    stack.callback(journal.set, "lease", "")


@contextmanager
def _published(view: str, journal: Journal, warnings: Sequence[str]) -> Iterator[View]:
    """Show a search, here and to who watches its folder, beginning with some warnings."""
    shown = Published(create_view(view, journal.info(), journal.experiments()), journal.path.parent)
    with shown:
        journal.say = partial(shown.message, warning=True)
        for warning in warnings:
            shown.message(warning, warning=True)
        yield shown


def _with_patches(journal: Journal, inbox: Inbox) -> int:
    """Experiments that there will be when every patch in the inbox has been tried."""
    return len(journal.experiments()) - 1 + sum(bool(idea.patch) for idea in inbox.ideas())


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
        if not holds_search(folder):
            return Cost()
        with Journal.of(folder) as journal:
            return calls.unbilled(name, journal.experiments(), journal.drafts())

    def refused(proposal: Proposal, reason: str) -> None:
        with Journal.of(folder) as journal:
            journal.refused(proposal, reason)

    def export(place: Path) -> None:
        with Journal.of(folder) as journal:
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
    config: Config,
    repository: Repository,
    task: Task,
    data: Dataset,
    brief: str,
    sandbox: Sandbox | None,
    view: View,
) -> None:
    """Show what protects, what measures the score, what the task warns of, and what is no part of the search.

    Raises:
        UserError: If the GPU does not answer inside the sandbox.
    """
    if sandbox is not None:
        tell_protection(config, sandbox, view)
    view.message(f"Trust: {task.trust}. {TRUST[task.trust]}", warning=task.trust is Trust.PRINTED)
    for warning in task.warnings(data):
        view.message(warning, warning=True)
    for line in unread(config, brief):
        view.message(line)
    if repository.is_modified(task.frozen):
        changed = ", ".join(task.frozen)
        view.message(f"Uncommitted changes in {changed}/ are not part of this search.", warning=True)


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
