"""The rules on an edit of a Python program; a task in that language calls them in `Task.validate`.

Invariant: a candidate that passes is a well-formed program that differs from its parent in what it does, not
only in comments, layout or the random seed. The check takes milliseconds: it parses and compiles the source,
and never executes it.

Not covered: whether the candidate was tried before (the search compares fingerprints), and whether it trains
(shapes, memory, causality), which only a run can show.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache

from autoresearch.edit.python import ALONE, REMEMBERED, UNPARSABLE, fingerprint, parse, without_seeds
from autoresearch.errors import Refused

MAX_CHARACTERS = 200_000
"""Larger files are refused: they are not training scripts, and parsing could take long."""


def check(parent: Mapping[str, str], new: Mapping[str, str], editable: Collection[str]) -> None:
    """Accept or refuse a candidate.

    Args:
        parent: Sources of the incumbent: path -> text.
        new: Sources of the candidate.
        editable: Paths that may differ.

    Raises:
        Refused: With the reason, for the author of the candidate.
    """
    changed = sorted(path for path in {*parent, *new} if parent.get(path) != new.get(path))
    for path in changed:
        if path not in editable:
            near = (get_close_matches(path, editable, n=1, cutoff=0.0) or ["no file"])[0]
            raise Refused(f"{path} must not be changed; only {near} may be edited")
        if not new.get(path, "").strip():
            raise Refused(f"{path} cannot be deleted or emptied")
        _check_syntax(path, new[path])
    if not changed:
        raise Refused("the proposal changes nothing")
    _check_meaning(parent, new)
    for path in changed:
        _check_names(path, parent.get(path, ""), new[path])


def _check_syntax(path: str, source: str) -> None:
    if len(source) > MAX_CHARACTERS:
        raise Refused(f"{path} has {len(source):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    if not path.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        lines = source.splitlines()
        line = error.lineno or 0
        text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        raise Refused(f"{path}, line {line}: {error.msg}: {text[:160]}") from None
    except UNPARSABLE as error:
        raise Refused(f"{path} cannot be compiled: {type(error).__name__}: {error}") from None


def _check_meaning(parent: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuse a candidate that differs only in comments, layout or the seed."""
    if fingerprint(parent) == fingerprint(new):
        raise Refused("the proposal changes only comments, docstrings or layout; the program stays the same")

    if without_seeds(parent) == without_seeds(new):
        raise Refused("the proposal changes only the random seed; another seed is not an improvement")


def _check_names(path: str, parent: str, new: str) -> None:
    """Refuse names that are used but not defined, unless the parent used them too."""
    known = _undefined(path, parent)
    unknown = {name: line for name, line in _undefined(path, new).items() if name not in known}
    if unknown:
        listed = ", ".join(f"{name!r} (line {line})" for name, line in list(unknown.items())[:10])
        raise Refused(f"{path} uses names that are not defined: {listed}")


@lru_cache(maxsize=REMEMBERED)
def _undefined(path: str, source: str) -> dict[str, int]:
    """Every undefined name that pyflakes finds, with the first line that uses it."""
    from pyflakes.checker import Checker
    from pyflakes.messages import UndefinedLocal, UndefinedName

    if not path.endswith(".py") or not source:
        return {}
    try:
        with ALONE:  # annotations that are strings are parsed, too
            messages = Checker(parse(source), filename=path).messages
    except UNPARSABLE:
        return {}
    wrong = [m for m in messages if isinstance(m, UndefinedName | UndefinedLocal)]
    return {str(m.message_args[0]): m.lineno for m in sorted(wrong, key=lambda m: -m.lineno)}
