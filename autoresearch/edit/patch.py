"""Edits from what people and agents hand in: a changed file, or a unified diff.

Invariant: applying the edits to the old text gives exactly the new text, but for line endings and a newline
at the end, which stay as they are in the file. A patch is applied as a whole or refused with the reason; a
hunk may have moved, but what it removes and what surrounds it must be there once, in the order of the hunks.

Not covered: applying edits (`apply`), and whether the result may be tried (`rules`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from autoresearch.edit.apply import apply, line_ending, with_ending
from autoresearch.edit.hints import nearest
from autoresearch.errors import UserError
from autoresearch.types import Edit, Refused

MAX_CONTEXT = 12
"""Lines of surroundings that an edit may take along to be unique; beyond that the whole file is replaced."""


@dataclass(frozen=True)
class Hunk:
    """One change of a unified diff.

    Attributes:
        line: Where the old lines began, from 1; a hint only.
        old: Lines before, with their surroundings.
        new: The same afterwards.
    """

    line: int
    old: tuple[str, ...]
    new: tuple[str, ...]


def read_patch(path: Path) -> str:
    """The text of a patch that a person hands in.

    Raises:
        UserError: If it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "Give a file made by git diff."
        raise UserError(f"The patch {path} cannot be read: {error}.", hint) from None


def edits_between(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Edit, ...]:
    """Edits that turn the old files into the new ones; small ones where that is exact.

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
        Refused: If it is no diff, touches other files, or does not apply.
    """
    files = _parse(patch)
    if not files:
        raise Refused("the patch holds no change: a unified diff, as `git diff` writes it, is needed")
    new = dict(sources)
    for name, hunks in files.items():
        path = _editable(name, sources)
        new[path] = _patched(path, new[path], hunks)
    if new == dict(sources):
        raise Refused("the patch changes nothing; is it in the script already?")
    return edits_between(sources, new)


def _small_edits(path: str, old: str, new: str) -> list[Edit]:
    """An edit for each changed block, with as many lines around it as make it unique."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    matcher = SequenceMatcher(None, before, after, autojunk=False)
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
    """Whether the edits give the new text to the letter."""
    try:
        return bool(edits) and apply({path: old}, edits)[path] == new
    except Refused:
        return False


def _parse(patch: str) -> dict[str, list[Hunk]]:
    """Hunks by the name of the file, of a unified diff in any of its dialects."""
    files: dict[str, list[Hunk]] = {}
    lines = patch.replace("\r\n", "\n").split("\n")
    name, index = "", 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.startswith("--- ") and index < len(lines) and lines[index].startswith("+++ "):
            name = _file_name(line[4:], lines[index][4:])
            index += 1
            continue
        header = re.match(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@", line)
        if header:
            if not name:
                raise Refused(
                    "the patch does not say which file it changes (lines `---` and `+++` are missing)"
                )
            counts = [1 if count is None else int(count) for count in header.group(2, 3)]
            hunk, index = _hunk(lines, index, int(header[1]), counts)
            files.setdefault(name, []).append(hunk)
    return files


def _hunk(lines: Sequence[str], index: int, line: int, counts: Sequence[int]) -> tuple[Hunk, int]:
    """The hunk whose lines begin at `index`, and where it ends."""
    old: list[str] = []
    new: list[str] = []
    while len(old) < counts[0] or len(new) < counts[1]:
        if index >= len(lines):
            raise Refused(f"the patch is cut off in the hunk at line {line}")
        kind, text = lines[index][:1], lines[index][1:]
        index += 1
        if kind == "\\":
            continue
        if kind not in ("", " ", "-", "+"):
            raise Refused(f"the patch is malformed in the hunk at line {line}: {lines[index - 1][:80]!r}")
        if kind != "+":
            old.append(text)
        if kind != "-":
            new.append(text)
    return Hunk(line, tuple(old), tuple(new)), index


def _file_name(old: str, new: str) -> str:
    """The file that a pair of header lines names; without time stamps and the prefixes of git."""
    names = [name.split("\t")[0].strip().strip('"') for name in (new, old)]
    if names[0] == "/dev/null":
        raise Refused(f"the patch deletes {names[1]}; the script cannot be deleted")
    return re.sub(r"^[abiwco]/", "", names[0])


def _editable(name: str, sources: Mapping[str, str]) -> str:
    """The editable file that a patch means, which may have been made in another folder."""
    if name in sources:
        return name
    found = [path for path in sources if path.endswith(f"/{name}") or name.endswith(f"/{path}")]
    if len(found) == 1:
        return found[0]
    raise Refused(f"the patch changes {name}; only {', '.join(sorted(sources))} may be edited")


def _patched(path: str, text: str, hunks: Sequence[Hunk]) -> str:
    """The text with all hunks applied, each where its old lines stand, nearest to where it says."""
    eol = line_ending(text)
    lines = text.replace("\r\n", "\n").split("\n")
    done, shift = 0, 0
    for hunk in hunks:
        at = _place(path, lines, hunk, done, hunk.line - 1 + shift)
        lines[at : at + len(hunk.old)] = hunk.new
        shift = at + len(hunk.new) - (hunk.line - 1 + len(hunk.old))
        done = at + len(hunk.new)
    return eol.join(lines)


def _place(path: str, lines: Sequence[str], hunk: Hunk, done: int, hint: int) -> int:
    """The line from which the hunk's old lines stand, at or after `done`."""
    size = len(hunk.old)
    if not size:  # nothing but new lines, without surroundings: where it says
        return min(max(hint + 1, done), len(lines))
    wanted = [line.rstrip() for line in hunk.old]
    places = [
        at
        for at in range(done, len(lines) - size + 1)
        if [line.rstrip() for line in lines[at : at + size]] == wanted
    ]
    if not places:
        near = nearest("\n".join(lines), "\n".join(hunk.old))
        raise Refused(
            f"the patch does not apply to {path}: the lines of its hunk at line {hunk.line} are not there. "
            f"The nearest text is:\n{near}"
        )
    return min(places, key=lambda at: abs(at - hint))
