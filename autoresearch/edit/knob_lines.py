"""Knobs of a file in any language, found by its path; nothing is executed.

Python is parsed (`knobs`). In any other text a knob is a line of one of these forms, with its space after it:

    learning_rate: 0.02        # x4
    #define WIDTH 128          // 64..256 log
    const float decay = 0.1f;  // 0..0.3
    activation = gelu          ; relu | gelu

A value is a number, a quoted text, `true` or `false`, or a bare word that is one of the options. Invariant: a
name that stands on the left of two such lines of a file is no knob of it, since it would not be clear which
one is meant; setting a knob changes the value alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoresearch.edit.knobs import (
    Choice,
    Knob,
    declared,
    literal,
    read_knobs,
    read_values,
    same,
    set_knobs,
    space_of,
    unique_block,
)
from autoresearch.types import Edit
from autoresearch.types import Knob as Value

LINE = re.compile(
    r"""^(?P<before>\s*(?:\#\s*define\s+|(?:[\w:<>*&]+\s+)*?)["']?(?P<name>[A-Za-z_][\w.-]*)["']?(?:\s*(?::=|=|:)\s*|\s+))
    (?P<value>"[^"\\]*"|'[^'\\]*'|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[A-Za-z_]\w*)
    (?P<after>[fFlLuU]?\s*[;,]?)
    (?:\s+(?P<sign>\#|//|--|;|/\*|%|!)(?P<comment>.*))?\s*$""",
    re.VERBOSE,
)
LONGEST = 300
"""Characters of a line that is read; matching takes up to their square."""

TRUE_OR_FALSE = {"true": True, "false": False}


@dataclass(frozen=True)
class _Line:
    """One line that gives a name a value.

    Attributes:
        name: The name.
        text: The value as it is written.
        value: The value.
        begin: Column of `text`.
        comment: Of the line, without its sign.
        number: Of the line, from 0.
    """

    name: str
    text: str
    value: Value
    begin: int
    comment: str
    number: int


def knobs_in(path: str, source: str, column: int, named: Collection[str] = ()) -> list[Knob]:
    """Every knob of a file, in order; see `knobs.read_knobs`.

    Raises:
        SyntaxError: If it is Python that cannot be parsed.
    """
    if path.endswith(".py"):
        return read_knobs(source, column, named)
    found = []
    for line in _lines(source):
        space = space_of(line.comment, line.value, line.name in named)
        bare = line.text[0] not in "\"'" and isinstance(line.value, str)
        if space is not None and not (bare and not isinstance(space, Choice)):
            found.append(Knob(line.name, line.value, space, line.number + 1, declared(line.comment)))
    return found


def values_in(path: str, source: str, column: int) -> dict[str, Value]:
    """Every constant that `set_in` could set: name -> value.

    Raises:
        SyntaxError: If it is Python that cannot be parsed.
    """
    if path.endswith(".py"):
        return read_values(source, column)
    return {line.name: line.value for line in _lines(source)}


def set_in(path: str, source: str, values: Mapping[str, Value], column: int) -> tuple[Edit, ...]:
    """Edits that set knobs of a file; see `knobs.set_knobs`."""
    if path.endswith(".py"):
        return set_knobs(path, source, values, column)
    known, lines, edits = {line.name: line for line in _lines(source)}, source.split("\n"), []
    for name, value in values.items():
        line = known.get(name)
        if line is None or same(line.value, value):
            continue
        old = lines[line.number]
        new = old[: line.begin] + _written(line, value) + old[line.begin + len(line.text) :]
        first, last = unique_block(lines, line.number)
        after = [*lines[first : line.number], new, *lines[line.number + 1 : last + 1]]
        edits.append(Edit(path, "\n".join(lines[first : last + 1]), "\n".join(after)))
    return tuple(edits)


def _lines(source: str) -> list[_Line]:
    """The lines that give a value to a name that no other line does."""
    found = []
    for number, line in enumerate(source.split("\n")):
        if len(line) <= LONGEST and (match := LINE.match(line)):
            text = match["value"]
            comment = (match["comment"] or "").strip().removesuffix("*/").strip()
            value = _value(text)
            found.append(_Line(match["name"], text, value, match.start("value"), comment, number))
    often = Counter(line.name for line in found)
    return [line for line in found if often[line.name] == 1]


def _value(text: str) -> Value:
    """The value that a text stands for."""
    if text[0] in "\"'":
        return text[1:-1]
    if text.lower() in TRUE_OR_FALSE:
        return TRUE_OR_FALSE[text.lower()]
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _written(line: _Line, value: Value) -> str:
    """A value as the line would have it: a text keeps its quotes, and `true` its case."""
    if isinstance(value, str):
        return line.text[0] + value + line.text[0] if line.text[0] in "\"'" else value
    if isinstance(value, bool):
        return literal(value) if line.text[0].isupper() else literal(value).lower()
    return literal(value)
