"""Starts a search, or continues one: its journal, its branch, and the scorer's copy of the task.

Invariant: a branch of another owner, or one that somebody has moved, is never overwritten.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.config import Config, load
from autoresearch.config.profiles import LARGE, SMALL, small_corpus
from autoresearch.errors import UserError
from autoresearch.execute.places import device, threads
from autoresearch.report.lessons import for_prompt, learn, of_task
from autoresearch.report.summary import summarize
from autoresearch.search.setup.required import read_idea
from autoresearch.store.connection import JOURNAL, holds_search
from autoresearch.store.git.commits import check_branch
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.store.records.notes import ABOUT
from autoresearch.store.searches import journals, searches
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Dataset, Task
from autoresearch.text import count
from autoresearch.tracking.mirror import DATA
from autoresearch.types import Split

SAME_NOISE: tuple[Callable[[SearchInfo], object], ...] = (
    lambda info: (info.task, info.device, info.metric),
    lambda info: info.data,
    lambda info: (info.config.get("budget"), info.config.get("judge")),
)
"""What two searches must have in common for the noise of one to be the prior of the other."""


def begin(
    config: Config,
    repository: Repository,
    folder: Path,
    brief: str,
    meta: dict[str, Any],
    start: str = "HEAD",
) -> Journal:
    """The journal of a new search, which starts from a commit: the user's latest, if none is given."""
    base = repository.resolve(start)
    assert base, "Repository() has checked that there is a commit"
    task = create_task(config)
    info = SearchInfo(
        name=config.name,
        base_commit=base,
        branch=f"autoresearch/{config.name}",
        created=now(),
        task=task.name,
        brief=config.brief,
        brief_text=brief,
        config=config.model_dump(mode="json"),
        data=meta,
        metric=task.metric,
        trust=task.trust.value,
        device=f"{device(config)}, {count(threads(config), 'thread')}" + _several(len(task.places())),
    )
    return Journal.create(folder / JOURNAL, info, seed_secret=secrets.token_hex(32))


def is_scored(folder: Path) -> bool:
    """Whether the starting script of the search in a folder has a score; from then on scores are compared."""
    with Journal.of(folder) as journal:
        return any(e.score is not None for e in journal.experiments()[:1])


def prepare_data(
    config: Config, task: Task, overrides: Sequence[str], cache: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], Dataset]:
    """Prepare the corpus; without a network the small one, if only a GPU has chosen the large one.

    Args:
        config: Of the search.
        task: Its task.
        overrides: What the user has set.
        cache: Folder of prepared data.
        say: Is told if the small corpus is taken.

    Returns:
        What changes in the configuration, and the data.

    Raises:
        UserError: If it cannot be prepared.
    """
    try:
        return {}, task.prepare(cache)
    except UserError as error:
        small = small_corpus(config, overrides)
        if error.code != 3 or not small:
            raise
    say(
        f"The corpus {LARGE} could not be fetched (see above), so the small one, {SMALL}, is used. A GPU "
        f"reads it many times over, and changes that help to memorise win. With a network: data={LARGE}"
    )
    smaller = load([*config.overrides, *small], environment={}, own_file=False)
    changed = {key: getattr(smaller, key) for key in ("data", "choices", "overrides")}
    return changed, create_task(smaller).prepare(cache)


def record_data(journal: Journal, data: Dataset, runs: Path) -> None:
    """Note where the data of a search lie: it goes on with them, whatever becomes of their source."""
    place = data.path.resolve()
    inside = place.is_relative_to(runs.resolve())
    path = place.relative_to(runs.resolve()) if inside else place  # it may be copied along
    note = {"path": str(path), "splits": sorted(data.splits), "sizes": data.sizes}
    journal.set(DATA, json.dumps(note))


def recorded_data(task: Task, journal: Journal, runs: Path) -> Dataset:
    """The data that a search was begun with.

    Raises:
        UserError: If they are gone, and what is prepared from the source now is not the same.
    """
    about = dict(journal.info().data)
    if note := journal.get(DATA):
        known = json.loads(note)
        if (path := runs / known["path"]).is_dir():
            return Dataset(path, about, frozenset(map(Split, known["splits"])), known["sizes"])
    data = task.prepare(runs / "cache")
    found = json.loads(json.dumps(dict(data.about)))
    if changed := sorted(key for key in {*about, *found} if about.get(key) != found.get(key)):
        raise UserError(
            f"The data are not those that the search {journal.path.parent.name} was begun with: "
            f"{', '.join(changed)} differ. Scores would not be comparable.",
            "Bring back the corpus as it was, or start a search under another name.",
        )
    record_data(journal, data, runs)
    return data


def shelve(inbox: Inbox, patches: Sequence[Path]) -> None:
    """Put patches into the inbox of a new search, once, even if an earlier start was cut off.

    Args:
        inbox: Inbox of the search.
        patches: Files that hold a text and a unified diff below it.

    Raises:
        UserError: If a file has another form, or cannot be read.
    """
    known = {entry.idea.text for entry in inbox.entries()}
    for path in patches:
        text, diff = read_idea(path)
        if text.strip() not in known:
            inbox.add_idea(text, diff)


def reopen(folder: Path, repository: Repository) -> Journal:
    """The journal of a search that continues.

    Raises:
        UserError: If somebody has moved its branch.
    """
    journal = Journal.of(folder)
    check_branch(journal, repository)
    return journal


def _several(count: int) -> str:
    return f", {count} trials at a time" if count > 1 else ""


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
    if holds_search(folder):
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


def trusted_tree(config: Config, repository: Repository, journal: Journal, folder: Path) -> Path:
    """The scorer's own copy of the task's files, as they were when the search began."""
    tree = folder / "trusted"
    shutil.rmtree(tree, ignore_errors=True)
    repository.export(journal.info().base_commit, create_task(config).frozen, tree)
    return tree


def earlier_judge(journal: Journal) -> tuple[str, str]:
    """Name and judge, as JSON, of the latest search that does not run now and had the noise of this one.

    Task, metric, data, budget and device must be the same. Both are empty if there is none.
    """
    ours, folder = journal.info(), journal.path.parent
    known = (search for search in reversed(searches(folder.parent)) if search.folder != folder)
    for other in journals(search for search in known if not search.runs):
        theirs, state = other.info(), other.judge_state()
        if state and all(of(theirs) == of(ours) for of in SAME_NOISE):
            return theirs.name, state
    return "", ""
