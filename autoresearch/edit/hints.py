"""What the author of an edit that does not apply is told: where its text stands, or what comes nearest."""

from __future__ import annotations

import re
from bisect import bisect_right
from difflib import SequenceMatcher

from autoresearch.types import Edit

NEAREST_LINES = 60
"""A longer search block is compared by its first lines only when the nearest text is looked for."""


def ambiguous(text: str, edit: Edit, starts: list[int], number: int) -> str:
    """Say that the text stands in several places, and where."""
    newlines = [match.start() for match in re.finditer("\n", text)]
    places = ", ".join(str(bisect_right(newlines, start - 1) + 1) for start in starts[:10])
    return (
        f"edit {number}: the search text stands {len(starts)} times in {edit.path} (lines {places}); "
        "add neighbouring lines until it is unique"
    )


def not_found(text: str, edit: Edit, search: str, number: int) -> str:
    """Say that the text is not there, and show what comes nearest."""
    hint = ""
    if all(re.match(r"\s*\d+ ?\| ?", line) for line in search.splitlines() if line.strip()):
        hint = " (leave out the line numbers; they are not part of the file)"
    return (
        f"edit {number}: the search text is not in {edit.path}{hint}. It must be copied exactly, and all "
        f"edits refer to the file as shown, before any edit. The nearest text is:\n{nearest(text, search)}"
    )


def nearest(text: str, search: str, around: int = 2) -> str:
    """The lines of `text` most like `search`, numbered, with `around` lines before and after."""
    lines, wanted = text.splitlines(), search.strip("\r\n").splitlines()[:NEAREST_LINES]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2("\n".join(line.strip() for line in wanted))
    best, best_ratio = 0, -1.0
    for first in range(max(len(lines) - len(wanted), 0) + 1):
        matcher.set_seq1("\n".join(line.strip() for line in lines[first : first + len(wanted)]))
        if matcher.real_quick_ratio() > best_ratio and matcher.quick_ratio() > best_ratio:
            ratio = matcher.ratio()
            if ratio > best_ratio:
                best, best_ratio = first, ratio
    shown = range(max(best - around, 0), min(best + len(wanted) + around, len(lines)))
    return "\n".join(f"{index + 1:4d} | {lines[index]}" for index in shown)
