"""Starts a search, or continues one: its journal, its branch, and the scorer's copy of the task.

Invariant: a branch of another owner, or one that somebody has moved, is never overwritten.
"""

from __future__ import annotations

import ast
import json
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from glob import iglob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.config import Config, load
from autoresearch.config.profiles import LARGE, SMALL, small_corpus
from autoresearch.edit.patch import read_patch
from autoresearch.edit.python import UNPARSABLE, parse
from autoresearch.errors import UserError
from autoresearch.execute import EXECUTORS, is_remote
from autoresearch.execute.places import device, places, threads
from autoresearch.judge import create_judge
from autoresearch.propose.llm.roles import check_roles
from autoresearch.store.git.commits import check_branch
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal, SearchInfo
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

DIFF = re.compile(r"^(?=diff --git |--- )", re.MULTILINE)
"""Where a unified diff begins, with or without the lines that git puts before it."""


def check_judge(config: Config) -> None:
    """Check the judge's options before the baselines are trained.

    Raises:
        UserError: If the judge cannot be made.
    """
    try:
        create_judge(baseline=[(seed, float(seed)) for seed in range(config.baselines)], **config.judge)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"The judge cannot be set up so: {error}.", "See configs/judge/.") from None


def check_settings(config: Config, *, new: bool) -> None:
    """Check what is set, as far as that can be seen without a repository and without preparing anything.

    Args:
        config: Of the search.
        new: Whether the search begins.

    Raises:
        UserError: If the judge, the brief, or for a new search the corpus or the ideas cannot be used.
    """
    check_roles(config.read_brief(), config.proposer)
    check_judge(config)
    if is_remote(config.executor.name):
        EXECUTORS.load(config.executor.name).check(config.executor)
    if not new:
        return
    for path in config.idea_paths:
        _read_idea(path)
    for key in ("path", "other_path"):
        given = config.data.get(key)
        there = str(Path(str(given)).expanduser())
        if given and not Path(there).exists() and not any(iglob(there, recursive=True)):  # noqa: PTH207
            hint = "Give a file, a folder, or a glob in quotes."
            raise UserError(f"data.{key}: there is no {given}.", hint)


def check_new(name: str, repository: Repository, task: Task, start: str = "HEAD") -> None:
    """Check that a search of this name can begin at a commit, before anything is written.

    Raises:
        UserError: If git cannot hold its refs or has some of that name, or if files of the task are missing.
    """
    branch = f"autoresearch/{name}"
    if not repository.valid_ref(f"refs/heads/{branch}"):
        raise UserError(f"Git can have no branch {branch}.", "Choose a name= of letters, digits and hyphens.")
    for ref in ("refs/heads/autoresearch", "refs/autoresearch"):
        if ref in repository.refs(ref):
            kind = "branch" if ref.startswith("refs/heads") else "ref"
            raise UserError(
                f"There is a {kind} called {ref.removeprefix('refs/heads/')}, beside which git can have no "
                f"{branch}.",
                "Rename it: git branch -m autoresearch another-name"
                if kind == "branch"
                else f"Remove it if you do not need it: git update-ref -d {ref}",
            )
    if repository.refs(place := f"refs/autoresearch/{name}"):
        raise UserError(
            f"Git still has the candidates of an earlier search {name}, below {place}, and its branch.",
            "Choose another name=, or remove them if you do not need them: autoresearch clean --all --git "
            f"name={name}",
        )
    if repository.refs(f"refs/heads/{branch}"):
        raise UserError(
            f"The branch {branch} exists already, but no search of that name is recorded here.",
            f"Choose another name=, or delete the branch if you do not need it: git branch -D {branch}",
        )
    if start != "HEAD":
        return  # the start of an earlier search, for which this was checked
    require_files(repository, task)
    repository.sources("HEAD", task.editable)
    _check_imports(repository, task)


def require_files(repository: Repository, task: Task) -> None:
    """Check that the user's latest commit holds the task's files, before anything is prepared.

    Raises:
        UserError: If files are missing; says which, and how to copy the installed ones.
    """
    missing = repository.missing("HEAD", dict.fromkeys((*task.frozen, *task.editable)))
    if not missing:
        return
    hint = "Commit them, or run in a repository that holds them."
    packages = dict.fromkeys(path.partition("/")[0] for path in missing)
    installed = [spec for name in packages if name.isidentifier() and (spec := find_spec(name)) is not None]
    if folders := [place for spec in installed for place in spec.submodule_search_locations or ()]:
        names = " ".join(packages)
        hint += f" To start from what is installed: cp -r {' '.join(folders)} {repository.root}/ && "
        hint += f"git -C {repository.root} add {names} && git -C {repository.root} commit -m start"
    raise UserError(
        f"The task {task.name} needs {', '.join(missing)}, which the latest commit of {repository.root} "
        "does not hold.",
        hint,
    )


def _check_imports(repository: Repository, task: Task) -> None:
    """Check that committed Python code imports nothing that only the user's checkout has.

    Raises:
        UserError: If it does, at the top of a file and not within a `try`.
    """
    extra = {_module(path): path for path in repository.uncommitted(task.frozen) if path.endswith(".py")}
    if not extra:
        return
    here = repository.files("HEAD", task.frozen)
    for path in (path for path in here if path.endswith(".py")):
        with suppress(*UNPARSABLE, UserError):
            source = repository.sources("HEAD", [path])[path]
            if found := extra.keys() & _imported(source, path):
                needed = sorted(extra[name] for name in found)
                break
    else:
        return
    raise UserError(
        f"{path} imports {', '.join(needed)}, which is not committed: a search trains what is committed.",
        f"Commit it: git add {' '.join(needed)} && git commit",
    )


def _imported(source: str, path: str) -> set[str]:
    """Full names of the modules that a Python file imports at its top; names within them are among these."""
    found: set[str] = set()
    for node in parse(source).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.split("/")[: -node.level] if node.level else []
            start = ".".join([*package, *filter(None, [node.module])])
            found |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    return found


def _module(path: str) -> str:
    """The name by which Python imports a file, relative to the root of the repository."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


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
        device=f"{device(config)}, {count(threads(config), 'thread')}" + _several(len(places(config))),
    )
    return Journal.create(folder / "journal.db", info, seed_secret=secrets.token_hex(32))


def is_scored(folder: Path) -> bool:
    """Whether the starting script of the search in a folder has a score; from then on scores are compared."""
    with closing(Journal(folder / "journal.db")) as journal:
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
        text, diff = _read_idea(path)
        if text.strip() not in known:
            inbox.add_idea(text, diff)


def _read_idea(path: Path) -> tuple[str, str]:
    """The text and the diff of a file."""
    text, *diff = DIFF.split(read_patch(path), maxsplit=1)
    if not text.strip() or not diff:
        raise UserError(f"{path} is no idea.", "Write a line of text, then what git diff says.")
    return text, diff[0]


def reopen(folder: Path, repository: Repository) -> Journal:
    """The journal of a search that continues.

    Raises:
        UserError: If somebody has moved its branch.
    """
    journal = Journal(folder / "journal.db")
    check_branch(journal, repository)
    return journal


def _several(count: int) -> str:
    return f", {count} trials at a time" if count > 1 else ""


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
