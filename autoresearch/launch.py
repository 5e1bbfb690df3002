"""From a configuration to a search that is ready to run: data, git, journal, and the rooms' parts.

Owns where things lie: `runs/cache` for prepared data, `runs/<name>/` for one search (journal, lock, worktree,
trusted tree, report). Everything that can be wrong before the first trial is found here, with one clear
message, and in an order that leaves nothing half made.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from autoresearch.config import Config, has_gpu, load, resume
from autoresearch.errors import UserError
from autoresearch.judge import create_judge
from autoresearch.propose import Desk, create_proposer
from autoresearch.record.briefs import current_brief
from autoresearch.record.calls import CallLog
from autoresearch.record.git import Repository
from autoresearch.record.inbox import Inbox
from autoresearch.record.journal import Journal, SearchInfo
from autoresearch.record.lease import lock
from autoresearch.record.live import create_view
from autoresearch.record.mlflow import Mirror
from autoresearch.record.report import Report, write_report
from autoresearch.retention import trim
from autoresearch.run import Modules, TrialRunner
from autoresearch.run.health import Health
from autoresearch.run.sandbox import Limits, Sandbox, create_sandbox, describe
from autoresearch.run.sandbox.gpu import describe as describe_gpu
from autoresearch.run.tool import run_tool
from autoresearch.search import Search
from autoresearch.types import Cost, Proposer, View
from autoresearch.workers import Said

CPU_WORKERS = 2
"""Trials at a time on a CPU that has so many cores, one thread each: models this small train no faster on
several threads (docs/benchmarks.md), and a judge seldom wants more than two trials at once."""


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
        _check_judge(config)
        inbox = Inbox(folder)
        inbox.begin()
        proposer = proposer_of(config, repository, folder, say)
        cache, meta = prepare_data(config, runs)
        journal = _reopen(folder, repository) if found else _begin(config, repository, folder, brief, meta)
        stack.callback(journal.close)
        journal.set("lease", lease.to_json())
        journal.update(config=config.model_dump(mode="json"))
        current_brief(journal, config.brief_path, config.brief)
        shown: View = create_view(view, journal.info(), journal.experiments())
        stack.enter_context(shown)
        tell_protection(config, sandbox, shown)
        if repository.is_modified([config.task.package]):
            shown.message(
                f"Uncommitted changes in {config.task.package}/ are not part of this search.", warning=True
            )
        trusted = _trusted_tree(config, repository, journal, folder)
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


def tell_protection(config: Config, sandbox: Sandbox, view: View) -> None:
    """Say what a person should know of the sandbox before anything runs in it."""
    if warning := describe(sandbox).warning:
        view.message(warning, warning=True)
    if device(config) == "cuda":
        view.message(f"GPU: {describe_gpu(sandbox)}")


def _check_judge(config: Config) -> None:
    """Find wrong options before the baselines have been trained, not after."""
    try:
        create_judge(baseline=[(seed, float(seed)) for seed in range(config.baselines)], **config.judge)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The judge cannot be set up so: {error}.", "See configs/judge/.") from None


def recorded_config(folder: Path) -> Config:
    """The configuration that a search was last run with."""
    journal = Journal(folder / "journal.db")
    try:
        return load(journal.info().config["overrides"], environment={})
    finally:
        journal.close()


def create_runners(
    config: Config, sandbox: Sandbox, cache: Path, trusted: Path, say: Callable[[str], None]
) -> dict[str, TrialRunner]:
    """The parts that train and score, as configured, by the names of their places.

    Raises:
        UserError: If the places make no sense on this device.
    """
    return {
        place: create_runner(config, sandbox, cache, trusted, where, say)
        for place, where in places(config).items()
    }


def places(config: Config) -> dict[str, str]:
    """Where trials can run at the same time: name of the place -> device.

    Raises:
        UserError: If the configuration contradicts itself.
    """
    where, executor = device(config), config.executor
    if where == "cpu":
        if executor.devices is not None:
            raise UserError(
                "executor.devices names GPUs, but trials run on the CPU.",
                "Leave it out; executor.workers=2 trains two candidates at a time there.",
            )
        workers = executor.workers or min(CPU_WORKERS, cores())
        names = [f"cpu:{i}" for i in range(workers)] if workers > 1 else ["cpu"]
        return dict.fromkeys(names, "cpu")
    if (executor.workers or 1) > 1:
        raise UserError(
            "executor.workers is for trials on the CPU; a GPU trains one candidate at a time.",
            "For several GPUs: executor.devices=[0,1]",
        )
    if executor.devices is None:
        return {where: f"{where}:0"}  # named: or torch would take its fastest, and nvidia-smi the first
    if not executor.devices or len(set(executor.devices)) < len(executor.devices):
        raise UserError(
            f"executor.devices={list(executor.devices)} must name each GPU once, and one at least."
        )
    return {f"{where}:{i}": f"{where}:{i}" for i in executor.devices}


def create_runner(
    config: Config, sandbox: Sandbox, cache: Path, trusted: Path, where: str, say: Callable[[str], None]
) -> TrialRunner:
    """The part that trains and scores on one device; what it keeps lies beside the trusted tree."""
    budget, executor, folder = config.budget, config.executor, trusted.parent
    return TrialRunner(
        sandbox=sandbox,
        limits=Limits(**config.sandbox["limits"]),
        modules=Modules(config.task.train, config.task.serve, config.task.score),
        cache=cache,
        trusted=trusted,
        device=where,
        threads=threads(config),
        context=budget.context,
        compile=budget.compile,
        budget_kind=budget.kind,
        budget_amount=budget.amount,
        startup_seconds=budget.startup_seconds,
        max_seconds=budget.max_seconds,
        score_seconds=budget.score_seconds,
        weights_gb=executor.weights_gb,
        probes=executor.probes,
        standby=folder / "standby" if executor.standby else None,
        editable=config.task.editable,
        compiled=folder / "compiled",
        health=Health.find(where) if where.startswith("cuda") else None,
        say=say,
    )


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


def device(config: Config) -> str:
    """Where trials run: "cpu" or "cuda"."""
    if config.executor.device != "auto":
        return config.executor.device
    return "cuda" if has_gpu() else "cpu"


def threads(config: Config) -> int:
    """CPU threads of a trial: those it is given; or one on a CPU, and beside a GPU its share of the cores."""
    if config.executor.threads is not None or device(config) == "cpu":
        return config.executor.threads or 1
    return max(1, cores() // len(places(config)))


def cores() -> int:
    """CPU cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return allowed or 1


def _begin(config: Config, repository: Repository, folder: Path, brief: str, meta: dict[str, Any]) -> Journal:
    branch = f"autoresearch/{config.name}"
    if repository.resolve(f"refs/heads/{branch}"):
        raise UserError(
            f"The branch {branch} exists already, but no search of that name is recorded in {folder.parent}.",
            f"Choose another name=, or delete the branch if you do not need it: git branch -D {branch}",
        )
    base = repository.resolve("HEAD")
    assert base, "Repository() has checked that there is a commit"
    repository.sources(base, config.task.editable)
    info = SearchInfo(
        name=config.name,
        base_commit=base,
        branch=branch,
        created=time.time(),
        task=config.task.name,
        brief=config.brief,
        brief_text=brief,
        config=config.model_dump(mode="json"),
        data=meta,
        device=f"{device(config)}, {threads(config)} threads" + _several(len(places(config))),
    )
    return Journal.create(folder / "journal.db", info)


def _reopen(folder: Path, repository: Repository) -> Journal:
    journal = Journal(folder / "journal.db")
    info = journal.info()
    tip = repository.resolve(f"refs/heads/{info.branch}")
    ours = {info.base_commit, *(e.commit for e in journal.experiments() if e.commit)}
    if tip and tip not in ours:
        raise UserError(
            f"Somebody moved the branch {info.branch} to {tip[:10]}; the search would overwrite that.",
            f"Keep that work on another branch (git branch mine {tip[:10]}), then delete {info.branch}.",
        )
    return journal


def _several(count: int) -> str:
    return f", {count} trials at a time" if count > 1 else ""


def _trusted_tree(config: Config, repository: Repository, journal: Journal, folder: Path) -> Path:
    """The scorer's own copy of the task, as it was when the search began, whatever is edited meanwhile."""
    tree = folder / "trusted"
    shutil.rmtree(tree, ignore_errors=True)
    repository.export(journal.info().base_commit, [config.task.package], tree)
    return tree
