"""Makes a candidate from a proposal's edits, once; everything after it gets the same value.

Invariant: edits are applied as a whole or refused, and so is a change that is carried over to another parent.
Nothing is guessed, nothing is applied in part.

Not covered: whether the task allows the result (`Task.validate`), and whether it was tried before (the search
compares fingerprints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import unified_diff

from autoresearch.edit.apply import apply
from autoresearch.edit.python import fingerprint as python_fingerprint
from autoresearch.edit.python import net_lines
from autoresearch.errors import Refused
from autoresearch.types import Candidate, Edit

Merge = Callable[[str, str, str], str | None]
"""Three-way merge of a text: (ours, base, theirs) -> merged text; None if both changed the same lines."""

Fingerprint = Callable[[Mapping[str, str]], str]
"""Sources -> text that is the same for two programs that do the same, as `Task.fingerprint`."""

Growth = Callable[[Mapping[str, str], Mapping[str, str]], int]
"""(Sources before, sources after) -> net lines of code added, as `Task.growth`."""


def make_candidate(
    parent: str,
    sources: Mapping[str, str],
    edits: Sequence[Edit],
    *,
    fingerprint: Fingerprint = python_fingerprint,
    growth: Growth = net_lines,
) -> Candidate:
    """Apply a proposal's edits to its parent.

    Args:
        parent: The commit that is changed.
        sources: Its editable files: path -> text.
        edits: Against these sources.
        fingerprint: The task's, of a program. The default reads Python.
        growth: The task's count of added lines. The default reads Python.

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

    `git apply` accepts it. It differs from what `git diff` prints in two ways: there are no `index` lines,
    and git may choose other lines as unchanged where that is equally short.
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
    """Lines with their ends, as git counts them: only a line feed ends one."""
    *ended, last = text.split("\n")
    return [f"{line}\n" for line in ended] + ([last] if last else [])


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
    # Git refuses changes of adjacent lines. The edits still mean the same where each has its one place.
    if (written := as_written(ours, edits)) is not None:
        return written
    raise Refused(f"what was kept since changes the same lines of {', '.join(conflicts)}")


def carried_edits(
    ours: Mapping[str, str], base: Mapping[str, str], edits: Sequence[Edit], merge: Merge
) -> tuple[Edit, ...]:
    """Edits that make the same change in other sources than they were written for.

    Args:
        ours: The sources they are to apply to: path -> text.
        base: The sources they were written for.
        edits: The change.
        merge: Three-way merge of a text.

    Returns:
        The same edits where they do it as they are, else whole files.

    Raises:
        Refused: If the two sources differ where the change is.
    """
    carried = carry(ours, base, apply(base, edits), edits, merge)
    if carried == as_written(ours, edits):
        return tuple(edits)
    return tuple(Edit(path, "", text) for path, text in carried.items() if text != ours[path])


def as_written(ours: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str] | None:
    """What edits give on other sources than they were written for, if each still has its one place."""
    if any(not edit.search for edit in edits):
        return None  # replacing a whole file would undo what was kept since
    try:
        return apply(ours, edits)
    except Refused:
        return None
