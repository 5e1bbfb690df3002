"""What must hold before a search begins or goes on: its settings, its name in git, the files of its task.

Everything here is checked before anything is written or trained, and refused with what to do next.
"""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from glob import iglob
from importlib.util import find_spec
from pathlib import Path

from autoresearch.config import Config
from autoresearch.edit.patch import read_patch
from autoresearch.edit.python import UNPARSABLE, parse
from autoresearch.errors import UserError
from autoresearch.execute import EXECUTORS, is_remote
from autoresearch.judge import create_judge
from autoresearch.propose.llm.roles import check_roles
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.base import Task

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
        read_idea(path)
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


def read_idea(path: Path) -> tuple[str, str]:
    """The text and the diff of a file."""
    text, *diff = DIFF.split(read_patch(path), maxsplit=1)
    if not text.strip() or not diff:
        raise UserError(f"{path} is no idea.", "Write a line of text, then what git diff says.")
    return text, diff[0]
