"""Makes edits from a changed file or a unified diff, as people and agents submit them.

Invariant: applying the edits to the old text gives exactly the new text, except for line endings and a
newline at the end, which stay as they are in the file. A patch is applied as a whole or refused with the
reason: one that also renames, copies, creates or deletes a file, changes a mode or holds a binary file is
refused. A hunk may have moved, but its removed and surrounding lines must exist in the file, in the order of
the hunks.

Not covered: applying edits (`apply`), and whether the result may be tried (`rules`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchSet

from autoresearch.edit.apply import MAX_CHARACTERS, MAX_EDITS, apply, line_ending, nearest, with_ending
from autoresearch.errors import Refused, UserError
from autoresearch.types import Edit

MAX_CONTEXT = 12
"""Surrounding lines that an edit may include to be unique; if it needs more, the whole file is replaced."""

EXACT_LINES = 2000
"""Files with more lines are compared by a faster method, which may find larger edits."""

BEYOND_TEXT = re.compile(
    r"^(?:(rename|copy) (?:from|to) |(new|deleted) file mode |(?:old|new) (mode) |GIT (binary) patch"
    r"|(binary) files )",
    re.MULTILINE | re.IGNORECASE,
)
"""What git writes between `diff --git` and the first hunk if more than text changes."""


def read_patch(path: Path) -> str:
    """The text of a person's patch.

    Raises:
        UserError: If it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a file made by git diff."
        raise UserError(f"The patch {path} cannot be read: {error}.", hint) from None


def edits_between(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Edit, ...]:
    """Edits that turn the old files into the new ones; small edits if they give exactly the new text.

    Args:
        old: path -> text.
        new: The same paths.
    """
    edits: list[Edit] = []
    for path in sorted(old):
        text = like(old[path], new[path])
        if text == old[path]:
            continue
        small = _small_edits(path, old[path], text)
        edits += small if _exact(path, old[path], text, small) else [Edit(path, "", text)]
    return tuple(edits)


def like(old: str, new: str) -> str:
    """The new text with the line endings of the old one, and a newline at the end if that had one."""
    eol = line_ending(old)
    text = with_ending(new, eol)
    return text + eol if text and old.endswith(eol) and not text.endswith(eol) else text


def edits_from_patch(patch: str, sources: Mapping[str, str]) -> tuple[Edit, ...]:
    """Edits that do what a unified diff says.

    Args:
        patch: As `git diff` or `diff -u` writes it.
        sources: The editable files: path -> text.

    Raises:
        Refused: If it is not a diff, touches other files, or does not apply.
    """
    return edits_between(sources, patched(patch, sources))


def patched(patch: str, sources: Mapping[str, str]) -> dict[str, str]:
    """The files after a unified diff; see `edits_from_patch`.

    Raises:
        Refused: If it is not a diff, touches other files, or does not apply.
    """
    try:
        if len(patch) > MAX_CHARACTERS:
            raise Refused(f"the patch has more than {MAX_CHARACTERS:,} characters")
        text = patch.replace("\r\n", "\n")
        files = [file for file in PatchSet(text) if file]
    except UnidiffParseError as error:
        raise Refused(
            f"the patch is cut off or malformed: {str(error).strip()[:120]}. It must be a unified diff as "
            "`git diff` writes it, whose lines `---` and `+++` say which file is changed"
        ) from None
    _check_kind(text)
    if not files:
        raise Refused("the patch holds no change: a unified diff, as `git diff` writes it, is needed")
    if sum(map(len, files)) > MAX_EDITS:
        raise Refused(f"the patch has more than {MAX_EDITS} hunks")
    new = dict(sources)
    for file in files:
        path = _editable(file.path.strip('"'), sources)
        if file.is_removed_file:
            raise Refused(f"the patch deletes {path}; the script cannot be deleted")
        if file.is_added_file:
            raise Refused(f"the patch creates {path}, which exists; make it against the script as it is")
        new[path] = _patched(path, new[path], file)
    new = {path: like(sources[path], text) for path, text in new.items()}
    if new == dict(sources):
        raise Refused("the patch changes nothing; is it in the script already?")
    return new


def _check_kind(patch: str) -> None:
    """Refuse a patch that does more than to change lines of files; its parts are not applied without it."""
    begin = re.search(r"^(diff --git |--- )", patch, re.MULTILINE)
    found = BEYOND_TEXT.search(patch, begin.start()) if begin else None
    if found:
        what = next(filter(None, found.groups())).lower()
        does = {
            "rename": "renames a file",
            "copy": "copies a file",
            "new": "creates a file",
            "deleted": "deletes a file",
            "mode": "changes the mode of a file",
        }.get(what, "holds a binary file")
        raise Refused(f"the patch {does}; only lines of the script may change, so none of it is tried")


def _small_edits(path: str, old: str, new: str) -> list[Edit]:
    """An edit for each changed block, with as many lines around it as make it unique."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    matcher = SequenceMatcher(None, before, after, autojunk=max(len(before), len(after)) > EXACT_LINES)
    blocks = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    edits, free = [], 0
    for index, (_, a, b, c, d) in enumerate(blocks):
        limit = blocks[index + 1][1] if index + 1 < len(blocks) else len(before)
        for around in range(1, MAX_CONTEXT + 1):
            first, last = max(a - around, free), min(b + around, limit)
            search = "".join(before[first:last])
            if search and old.count(search) == 1:
                break
        else:
            return []
        replace = "".join([*before[first:a], *after[c:d], *before[b:last]])
        edits.append(Edit(path, search, replace))
        free = last
    return edits


def _exact(path: str, old: str, new: str, edits: Sequence[Edit]) -> bool:
    """Whether the edits give exactly the new text."""
    try:
        return bool(edits) and apply({path: old}, edits)[path] == new
    except Refused:
        return False


def _editable(name: str, sources: Mapping[str, str]) -> str:
    """The editable file that a patch means; the patch may have been made in another folder."""
    if name in sources:
        return name
    found = [path for path in sources if path.endswith(f"/{name}") or name.endswith(f"/{path}")]
    if len(found) == 1:
        return found[0]
    raise Refused(f"the patch changes {name}; only {', '.join(sorted(sources))} may be edited")


def _patched(path: str, text: str, hunks: Iterable[Hunk]) -> str:
    """The text with all hunks applied, each where its old lines stand nearest to its line number."""
    eol = line_ending(text)
    lines = text.replace("\r\n", "\n").split("\n")
    done, shift = 0, 0
    for hunk in hunks:
        old = [line.value.removesuffix("\n") for line in hunk.source_lines()]
        new = [line.value.removesuffix("\n") for line in hunk.target_lines()]
        first = hunk.source_start - 1
        at = _place(lines, old, done, first + shift)
        if at is None:
            near = nearest("\n".join(lines), "\n".join(old))
            raise Refused(
                f"the patch does not apply to {path}: the lines of its hunk at line {hunk.source_start} are "
                f"not there. The nearest text is:\n{near}"
            )
        lines[at : at + len(old)] = new
        shift = at + len(new) - (first + len(old))
        done = at + len(new)
    return eol.join(lines)


def _place(lines: Sequence[str], old: Sequence[str], done: int, hint: int) -> int | None:
    """The line at which a hunk's old lines begin, at or after `done`; None if they are missing."""
    size = len(old)
    if not size:  # a hunk without old lines goes to its line number
        return min(max(hint + 1, done), len(lines))
    wanted, stripped = [line.rstrip() for line in old], [line.rstrip() for line in lines]
    places = [
        at
        for at in range(done, len(lines) - size + 1)
        if stripped[at] == wanted[0] and stripped[at : at + size] == wanted
    ]
    return min(places, key=lambda at: abs(at - hint), default=None)
