"""Makes a candidate from a proposal's edits, once; all later steps use the same value.

Invariant: edits are applied as a whole or refused, also when a change is carried over to another parent. No
edit is guessed or applied in part.

Not covered: whether the task allows the result (`Task.validate`), and whether it was tried before (the search
compares fingerprints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import unified_diff

from autoresearch.edit.apply import apply
from autoresearch.edit.python import fingerprint as python_fingerprint
from autoresearch.edit.python import net_size
from autoresearch.errors import Refused
from autoresearch.types import Candidate, Edit

Merge = Callable[[str, str, str], str | None]
"""Three-way merge of a text: (ours, base, theirs) -> merged text; None if both changed the same lines."""

Fingerprint = Callable[[Mapping[str, str]], str]
"""Sources -> a text that is equal for two programs that do the same, as `Task.fingerprint`."""

Growth = Callable[[Mapping[str, str], Mapping[str, str]], int]
"""(Sources before, sources after) -> net size added, in lines of usual code, as `Task.growth`."""


def make_candidate(
    parent: str,
    sources: Mapping[str, str],
    edits: Sequence[Edit],
    *,
    fingerprint: Fingerprint = python_fingerprint,
    growth: Growth = net_size,
) -> Candidate:
    """Apply a proposal's edits to its parent.

    Args:
        parent: The commit to change.
        sources: Its editable files: path -> text.
        edits: Edits of these sources.
        fingerprint: The task's fingerprint of a program. The default reads Python.
        growth: The task's measure of added size. The default reads Python.

    Raises:
        Refused: If an edit does not apply as written; the message tells its author why.
    """
    new = apply(sources, edits)
    return Candidate(
        parent=parent,
        sources=new,
        changed={path: text for path, text in new.items() if text != sources[path]},
        fingerprint=fingerprint(new),
        diff=diff(sources, new),
        growth=growth(sources, new),
    )


def diff(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Unified diff between two versions of the same files, in git's format with a/ and b/ before each path.

    `git apply` accepts it. It differs from the output of `git diff` in two ways: it has no `index` lines, and
    git may choose other lines as unchanged where that is equally short.
    """
    parts: list[str] = []
    for path in sorted(old):
        before, after = (_lines(sources[path]) for sources in (old, new))
        if before != after:
            parts.append(f"diff --git a/{path} b/{path}\n")
        for line in unified_diff(before, after, f"a/{path}", f"b/{path}"):
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def _lines(text: str) -> list[str]:
    """Lines with their ends, as git counts them: only a line feed ends a line."""
    *ended, last = text.split("\n")
    return [f"{line}\n" for line in ended] + ([last] if last else [])


def carry(
    ours: Mapping[str, str],
    base: Mapping[str, str],
    theirs: Mapping[str, str],
    edits: Sequence[Edit],
    merge: Merge,
) -> dict[str, str]:
    """Apply a change to sources other than those it was made for.

    Args:
        ours: The sources to change: path -> text.
        base: The sources that the change was made for.
        theirs: Those sources with the change.
        edits: The change as it was written.
        merge: Three-way merge of a text, such as `Repository.merge`.

    Returns:
        path -> new text, for every path in `ours`.

    Raises:
        Refused: If the two sources differ where the change is.
    """
    merged = {path: merge(ours[path], base[path], theirs[path]) for path in ours}
    conflicts = [path for path, text in merged.items() if text is None]
    if not conflicts:
        return {path: text for path, text in merged.items() if text is not None}
    # Git refuses changes of adjacent lines. The edits are still clear if each has exactly one place.
    if (written := as_written(ours, edits)) is not None:
        return written
    raise Refused(f"a change that was kept since edits the same lines of {', '.join(conflicts)}")


def carried_edits(
    ours: Mapping[str, str], base: Mapping[str, str], edits: Sequence[Edit], merge: Merge
) -> tuple[Edit, ...]:
    """Edits that make the same change in sources other than those they were written for.

    Args:
        ours: The sources to change: path -> text.
        base: The sources that the edits were written for.
        edits: The change.
        merge: Three-way merge of a text.

    Returns:
        The same edits if they make the change, else whole files.

    Raises:
        Refused: If the two sources differ where the change is.
    """
    carried = carry(ours, base, apply(base, edits), edits, merge)
    if carried == as_written(ours, edits):
        return tuple(edits)
    return tuple(Edit(path, "", text) for path, text in carried.items() if text != ours[path])


def as_written(ours: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str] | None:
    """The result of edits on other sources, if each edit has exactly one place there; else None."""
    if any(not edit.search for edit in edits):
        return None  # replacing a whole file would undo changes that were kept since
    try:
        return apply(ours, edits)
    except Refused:
        return None
