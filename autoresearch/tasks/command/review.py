"""Looks at a repository and says what would make its scores doubtful, before anything is run."""

from __future__ import annotations

import ast
import re
import shlex
from contextlib import suppress
from itertools import pairwise
from pathlib import PurePosixPath

from autoresearch.edit.python import UNPARSABLE, parse
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.command.settings import CommandOptions

POINTER = b"version https://git-lfs.github.com/spec/"
UNPICKLES = re.compile(
    r"pickle\.load|joblib\.load|torch\.load\((?!.*weights_only=True)|allow_pickle=True|jit\.load"
)
"""What lets files of a candidate run code inside a scorer."""
HIGHER = re.compile(
    r"(^|_)(acc|accuracy|auc|f1|precision|recall|r2|reward|throughput|speedup|speed)(_|$)", re.I
)
LOWER = re.compile(r"(^|_)(loss|error|nll|bpb|perplexity|rmse|mse|mae|seconds|bytes|size|latency)(_|$)", re.I)
"""Names of metrics of which more, or less, is better."""


def refuse_own_scorer(repository: Repository, options: CommandOptions) -> None:
    """Refuse editable files that belong to the scorer, or that hold no text.

    Raises:
        UserError: If there are any.
    """
    editable = repository.matching("HEAD", options.editable)
    sources = repository.sources("HEAD", editable)
    commands = [("score", options.score), ("prepare", options.prepare)]
    for key, command in commands:
        if touched := sorted(set(editable) & files_of(command or "")):
            raise UserError(
                f"task.editable names {', '.join(touched)}, which task.{key} runs.",
                f"Leave it out of task.editable, or give task.{key} a file of its own.",
            )
    pointers = [path for path, text in sources.items() if text.encode().startswith(POINTER)]
    if pointers:
        raise UserError(
            f"{', '.join(pointers)}: git holds a pointer of LFS, not the file.", "Name other editable files."
        )


def doubts_about_direction(options: CommandOptions) -> list[str]:
    """Says so if the metric's name and its direction do not fit together."""
    wrong, right = (LOWER, HIGHER) if options.direction == "max" else (HIGHER, LOWER)
    if wrong.search(options.metric) and not right.search(options.metric):
        return [f"task.direction={options.direction} is unusual for {options.metric}: is it right?"]
    return []


def doubts_about_repository(repository: Repository, options: CommandOptions) -> list[str]:
    """What a scorer does that a candidate could use, and what of the repository is not part of a trial."""
    found = _doubts_about_scorer(repository, options) if options.score else []
    if modules := repository.submodules("HEAD"):
        found.append(f"Submodules are not part of a trial: {', '.join(modules)}. task.inputs can name them.")
    if pointers := repository.starting_with("HEAD", POINTER):
        named = ", ".join(pointers[:5])
        found.append(f"Of {named} git holds only pointers of LFS. task.inputs shows your own copy.")
    return found


def _doubts_about_scorer(repository: Repository, options: CommandOptions) -> list[str]:
    editable = repository.matching("HEAD", options.editable)
    modules = {PurePosixPath(path).stem: path for path in editable if path.endswith(".py")}
    found = []
    for path in sorted(files_of(options.score or "") & set(repository.files("HEAD", ["."]))):
        with suppress(UserError, *UNPARSABLE):
            text = repository.sources("HEAD", [path])[path]
            lines = [str(number) for number, line in enumerate(text.split("\n"), 1) if UNPICKLES.search(line)]
            if lines:
                found.append(
                    f"{path}, line {', '.join(lines)}, may run code from a candidate's files. Such a score "
                    "is worth no more than a printed one: read plain data instead (npz, json, safetensors)."
                )
            if used := sorted(_imports(text) & modules.keys()):
                named = ", ".join(modules[name] for name in used)
                found.append(f"{path} imports {named}, and uses it as it was at the start, whatever changes.")
    return found


def files_of(command: str) -> set[str]:
    """Paths that a command names, and the files of modules that it runs."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    modules = {f"{word.replace('.', '/')}.py" for last, word in pairwise(words) if last == "-m"}
    return modules | {word.removeprefix("./") for word in words}


def _imports(source: str) -> set[str]:
    """Last names of the modules that a Python program imports."""
    found = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[-1] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").split(".")[-1], *(alias.name for alias in node.names)}
    return found
