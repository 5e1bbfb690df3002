"""Reads the named knobs at the top of a training script with their search spaces, and sets them by edits.

A knob is a module-level assignment of a literal on one line whose comment is its search space:

    DEPTH = at(3, 8)            # 2..6          integers from 2 to 6
    MATRIX_LR = at(0.02, 0.01)  # x4            value/4 to value*4, logarithmic
    WARMUP = 0.0                # 0..0.2        linear
    WIDTH = 128                 # 64..256 log
    ACTIVATION = "relu2"        # relu2 | gelu | swiglu
    TIE = False                 # True | False

`at(cpu, gpu)` holds one value for each kind of device; only the active column is read and set. Words after a
`;` are a remark. Invariant: the script is parsed, never executed, and `set_knobs` changes only literals. A
space that does not include the current value is widened. A comment that gives no space of finite numbers, or
fewer than two options, is only a comment.

Not covered: which values to try (see `autoresearch.propose`).
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoresearch.edit.apply import occurrences
from autoresearch.edit.python import ALONE, parse
from autoresearch.types import Edit
from autoresearch.types import Knob as Value

DIGITS = 3
"""Significant digits of a tuned number; finer steps would have no effect beyond the noise."""

MAX_OPTIONS = 100
"""A comment with more options than this is no search space."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def unit(self, value: Value) -> float:
        """Position of a value in [0, 1]; a value outside the range counts as the nearer end."""
        inside = min(max(float(value), self.low), self.high)
        low, high = self._scale(self.low), self._scale(self.high)
        return (self._scale(inside) - low) / (high - low)

    def value(self, unit: float) -> Value:
        """The value at a position in [0, 1], rounded as it is written into the script."""
        low, high = self._scale(self.low), self._scale(self.high)
        raw = low + min(max(unit, 0.0), 1.0) * (high - low)
        number = math.exp(raw) if self.log else raw
        short = rounded(number) if self.log else round(number, self._decimals())
        inside = min(max(short, self.low), self.high)
        return round(inside) if self.integer else inside

    def _decimals(self) -> int:
        """Decimals of a linear range: steps of at most a hundredth of it."""
        return max(0, math.ceil(-math.log10((self.high - self.low) / 100)))

    def _scale(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclass(frozen=True)
class Choice:
    """One of a few values without an order."""

    options: tuple[Value, ...]


Space = Range | Choice


@dataclass(frozen=True)
class Knob:
    """A named constant of the script that may be tuned.

    Attributes:
        name: Name of the variable.
        value: Current value, in the active column.
        space: Its search space.
        line: Line number, from 1.
        declared: The words of its space, as they stand in the comment.
    """

    name: str
    value: Value
    space: Space
    line: int
    declared: str = ""


def read_knobs(source: str, column: int, named: Collection[str] = ()) -> list[Knob]:
    """Every knob of a script, in order.

    Args:
        source: Text of the script.
        column: Which argument of `at(cpu, gpu)` counts: 0 for CPU, 1 for GPU.
        named: Constants that are knobs even if their comment gives no space: a positive number from a quarter
            to four times its value, `True` or `False`.

    Raises:
        SyntaxError: If the script cannot be parsed.
    """
    constants, comments = _constants(source, column), _comments(source)
    knobs = []
    for name, node in constants.items():
        value = ast.literal_eval(node)
        _, comment = comments.get(node.lineno, (0, ""))
        if space := space_of(comment, value, name in named):
            knobs.append(Knob(name, value, space, node.lineno, declared(comment)))
    return knobs


def space_of(comment: str, value: Value, named: bool = False) -> Space | None:
    """The space that a comment describes; None if it describes none that can be computed with.

    Args:
        comment: Without the signs that end it.
        value: The current value, which the space will hold.
        named: Whether the usual space is meant if the comment gives none.
    """
    try:
        space = _space(comment, value) or (_usual(value) if named else None)
        return space if space is not None and _usable(space) else None
    except (ValueError, OverflowError, ZeroDivisionError):  # infinite, or too large or too small
        return None


def declared(comment: str) -> str:
    """The part of a comment that gives the space, without its sign and the remark."""
    return comment.lstrip("#").partition(";")[0].strip()


def read_values(source: str, column: int) -> dict[str, Value]:
    """Every constant that `set_knobs` could set, tuned or not: name -> value in the active column.

    Raises:
        SyntaxError: If the script cannot be parsed.
    """
    return {name: ast.literal_eval(node) for name, node in _constants(source, column).items()}


def set_knobs(path: str, source: str, values: Mapping[str, Value], column: int) -> tuple[Edit, ...]:
    """Edits that set knobs of a script, one edit for each changed line.

    Args:
        path: Path of the script, for the edits.
        source: Its text.
        values: name -> new value. A name that the script does not have, or that already has the value, is
            skipped.
        column: Which argument of `at(cpu, gpu)` is set.
    """
    constants, comments = _constants(source, column), _comments(source)
    lines = source.replace("\r\n", "\n").split("\n")
    edits = []
    for name, value in values.items():
        node = constants.get(name)
        if node is None or same(ast.literal_eval(node), value):
            continue
        number = node.lineno - 1
        new = _replaced(lines, node, value, {line: column for line, (column, _) in comments.items()})
        first, last = unique_block(lines, number)
        after = [*lines[first:number], new, *lines[number + 1 : last + 1]]
        edits.append(Edit(path, "\n".join(lines[first : last + 1]), "\n".join(after)))
    return tuple(edits)


def same(a: object, b: object) -> bool:
    """Whether two values are the same text in the script: 1, 1.0 and True differ."""
    return type(a) is type(b) and a == b


def rounded(value: float) -> float:
    """A number with three significant digits, so that the tried value equals the written one."""
    return float(f"{value:.{DIGITS}g}")


def literal(value: Value) -> str:
    """The shortest usual spelling of a value: 0.0213, 0.004, 3e-4, 12, "gelu"."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # a JSON string is a Python string in double quotes
    if isinstance(value, bool | int):
        return repr(value)
    plain = repr(value)
    mantissa, _, exponent = f"{value:e}".partition("e")
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    usual = -4 < int(exponent) < 6
    return plain if usual or len(short) >= len(plain) or float(short) != value else short


def _constants(source: str, column: int) -> dict[str, ast.expr]:
    """Name -> node of the literal in the active column, for one-line constants assigned exactly once."""
    found: dict[str, ast.expr] = {}
    often = set()
    for statement in parse(source).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, node = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, node = statement.target, statement.value
        else:
            continue
        if not isinstance(target, ast.Name) or statement.lineno != statement.end_lineno:
            continue
        if target.id in found:
            often.add(target.id)
        node = _active(node, column)
        if _is_literal(node):
            found[target.id] = node
    return {name: node for name, node in found.items() if name not in often}


def _active(node: ast.expr, column: int) -> ast.expr:
    """The argument of `at(cpu, gpu)` that counts; any other expression is itself."""
    if isinstance(node, ast.Call) and len(node.args) == 2 and not node.keywords:
        return node.args[column] if ast.unparse(node.func) == "at" else node
    return node


def _is_literal(node: ast.expr) -> bool:
    try:
        return isinstance(ast.literal_eval(node), int | float | str | bool)
    except (ValueError, TypeError):
        return False


def _comments(source: str) -> dict[int, tuple[int, str]]:
    """Line number -> (column in characters, text) of its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: (t.start[1], t.string) for t in tokens if t.type == tokenize.COMMENT}


def _space(comment: str, value: Value) -> Space | None:
    """The space that a comment describes, or None if it describes none."""
    text = declared(comment)
    if "|" in text:
        options: list[Value] = []
        for option in (_word(word.strip()) for word in text.split("|")):
            if not any(same(option, known) for known in options):
                options.append(option)
        return Choice(tuple(options if any(same(value, o) for o in options) else (value, *options)))
    if isinstance(value, str | bool):
        return None
    if match := re.fullmatch(rf"x\s*({NUMBER})", text):
        return _factor(value, float(match[1]))
    if match := re.fullmatch(rf"({NUMBER})\s*\.\.\s*({NUMBER})(\s+log)?", text):
        low, high = (min(float(match[1]), value), max(float(match[2]), value))
        integer = isinstance(value, int) and all(re.fullmatch(r"[-+]?\d+", match[i]) for i in (1, 2))
        if low < high and (low > 0 or not match[3]):
            return Range(low, high, log=bool(match[3]), integer=integer)
    return None


def _usual(value: Value) -> Space | None:
    """The space of a constant about which nothing is said."""
    if isinstance(value, bool):
        return Choice((False, True))
    return None if isinstance(value, str) else _factor(value, 4.0)


def _usable(space: Space) -> bool:
    """Whether a tuner can compute with the space.

    Raises:
        ValueError, OverflowError, ZeroDivisionError: If it cannot, too.
    """
    if isinstance(space, Choice):
        numbers = [option for option in space.options if isinstance(option, float)]
        return 2 <= len(space.options) <= MAX_OPTIONS and all(map(math.isfinite, numbers))
    there_and_back = [space.unit(space.value(at)) for at in (0.0, 0.5, 1.0)]
    return all(map(math.isfinite, there_and_back)) and there_and_back[0] < there_and_back[2]


def _factor(value: float, factor: float) -> Range | None:
    """value/factor to value*factor, logarithmic."""
    if value <= 0 or factor <= 1:
        return None
    if isinstance(value, int):
        low, high = max(1, math.ceil(value / factor)), math.floor(value * factor)
        return Range(low, high, log=True, integer=True) if low < high else None
    return Range(rounded(value / factor), rounded(value * factor), log=True)


def _word(text: str) -> Value:
    """An option of a choice: a Python literal, or else a bare word, which is a string."""
    try:
        with ALONE:
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | str | bool) else text


def _replaced(lines: list[str], node: ast.expr, value: Value, comments: Mapping[int, int]) -> str:
    """The line of a literal with another value, laid out as the file is.

    A text keeps the kind of its quotes. A comment keeps its column if the comments around it stand in
    columns, where there is room; otherwise it keeps its distance.

    Args:
        lines: The script.
        node: The literal.
        value: The new value.
        comments: Line number -> column of its comment.
    """
    line, new, comment = lines[node.lineno - 1], literal(value), comments.get(node.lineno)
    data = line.encode()  # ast counts columns in UTF-8 bytes
    before, rest = data[: node.col_offset].decode(), data[node.end_col_offset :].decode()
    old = data[node.col_offset : node.end_col_offset].decode()
    if isinstance(value, str) and old.startswith("'") and not {"'", '"', "\\"} & set(value):
        new = f"'{value}'"
    if comment is None:
        return before + new + rest
    remark = line[comment:]
    code = before + new + rest.removesuffix(remark).rstrip()
    gap = _gap(lines, node.lineno, comment)
    if _in_columns(lines, node.lineno, comments):
        gap = max(2, comment - len(code))
    return code + " " * gap + remark


def _gap(lines: list[str], number: int, comment: int) -> int:
    """Blanks before the comment of a line, the number of which counts from 1."""
    code = lines[number - 1][:comment]
    return len(code) - len(code.rstrip())


def _in_columns(lines: list[str], number: int, comments: Mapping[int, int]) -> bool:
    """Whether the comments in the block of lines with comments around a line are aligned with blanks."""
    first = last = number
    while first - 1 in comments:
        first -= 1
    while last + 1 in comments:
        last += 1
    return any(_gap(lines, line, comments[line]) > 2 for line in range(first, last + 1))


def unique_block(lines: list[str], number: int) -> tuple[int, int]:
    """First and last line of the smallest block around a line whose text occurs only once."""
    text = "\n".join(lines)
    first = last = number
    while len(occurrences(text, "\n".join(lines[first : last + 1]))) > 1:
        first, last = max(first - 1, 0), min(last + 1, len(lines) - 1)
    return first, last
