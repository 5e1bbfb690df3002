"""From a configuration to a search that is ready to run: data, git, journal, and the rooms' parts.

Owns where things lie: `runs/cache` for prepared data, `runs/<name>/` for one search (journal, lock, worktree,
trusted tree, report). Everything that can be wrong before the first trial is found here, with one clear
message, and in an order that leaves nothing half made.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from autoresearch.config import Config, load, resume
from autoresearch.errors import UserError
from autoresearch.execute.local import Said
from autoresearch.execute.places import create_runners, device
from autoresearch.execute.sandbox import Sandbox, create_sandbox, describe
from autoresearch.execute.sandbox.gpu import describe as describe_gpu
from autoresearch.execute.tool import run_tool
from autoresearch.propose import Desk, create_proposer
from autoresearch.report.live import create_view
from autoresearch.report.report import Report, write_report
from autoresearch.search.create import begin, check_judge, reopen, shelve, trusted_tree
from autoresearch.search.interfaces import View
from autoresearch.search.loop import Search
from autoresearch.store.briefs import current_brief
from autoresearch.store.calls import CallLog
from autoresearch.store.git import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.store.retention import trim
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Cost, Proposer

GPU_TOKENS = 100_000
"""Training tokens for each second on a GPU, below which a corpus is small: it reads a million a second."""


def runs_folder(config: Config, repository: Repository) -> Path:
    """Where everything a search writes goes.

    Raises:
        UserError: If it cannot be written.
    """
    folder = config.runs if config.runs.is_absolute() else repository.root / config.runs
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
    """The folder of the search that `name=` names, or of the latest one.

    Raises:
        UserError: If there is none.
    """
    config = load(overrides)
    repository = Repository(Path.cwd())
    runs = config.runs if config.runs.is_absolute() else repository.root / config.runs
    if any(o.startswith("name=") for o in overrides):
        folders = [runs / config.name]
    else:
        folders = sorted((p.parent for p in runs.glob("*/journal.db")), key=lambda p: p.stat().st_mtime)
    if not folders or not (folders[-1] / "journal.db").exists():
        known = ", ".join(sorted(p.parent.name for p in runs.glob("*/journal.db")))
        which = f"called {folders[-1].name}" if folders else f"in {runs}"
        raise UserError(
            f"There is no search {which}.",
            f"There are: {known}." if known else "Start one: autoresearch run",
        )
    return folders[-1]


def prepare_data(config: Config, runs: Path) -> tuple[Path, dict[str, Any]]:
    """The prepared corpus, made if it is not there yet: its folder, and its description.

    Raises:
        UserError: If it cannot be made.
    """
    arguments = [
        f"--{key.replace('_', '-')}={value}" for key, value in config.data.items() if value is not None
    ]
    # In a process of its own: preparing takes memory that a search should not hold all night.
    command = [sys.executable, "-m", config.task.prepare, "prepare", f"--cache={runs / 'cache'}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode != 0:
        raise UserError(f"The corpus {config.choices['data']!r} could not be prepared (see above).", code=2)
    meta = json.loads(done.stdout.splitlines()[-1])
    return Path(meta.pop("path")), meta


@contextmanager
def open_search(overrides: list[str], view: str = "auto") -> Iterator[Search]:
    """A search that is ready to run, begun or found again by its name; closed at the end.

    Args:
        overrides: Configuration, see `autoresearch.config`.
        view: How to show it: "live", "plain", "quiet" or "auto".

    Raises:
        UserError: For anything that a person can mend before the first trial.
    """

    def say(text: str) -> None:
        search.events.put(Said(text, warning=True))

    config = load(overrides)
    repository = Repository(Path.cwd())
    runs = runs_folder(config, repository)
    folder = runs / config.name
    with lock(folder) as lease, ExitStack() as stack:
        found = (folder / "journal.db").exists()
        if found:
            config = resume(recorded_config(folder), overrides)
        brief = config.brief_path.read_text(encoding="utf-8")
        sandbox = create_sandbox(config.sandbox["backend"])
        check_judge(config)
        inbox = Inbox(folder)
        inbox.begin()
        if not found:
            shelve(inbox, config.idea_paths)
        proposer = proposer_of(config, repository, folder, say)
        cache, meta = prepare_data(config, runs)
        journal = reopen(folder, repository) if found else begin(config, repository, folder, brief, meta)
        stack.callback(journal.close)
        journal.set("lease", lease.to_json())
        journal.update(config=config.model_dump(mode="json"))
        current_brief(journal, config.brief_path, config.brief)
        shown: View = create_view(view, journal.info(), journal.experiments())
        stack.enter_context(shown)
        tell_protection(config, sandbox, meta["splits"]["train"]["tokens"], shown)
        if repository.is_modified([config.task.package]):
            shown.message(
                f"Uncommitted changes in {config.task.package}/ are not part of this search.", warning=True
            )
        trusted = trusted_tree(config, repository, journal, folder)
        runners = create_runners(config, sandbox, cache, trusted, say)
        for runner in runners.values():
            stack.callback(runner.close)
        mirror = create_mirror(config, repository, folder)
        worktree = repository.worktree(folder / "worktree", journal.info().base_commit)
        stack.callback(worktree.remove)
        search = Search(
            config, repository, worktree, journal, folder, runners, proposer, mirror, shown, inbox
        )
        stack.callback(search.close)
        stack.callback(_conclude, search, mirror)
        yield search


def write_page(journal: Journal, repository: Repository) -> Report:
    """Write the report of a search into its folder."""
    diff = cumulative_diff(journal, repository)
    return write_report(journal, diff, journal.path.parent / "report", journal.timeline())


def cumulative_diff(journal: Journal, repository: Repository) -> str:
    """Everything that was kept, as one unified diff; empty if nothing was, or if git has lost it."""
    kept = [e.commit for e in journal.experiments() if e.kept and repository.resolve(e.commit)]
    return repository.diff(journal.info().base_commit, kept[-1]) if kept else ""


def _conclude(search: Search, mirror: Mirror) -> None:
    """Whatever ended the search, leave a report, and MLflow up to date if it answers."""
    report = write_page(search.journal, search.repository)
    problem = mirror.close(search.journal, [f for f in (report.markdown, report.html, report.png) if f])
    if problem:
        search.view.message(problem, warning=True)  # and it needs all of what is kept, later
    else:
        with suppress(UserError, OSError, sqlite3.Error):  # tidying up fails no search
            trim(search.journal, search.config.keep_logs)


def proposer_of(
    config: Config, repository: Repository, folder: Path, say: Callable[[str], None] = print
) -> Proposer:
    """Who proposes, as configured, for the search in `folder`; nothing is written yet.

    Args:
        config: Of the search.
        repository: It is about.
        folder: Of the search; need not exist.
        say: Tells a person something.
    """
    calls = CallLog(folder)

    def spent(name: str) -> Cost:
        if not (folder / "journal.db").exists():
            return Cost()
        journal = Journal(folder / "journal.db")
        try:
            return calls.unbilled(name, journal.experiments(), journal.drafts())
        finally:
            journal.close()

    def tree(place: Path) -> None:
        journal = Journal(folder / "journal.db")
        try:
            base = journal.info().base_commit
        finally:
            journal.close()
        repository.export(base, [config.task.package], place)

    desk = Desk(folder / "agent", tree, run_tool, Inbox(folder), calls.record, spent, say)
    return create_proposer(**config.proposer, column=int(device(config) == "cuda"), desk=desk)


def tell_protection(config: Config, sandbox: Sandbox, tokens: int, view: View) -> None:
    """Say what a person should know of the sandbox, and of training on a GPU, before anything runs.

    Raises:
        UserError: If the GPU does not answer where candidates run.
    """
    if warning := describe(sandbox).warning:
        view.message(warning, warning=True)
    if device(config) != "cuda":
        return
    said = describe_gpu(sandbox)
    if said.startswith(("CUDA answers outside", "there are NVIDIA devices, but")):
        raise UserError(f"No trial can use the GPU: {said}.", "Train on the CPU: executor.device=cpu", code=3)
    view.message(f"GPU: {said}")
    if config.budget.kind == "seconds" and tokens < GPU_TOKENS * config.budget.amount:
        view.message(
            f"{tokens:,} training tokens will be read many times over: what wins is what memorises. "
            "Give more text: data=climbmix, or data=file data.path=...",
            warning=True,
        )


def recorded_config(folder: Path) -> Config:
    """The configuration that a search was last run with."""
    journal = Journal(folder / "journal.db")
    try:
        return load(journal.info().config["overrides"], environment={})
    finally:
        journal.close()


def create_mirror(config: Config, repository: Repository, folder: Path) -> Mirror:
    """The part that shows the search in `folder` in MLflow, as configured."""
    tracking = config.tracking
    return Mirror(
        enabled=tracking.enabled,
        uri=tracking.uri,
        experiment=tracking.experiment,
        folder=folder.parent / "mlflow",
        sources=lambda commit: repository.sources(commit, config.task.editable),
        calls=CallLog(folder),
    )
