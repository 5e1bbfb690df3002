"""Finds the proposal in the forms in which models and servers send one.

The form that is asked for is a tool call, or one JSON object in a fenced block. What comes is also a call
written into the text, arguments or edits that are JSON within JSON, a text in parts, a draft and then a
better version, or edits between the marks SEARCH and REPLACE. Invariant: of several proposals the last one
counts, and only if it is complete; nothing of it is guessed. What cannot be read is refused with what is
wrong and where.

Not covered: the fields of a proposal (`answer`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from autoresearch.errors import Refused
from autoresearch.propose.agent_folder import read_hypothesis
from autoresearch.text import one_line
from autoresearch.types import Edit

MAX_OBJECTS = 200
"""So many braces of a text are tried as the beginning of an object."""

MAX_PACKED = 3
"""A value may be JSON within JSON within JSON."""

_BLOCK = re.compile(
    r"^<{5,9} ?SEARCH *\n(?P<search>.*?)^={5,9} *\n(?P<replace>.*?)^>{5,9} ?REPLACE *$",
    re.MULTILINE | re.DOTALL,
)
_LIKE_JSON = re.compile(r"\{\s*\"")
_FENCE = re.compile(r"^`{3,}\w*$")


def text_of(content: object) -> str:
    """The text of a message, which may come as one text or as a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def unpacked(value: object, what: str) -> object:
    """A value that may be JSON in a text, once or several times.

    Raises:
        Refused: If it is a text that is no JSON; says where.
    """
    for _ in range(MAX_PACKED):
        if not isinstance(value, str):
            break
        try:
            value = json.JSONDecoder(strict=False).decode(value.strip())
        except RecursionError:
            raise Refused(f"{what} is nested too deeply") from None
        except ValueError as error:
            raise Refused(f"{what} is no JSON: {_where(error, str(value))}") from None
    return value


def proposal_in(text: str) -> Mapping[str, Any] | None:
    """The last proposal in a text; None if there is none.

    Raises:
        Refused: If the last one is not complete, or cannot be read.
    """
    text = text.rpartition("</think>")[2]
    found, problem = _last_object(text)
    blocks = list(_BLOCK.finditer(text))
    if blocks and found is None:
        return _from_blocks(text, blocks)
    if problem:
        raise Refused(problem)
    return found


def _last_object(text: str) -> tuple[Mapping[str, Any] | None, str]:
    """The last object that is a proposal, and what is wrong with a later one."""
    found: Mapping[str, Any] | None = None
    problem, at = "", 0
    for _ in range(MAX_OBJECTS):
        start = text.find("{", at)
        if start < 0:
            break
        try:
            value, at = json.JSONDecoder(strict=False).raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            at = start + 1
            rest = text[start:]
            if _LIKE_JSON.match(rest) and ('"edits"' in rest or '"hypothesis"' in rest) and not problem:
                problem = f"the JSON of the answer cannot be read: {_where(error, text)}"
            continue
        if inner := _proposal(value):
            found, problem = inner, ""
    return found, problem


def _proposal(value: object) -> Mapping[str, Any] | None:
    """The value, or the arguments of the call that it is, if that is a proposal."""
    if not isinstance(value, Mapping):
        return None
    for inner in (value, *(value.get(name) for name in ("arguments", "parameters", "input"))):
        if isinstance(inner, str):
            try:
                inner = unpacked(inner, "")
            except Refused:
                continue
        if isinstance(inner, Mapping) and {"edits", "hypothesis"} & inner.keys():
            return inner
    return None


def _from_blocks(text: str, blocks: list[re.Match[str]]) -> Mapping[str, Any]:
    """Edits between SEARCH and REPLACE, each below its file's path; the other lines are the hypothesis."""
    edits, prose, path, end = [], [], "", 0
    for block in blocks:
        before = [line for line in text[end : block.start()].splitlines() if line.strip()]
        before = [line for line in before if not _FENCE.match(line.strip())]
        named = before[-1].strip().strip("`*#: ") if before else ""
        if named and not re.search(r"\s", named) and re.search(r"[./]", named):
            path = named
            before.pop()
        prose += before
        end = block.end()
        edits.append(Edit(path, _whole(block["search"]), _whole(block["replace"])))
    prose += [line for line in text[end:].splitlines() if line.strip() and not _FENCE.match(line.strip())]
    return read_hypothesis("\n".join(prose), tuple(edits))


def _whole(lines: str) -> str:
    """Lines without the last line break, which belongs to the mark below them."""
    return lines.removesuffix("\n")


def _where(error: Exception, text: str) -> str:
    """What is wrong with a JSON text, and where."""
    if not isinstance(error, json.JSONDecodeError):
        return "it is nested too deeply"
    near = one_line(text[max(error.pos - 20, 0) : error.pos + 20], 60)
    return f"{error.msg.lower()} at line {error.lineno}, column {error.colno}, near {near!r}"
