"""Turns edits into new source text: applies every edit exactly, or none.

Invariant: `apply` either carries out all edits as written or raises `Refused` with a reason that helps the
author (usually an LLM). It never skips an edit, guesses between two places, or applies half of a proposal.
All edits refer to the text before any of them. Four harmless slips have only one possible meaning and are
repaired: line endings that differ from the file's, a missing newline at the end of the file, curly quotes and
special blanks, and a block whose lines are all indented by the same wrong amount (or have other trailing
blanks). The time it takes is bounded, whatever the edits are.

Not covered: whether the result is valid, permitted or new (see `autoresearch.edit.rules`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from itertools import accumulate, chain, pairwise

from autoresearch.errors import Refused
from autoresearch.types import Edit

MAX_EDITS, MAX_CHARACTERS = 200, 400_000
"""Largest number of edits of a proposal, and of characters in all of them."""

NEAREST_LINES, NEAREST_WORDS, NEAREST_PLACES, LINE_WIDTH = 60, 800, 5, 200
"""To find the nearest text, so many lines and words of a search block are compared, in full at so many
places; so many characters of a line are shown."""

PLAIN = str.maketrans("“”„‟‘’‚‛\u00a0\u2007\u202f", "\"\"\"\"''''   ")
"""Quotes and blanks that word processors and models put in the place of plain ones."""

MAX_SHIFTED = 1000
"""A block of more lines is not looked for with another indentation."""

MAX_LOOKED_AT, MAX_COMPARED = 20_000, 20_000_000
"""Most places at which a search text is looked at, and most characters of it that are compared there."""


@dataclass(frozen=True)
class Splice:
    """Replace `text[start:end]` by `new`; `edit` counts from 1, for messages."""

    start: int
    end: int
    new: str
    edit: int


def apply(sources: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str]:
    """Apply all edits to the sources.

    Args:
        sources: path -> text.
        edits: Edits of these sources, in any order.

    Returns:
        path -> new text, for every path in `sources`.

    Raises:
        Refused: If any edit is unknown, ambiguous, overlapping or without effect, or the edits are too large.
    """
    if not edits:
        raise Refused("the proposal has no edits")
    size = sum(len(text) for edit in edits for text in (edit.path, edit.search, edit.replace))
    if len(edits) > MAX_EDITS or size > MAX_CHARACTERS:
        raise Refused(
            f"the proposal has {len(edits):,} edits of {size:,} characters; at most {MAX_EDITS} edits of "
            f"{MAX_CHARACTERS:,} characters are allowed"
        )
    splices: dict[str, list[Splice]] = {}
    for number, edit in enumerate(edits, start=1):
        if edit.path not in sources:
            path = edit.path[:LINE_WIDTH]
            near = get_close_matches(path, sources, n=1, cutoff=0.0) or [""]
            raise Refused(f"edit {number}: there is no editable file {path!r}; did you mean {near[0]!r}?")
        splice, text = _splice(sources[edit.path], edit, number), sources[edit.path]
        if text[splice.start : splice.end] == splice.new:
            raise Refused(f"edit {number} ({edit.path}) changes nothing: the text is as it was")
        splices.setdefault(edit.path, []).append(splice)
    result = dict(sources)
    for path, found in splices.items():
        result[path] = _join(path, sources[path], found)
    return result


def _splice(text: str, edit: Edit, number: int) -> Splice:
    """Find the one place that an edit means."""
    if edit.search == edit.replace:
        raise Refused(f"edit {number} ({edit.path}) changes nothing: search and replace are the same")
    eol = line_ending(text)
    search, replace = with_ending(edit.search, eol), with_ending(edit.replace, eol)
    if not search:
        return _whole_file(text, edit, replace, eol, number)
    starts = occurrences(text, search)
    if len(starts) > 1:
        raise Refused(_ambiguous(text, edit, starts, number))
    if starts:
        if _unclear(text, starts[0], search, replace, eol):
            raise Refused(
                f"edit {number} ({edit.path}): the search text begins after the indentation of its line, so "
                "it is not clear how far the further lines of `replace` are indented; copy the whole line "
                "with its indentation, and indent every line of `replace` as it shall stand in the file"
            )
        return _exact(text, starts[0], search, replace, eol, number)
    tail = search.removesuffix(eol)
    if tail and tail != search and text.endswith(tail) and occurrences(text, tail) == [len(text) - len(tail)]:
        return Splice(len(text) - len(tail), len(text), replace.removesuffix(eol), number)
    if (plain := _plain_quotes(text, search, replace)) is not None:
        return Splice(*plain, number)
    drifted = _reindented(text, search, replace, eol)
    if len(drifted) == 1:
        start, end, new = drifted[0]
        return Splice(start, end, new, number)
    if drifted:
        raise Refused(_ambiguous(text, edit, [start for start, _, _ in drifted], number))
    raise Refused(_not_found(text, edit, search, number))


def _whole_file(text: str, edit: Edit, replace: str, eol: str, number: int) -> Splice:
    """The whole file is replaced; an empty replacement would delete it."""
    if not replace.strip():
        raise Refused(f"edit {number}: {edit.path} cannot be deleted or emptied")
    if text.endswith(eol) and not replace.endswith(eol):
        replace += eol
    return Splice(0, len(text), replace, number)


def _exact(text: str, start: int, search: str, replace: str, eol: str, number: int) -> Splice:
    """An exact match; if it deletes whole lines, their last newline goes too, so that no blank line stays."""
    end = start + len(search)
    at_line_start = start == 0 or text[start - 1] == "\n"
    if not replace and at_line_start and not search.endswith("\n") and text.startswith(eol, end):
        end += len(eol)
    return Splice(start, end, replace, number)


def _unclear(text: str, start: int, search: str, replace: str, eol: str) -> bool:
    """Whether a passage without its indentation is replaced by lines that are not indented as it stands.

    Copied from the beginning of its line, or meant to end the block: both can be read, and both may run.
    """
    if eol in search.removesuffix(eol):
        return False  # its further lines have shown how far they are indented
    indentation = text[text.rfind("\n", 0, start) + 1 : start]
    further = [line for line in replace.split(eol)[1:] if line.strip()]
    inside = indentation and not indentation.strip()
    return bool(inside and any(not line.startswith(indentation) for line in further))


def _join(path: str, text: str, splices: list[Splice]) -> str:
    """Apply the splices of one file, which must not touch each other."""
    ordered = sorted(splices, key=lambda splice: (splice.start, splice.end))
    for before, after in pairwise(ordered):
        if after.start < before.end:
            lines = f"lines {_line(text, after.start)}-{_line(text, max(before.end - 1, 0))}"
            raise Refused(
                f"edits {before.edit} and {after.edit} overlap in {path} ({lines}); merge them into one edit"
            )
    parts, position = [], 0
    for splice in ordered:
        parts += [text[position : splice.start], splice.new]
        position = splice.end
    return "".join([*parts, text[position:]])


def line_ending(text: str) -> str:
    """CRLF if every line of the text ends so, else LF."""
    crlf = text.count("\r\n")
    return "\r\n" if crlf and crlf == text.count("\n") else "\n"


def with_ending(text: str, eol: str) -> str:
    """The text with this end to every line."""
    return text.replace("\r\n", "\n").replace("\n", eol)


def occurrences(text: str, search: str) -> list[int]:
    """Every place where `search` occurs without beginning or ending inside a name or a number.

    Raises:
        Refused: If there are too many places to look at.
    """
    starts: list[int] = []
    start = text.find(search)
    for _ in range(min(MAX_LOOKED_AT, MAX_COMPARED // max(len(search), 1))):
        if start == -1:
            return starts
        if not _splits_token(text, start) and not _splits_token(text, start + len(search)):
            starts.append(start)
        start = text.find(search, start + 1)
    raise Refused(f"the search text {search[:40]!r} stands in too many places; add what is around it")


def _splits_token(text: str, at: int) -> bool:
    """Whether position `at` lies inside a name or number: "x = 1" must not match in "x = 10" or "x = 1.5"."""
    left, right = text[max(at - 2, 0) : at], text[at : at + 2]
    if re.fullmatch(r"\w", left[-1:]) and re.fullmatch(r"\w", right[:1]):
        return True
    before_point = left[-1:].isdigit() and re.fullmatch(r"\.\d", right)
    after_point = re.fullmatch(r"\d\.", left) and right[:1].isdigit()
    return bool(before_point or after_point)


def _plain_quotes(text: str, search: str, replace: str) -> tuple[int, int, str] | None:
    """The one place that equals the search text but for curly quotes or special blanks, and the replacement.

    If the search text has them where the file does not, those of the replacement are the same slip.
    """
    plain = search.translate(PLAIN)
    starts = occurrences(text.translate(PLAIN), plain)
    if len(starts) != 1:
        return None
    end = starts[0] + len(search)
    return starts[0], end, replace.translate(PLAIN) if text[starts[0] : end] == plain else replace


def _reindented(text: str, search: str, replace: str, eol: str) -> list[tuple[int, int, str]]:
    """Places where whole lines equal the block, except for a common shift of indentation or trailing blanks.

    Text with triple quotes is not shifted, because indentation inside a string matters.
    """
    if '"""' in search + replace or "'''" in search + replace:
        return []
    ended = search.endswith(eol)
    wanted = [line.rstrip() for line in search.removesuffix(eol).split("\n")]
    if len(wanted) > MAX_SHIFTED:
        return []
    lines = text.split("\n")
    stripped = [line.rstrip() for line in lines]
    offsets = list(accumulate((len(line) + 1 for line in lines), initial=0))
    found = []
    for first in range(len(lines) - len(wanted) + 1):
        shift = _shift(wanted, stripped[first : first + len(wanted)])
        moved = None if shift is None else _moved(replace, shift, eol)
        if moved is None:
            continue
        last = first + len(wanted) - 1
        end = offsets[last] + len(lines[last].removesuffix("\r"))
        if ended or not replace:
            at_eof = not text.startswith(eol, end)
            end, moved = (end, moved.removesuffix(eol)) if at_eof else (end + len(eol), moved)
        found.append((offsets[first], end, moved))
    return found


def _shift(wanted: list[str], window: list[str]) -> tuple[str, str] | None:
    """(prefix to remove, prefix to add) that turns every wanted line into the window's, if there is one."""
    shift: tuple[str, str] | None = None
    for want, have in zip(wanted, window, strict=True):
        if want.lstrip() != have.lstrip():
            return None
        if not want:
            continue
        old, new = (line[: len(line) - len(line.lstrip())] for line in (want, have))
        if new.endswith(old):
            step = ("", new.removesuffix(old))
        elif old.endswith(new):
            step = (old.removesuffix(new), "")
        else:
            return None
        if shift not in (None, step):
            return None
        shift = step
    return shift


def _moved(replace: str, shift: tuple[str, str], eol: str) -> str | None:
    """The replacement with its indentation shifted, or None where a line is not indented enough."""
    remove, add = shift
    lines = []
    for line in replace.split(eol):
        if not line.strip():
            lines.append("")
        elif not line.startswith(remove):
            return None
        else:
            lines.append(add + line.removeprefix(remove))
    return eol.join(lines)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _ambiguous(text: str, edit: Edit, starts: list[int], number: int) -> str:
    """The refusal that says in which places the text occurs."""
    newlines = [match.start() for match in re.finditer("\n", text)]
    places = ", ".join(str(bisect_right(newlines, start - 1) + 1) for start in starts[:10])
    return (
        f"edit {number}: the search text stands {len(starts)} times in {edit.path} (lines {places}); "
        "add neighbouring lines until it is unique"
    )


def _not_found(text: str, edit: Edit, search: str, number: int) -> str:
    """The refusal that says that the text is missing, and shows the nearest text."""
    hint = ""
    if all(re.match(r"\s*\d+ ?\| ?", line) for line in search.splitlines() if line.strip()):
        hint = " (leave out the line numbers; they are not part of the file)"
    return (
        f"edit {number}: the search text is not in {edit.path}{hint}. It must be copied exactly, and all "
        f"edits refer to the file as shown, before any edit. The nearest text is:\n{nearest(text, search)}"
    )


def nearest(text: str, search: str, around: int = 2) -> str:
    """The lines of `text` most like `search`, numbered, with `around` lines before and after."""
    lines = text.removesuffix("\n").split("\n") if text else []
    wanted = search.strip("\r\n").split("\n")[:NEAREST_LINES]
    words = [_words(line) for line in lines]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2([word for line in wanted for word in _words(line)][:NEAREST_WORDS])
    likely: list[tuple[float, int]] = []
    for first in range(max(len(lines) - len(wanted), 0) + 1):
        matcher.set_seq1(list(chain.from_iterable(words[first : first + len(wanted)]))[:NEAREST_WORDS])
        likely.append((matcher.quick_ratio(), -first))
    best, best_ratio = 0, -1.0
    for _, first in sorted(likely, reverse=True)[:NEAREST_PLACES]:
        matcher.set_seq1(list(chain.from_iterable(words[-first : -first + len(wanted)]))[:NEAREST_WORDS])
        if matcher.ratio() > best_ratio:
            best, best_ratio = -first, matcher.ratio()
    shown = range(max(best - around, 0), min(best + len(wanted) + around, len(lines)))
    return "\n".join(f"{index + 1:4d} | {lines[index].rstrip()[:LINE_WIDTH]}" for index in shown)


def _words(line: str) -> list[str]:
    """Words and signs at the beginning of a line."""
    return re.findall(r"\w+|[^\w\s]", line.strip()[:LINE_WIDTH])
