"""Answers of a model that are no proposal: every way in which the Messages API, its SDK, the tool call, its
fields, the edits and the candidate can be wrong.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import messages_server as api
from tests.support.messages_server import Behaviour


def full(path: str, search: str, replace: str) -> dict[str, Any]:
    """The input of a good tool call."""
    edit = {"path": path, "search": search, "replace": replace}
    return {
        "hypothesis": "h", "mechanism": "m", "category": "optimizer", "expected_effect": 0.1,
        "confidence": 0.5, "risk": "r", "edits": [edit],
    }  # fmt: skip


def unusable(path: str, search: str, replace: str, twice: str) -> list[Behaviour]:
    """One of each kind.

    Args:
        path: Of the script.
        search: A number that stands in it once, and means the same with a 0 appended.
        replace: What may stand there.
        twice: What stands in it more than once.
    """
    good = full(path, search, replace)
    edit = good["edits"][0]

    def call(**fields: object) -> Behaviour:
        return api.tool_call({**good, **fields})

    def edits(**fields: object) -> Behaviour:
        return call(edits=[{**edit, **fields}])

    bodies = (b"", b"null", b"[]", b"{}", b"17", b'"x"', b"{oops", b'{"content": [', b"\xff\xfe\x00")
    worse = (b"[" * 5000, b'{"type": "message", "content": 3}')
    contents = (None, "text", [], [None], [3], [[]], [{}], {"type": "tool_use"})
    return [
        *(api.garbage(body) for body in (*bodies, *worse)),
        api.garbage(b"<html>captive portal</html>", "text/html"),
        *(api.message(content) for content in contents),
        *(api.message([{"type": kind}]) for kind in ("tool_use", "text", "thinking", "wat", None, 7)),
        *(api.tool_call(value) for value in (None, "x", 3, [], {}, [good], True)),
        *(api.tool_call({k: v for k, v in good.items() if k != name}) for name in ("hypothesis", "edits")),
        *(call(hypothesis=value) for value in (None, "", "  \n", 3, ["h"])),
        *(call(edits=value) for value in (None, [], {}, "x", "[]", [None], [[]], [{}], [edit, 3])),
        *(edits(**{name: value}) for name in edit for value in (None, 3, ["x"])),
        edits(replace="\ud800"),
        edits(path="score.py"),
        edits(path=f"../{path}"),
        edits(search="not there"),
        edits(search=twice),
        call(edits=[edit, edit]),
        call(edits=[edit, {**edit, "search": "not there"}]),
        edits(replace=f"{search}0"),
        edits(replace=f"{search}  # why"),
        edits(replace="(((("),
        edits(replace="no_such_name"),
        edits(search="", replace=""),
        api.tool_call(good, name="another_tool"),
        *(api.tool_call(good, name=name) for name in (None, ["propose"], 7)),
        api.tool_call(good, stop_reason="max_tokens"),
        api.text("Here is my idea: ..."),
        api.text(""),
        api.text("\ud800 surrogate"),
        api.message([], "pause_turn"),
        api.message([], None),
        api.message([], "end_turn", usage=None),
        api.message([], "end_turn", usage={"input_tokens": "many", "output_tokens": -5}),
    ]


def cut_off(path: str, search: str, replace: str, count: int) -> list[Behaviour]:
    """A good answer whose connection ends early, at so many places."""
    call = {"type": "tool_use", "id": "t", "name": "propose", "input": full(path, search, replace)}
    usage = {"input_tokens": 9, "output_tokens": 9}
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [call],
        "stop_reason": "tool_use",
        "usage": usage,
    }
    body = json.dumps(answer).encode()
    return [api.garbage(body[: len(body) * place // (count + 1)]) for place in range(1, count + 1)]


def few_by_default(answers: Sequence[Any]) -> list[Any]:
    """Parameters of a test: every tenth answer by default, the others as soak tests."""
    soak = pytest.mark.soak
    return [pytest.param(a, marks=[soak] if n % 10 else [], id=str(n)) for n, a in enumerate(answers)]
