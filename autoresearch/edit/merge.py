"""Carrying a change over to another text than it was written for: by what it says, and by git's merge.

Invariant: a change is carried over whole, or refused; never guessed, never in part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autoresearch.edit.apply import apply
from autoresearch.types import Edit, Refused

Merge = Callable[[str, str, str], str | None]
"""Ours, base, theirs -> what becomes of them; None if both have changed the same lines."""


def carry(
    ours: Mapping[str, str],
    base: Mapping[str, str],
    theirs: Mapping[str, str],
    edits: Sequence[Edit],
    merge: Merge,
) -> dict[str, str]:
    """Make a change in other sources than it was made in.

    Args:
        ours: Where it is to be made: path -> text.
        base: Where it was made.
        theirs: What it made of that.
        edits: The change as it was written.
        merge: Three-way merge of a text.

    Raises:
        Refused: If what is different is in its way.
    """
    merged = {path: merge(ours[path], base[path], theirs[path]) for path in ours}
    conflicts = [path for path, text in merged.items() if text is None]
    if not conflicts:
        return {path: text for path, text in merged.items() if text is not None}
    # Git refuses changes of adjacent lines; a passage that is still there, and once, means the same.
    if (written := as_written(ours, edits)) is not None:
        return written
    raise Refused(f"what was kept since changes the same lines of {', '.join(conflicts)}")


def as_written(ours: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str] | None:
    """What edits give on other sources than they were made for, if each still has its one place."""
    if any(not edit.search for edit in edits):
        return None  # a whole file would undo what is different
    try:
        return apply(ours, edits)
    except Refused:
        return None
