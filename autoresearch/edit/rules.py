"""What every candidate must meet before it may cost a training slot; checked in milliseconds, by parsing.

Invariant: a candidate that passes differs from its parent, and from everything tried before, in what the
program means, not only in comments, layout or the random seed. The source is parsed and compiled, never
executed.

Not covered: whether it trains (shapes, memory, causality): only running it can tell.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache

from autoresearch.edit.seeds import seedless
from autoresearch.edit.syntax import ALONE, UNPARSABLE, parse
from autoresearch.types import Refused

MAX_CHARACTERS = 200_000
"""A larger file is refused: it is no training script, and parsing it could take long."""

REMEMBERED = 16
"""Texts whose syntax trees need not be made anew: a proposal is checked when it is made and in its turn."""


def check(
    parent: Mapping[str, str], new: Mapping[str, str], editable: Collection[str], seen: Mapping[str, int]
) -> None:
    """Accept or refuse a candidate.

    Args:
        parent: Sources of the incumbent: path -> text.
        new: Sources of the candidate.
        editable: Paths that may differ.
        seen: Fingerprint -> number of every experiment so far (0 is the baseline).

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
    number = seen.get(fingerprint(new))
    if number is not None:
        what = "the baseline" if number == 0 else f"experiment {number}"
        raise Refused(f"the candidate is the same program as {what}, which was tried already")
    for path in changed:
        _check_names(path, parent.get(path, ""), new[path])


def fingerprint(sources: Mapping[str, str]) -> str:
    """A hash that is equal for programs that differ only in comments, docstrings and layout.

    Args:
        sources: path -> text. Files that are not Python, or do not parse, count as they are.
    """
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path}\0{_normal(path, sources[path], seeds=True)}\0".encode())
    return digest.hexdigest()


def code_lines(source: str) -> int:
    """Lines of a Python file that hold code: not blank, not only a comment, not a docstring."""
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in no_code and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Expr) and _is_bare_string(node):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def net_lines(parent: Mapping[str, str], new: Mapping[str, str]) -> int:
    """How many lines of code a candidate adds (negative: removes), over all Python files.

    A file that cannot be parsed counts as none: `check` refuses it.
    """

    def total(sources: Mapping[str, str]) -> int:
        return sum(_code_lines(text) for path, text in sources.items() if path.endswith(".py"))

    return total(new) - total(parent)


@lru_cache(maxsize=REMEMBERED)
def _code_lines(source: str) -> int:
    try:
        return code_lines(source)
    except (*UNPARSABLE, tokenize.TokenError):
        return 0


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
    """Refuse what differs only in comments, layout or the seed."""
    if fingerprint(parent) == fingerprint(new):
        raise Refused("the proposal changes only comments, docstrings or layout; the program stays the same")

    def without_seed(sources: Mapping[str, str]) -> dict[str, str]:
        return {path: _normal(path, text, seeds=False) for path, text in sources.items()}

    if without_seed(parent) == without_seed(new):
        raise Refused("the proposal changes only the random seed; another seed is not an improvement")


def _check_names(path: str, parent: str, new: str) -> None:
    """Refuse names that are used and nowhere defined, unless the parent used them too."""
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


@lru_cache(maxsize=REMEMBERED)
def _normal(path: str, source: str, *, seeds: bool) -> str:
    """The syntax tree as text, without docstrings (and without what only sets a seed)."""
    if not path.endswith(".py"):
        return source
    try:
        tree: ast.AST = _Strip().visit(parse(source))
        if not seeds:
            tree = seedless(tree)
        return ast.dump(tree)
    except UNPARSABLE:
        return source


def _is_bare_string(node: ast.AST) -> bool:
    """A docstring, or any other string that stands as a statement of its own."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


class _Strip(ast.NodeTransformer):
    """Removes strings that stand as statements."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _is_bare_string(node) else self.generic_visit(node)
