"""The rules on an edit of a Python program; a task in that language calls them in `Task.validate`.

Invariant: a candidate that passes is a well-formed program that differs from its parent in what it does, not
only in comments, layout or the random seed, and its text shows the program that Python runs. The check takes
milliseconds: it parses and compiles the source, and never executes it.

Not covered: whether the candidate was tried before (the search compares fingerprints), and whether it trains
(shapes, memory, causality), which only a run can show.
"""

from __future__ import annotations

import io
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache

from autoresearch.edit.python import ALONE, REMEMBERED, UNPARSABLE, fingerprint, parse, without_seeds
from autoresearch.errors import Refused

MAX_CHARACTERS, MAX_LINES = 200_000, 10_000
"""Larger files are refused: they are not training scripts, and parsing could take long."""

HIDDEN = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that a reviewer does not see, or that end a line for Python and not for an editor, or the other
way round: lone carriage returns, control and bidirectional characters, invisible ones, line separators."""

COMPUTED = re.compile(r"\{.*\}", re.S)
"""All that an f-string may compute, with the text in between."""
FSTRING_MIDDLE = getattr(tokenize, "FSTRING_MIDDLE", -1)

COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
"""A comment in the first two lines that tells Python how to decode the file (PEP 263)."""


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
        _check_text(path, parent.get(path, ""), new[path])
        _check_syntax(path, new[path])
        _check_letters(path, parent.get(path, ""), new[path])
    if not changed:
        raise Refused("the proposal changes nothing")
    _check_meaning(parent, new)
    for path in changed:
        _check_names(path, parent.get(path, ""), new[path])


def _check_text(path: str, parent: str, source: str) -> None:
    """Refuse text that shows another program than Python runs; what the parent holds already may stay."""
    lines = source.count("\n")
    if len(source) > MAX_CHARACTERS or lines > MAX_LINES:
        raise Refused(
            f"{path} has {len(source):,} characters in {lines:,} lines; at most {MAX_CHARACTERS:,} in "
            f"{MAX_LINES:,} are allowed"
        )
    known = Counter(HIDDEN.findall(parent))
    for found in HIDDEN.finditer(source):
        known[found[0]] -= 1
        if known[found[0]] < 0:
            line = source.count("\n", 0, found.start()) + 1
            raise Refused(
                f"{path}, line {line}: the character U+{ord(found[0]):04X} is invisible or ends a line in "
                "some places only; write it as an escape such as \\u200b in a string, or leave it out"
            )
    for text in source.split("\n")[:2]:
        cookie = COOKIE.match(text)
        if cookie and not re.fullmatch(r"utf[-_]?8", cookie[1].lower()):
            raise Refused(f"{path} says that it is encoded as {cookie[1][:40]!r}; only UTF-8 is allowed")


def _check_syntax(path: str, source: str) -> None:
    if not path.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source.encode(), path, "exec", dont_inherit=True)  # as Python reads the file
    except SyntaxError as error:
        lines = source.split("\n")
        line = error.lineno or 0
        text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
        raise Refused(f"{path}, line {line}: {error.msg}: {text[:160]}") from None
    except UNPARSABLE as error:
        raise Refused(f"{path} cannot be compiled: {type(error).__name__}: {error}") from None


def _check_letters(path: str, parent: str, source: str) -> None:
    """Refuse names in other letters than ASCII: some look alike, and Python reads some as others (NFKC)."""
    try:
        found = _foreign(path, source)
        known = {word for word, _ in _foreign(path, parent)} if found else set()
    except (tokenize.TokenError, SyntaxError) as error:
        raise Refused(f"{path} cannot be divided into words: {error}") from None
    for word, line in found:
        if word not in known:
            raise Refused(
                f"{path}, line {line}: {word[:40]!a} has letters that may look like others; outside of "
                "comments and strings only ASCII is allowed"
            )


def _foreign(path: str, source: str) -> list[tuple[str, int]]:
    """Words of the code with characters beyond ASCII, and their lines; not of comments and plain strings."""
    found: list[tuple[str, int]] = []
    if not path.endswith(".py") or source.isascii():
        return found
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        words = [token.string]
        if token.type in (tokenize.COMMENT, FSTRING_MIDDLE):
            continue
        if token.type == tokenize.STRING:  # before Python 3.12 with what an f-string computes
            prefix = token.string[: token.string.find(token.string[-1])].lower()
            words = COMPUTED.findall(token.string) if "f" in prefix else []
        found += [(word, token.start[0]) for word in words if not word.isascii()]
    return found


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
