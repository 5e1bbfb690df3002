"""Puts a streamed answer together, so that it reads like one that came whole.

Long answers are streamed, because proxies and gateways end connections on which nothing moves. A stream is a
row of server-sent events, in the form of the Messages API or in that of OpenAI's chunks. Invariant: a stream
that ends before it is complete is no answer; an error among the events is the answer, as servers also send it
without a stream.

Not covered: the network (`api`), what an answer says (`anthropic`, `openai`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from autoresearch.propose.llm.answer import mapping
from autoresearch.propose.llm.providers.formats import text_of

EVENTS = "text/event-stream"
"""The content type of a stream."""

DONE = "[DONE]"
"""What OpenAI's chunks end with."""

Event = Mapping[str, Any]


def assembled(content: bytes) -> bytes | None:
    """The answer of a stream as one JSON text, or None if it is not complete.

    Args:
        content: The whole stream.
    """
    data = list(_data(content))
    events = [event for text in data if (event := _parsed(text))]
    error = next((event for event in events if event.get("error")), None)
    chunks = any("choices" in event for event in events)
    answer = error or (_completion(events, DONE in data) if chunks else _message(events))
    return None if answer is None else json.dumps(answer).encode()


def _data(content: bytes) -> Iterator[str]:
    """The data of each event."""
    lines: list[str] = []
    for line in [*content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"), ""]:
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def _parsed(text: str) -> Event:
    """The event; empty if it is none."""
    with suppress(ValueError, RecursionError):
        return mapping(json.loads(text))
    return {}


def _message(events: Iterable[Event]) -> dict[str, Any] | None:
    """A message of the Messages API."""
    answer: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    complete = False
    for event in events:
        block = blocks.setdefault(str(event.get("index")), {}) if "index" in event else {}
        match event.get("type"):
            case "message_start":
                answer = dict(mapping(event.get("message")))
            case "content_block_start":
                block |= mapping(event.get("content_block"))
            case "content_block_delta":
                _grow(block, mapping(event.get("delta")), ("text", "thinking", "signature", "partial_json"))
            case "message_delta":
                known = {key: n for key, n in mapping(event.get("usage")).items() if n is not None}
                usage = {**mapping(answer.get("usage")), **known}
                answer |= {**mapping(event.get("delta")), "usage": usage}
            case "message_stop":
                complete = True
    for block in blocks.values():
        if written := block.pop("partial_json", ""):  # of a text that is no JSON somebody else says where
            block["input"] = _parsed(written) or written
    return {**answer, "content": list(blocks.values())} if complete else None


def _completion(events: Iterable[Event], complete: bool) -> dict[str, Any] | None:
    """A completion, from the chunks of its first choice."""
    answer: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant"}
    calls: dict[str, dict[str, Any]] = {}
    finish: object = None
    for event in events:
        answer |= {key: value for key, value in event.items() if key != "choices" and value is not None}
        choices = event.get("choices")
        for choice in map(mapping, choices if isinstance(choices, list) else []):
            if choice.get("index", 0) != 0:
                continue
            finish = choice.get("finish_reason") or finish
            delta = mapping(choice.get("delta") or choice.get("message"))
            _grow(message, delta, ("content", "reasoning_content", "reasoning", "refusal"))
            _add_calls(calls, delta)
    functions = [{"type": "function", "function": function} for function in calls.values()]
    message |= {"tool_calls": functions} if functions else {}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {**answer, "choices": [choice]} if complete or finish else None


def _add_calls(calls: dict[str, dict[str, Any]], delta: Event) -> None:
    """Add the parts of calls that a chunk holds; a server may send each call whole, and without a number."""
    found = delta.get("tool_calls")
    parts = (
        [(mapping(call).get("index"), mapping(call).get("function")) for call in found]
        if isinstance(found, list)
        else []
    )
    for index, part in [*parts, *([("older", delta["function_call"])] if delta.get("function_call") else [])]:
        function = dict(mapping(part))
        if isinstance(function.get("arguments"), Mapping):
            function["arguments"] = json.dumps(function["arguments"])
        key = str(len(calls) if index is None else index)
        _grow(calls.setdefault(key, {}), function, ("name", "arguments"))


def _grow(whole: dict[str, Any], part: Event, keys: Iterable[str]) -> None:
    """Append what a part adds to some texts; of them, the content may be a list of parts."""
    for key in keys:
        added = text_of(part.get(key)) if key == "content" else part.get(key)
        if isinstance(added, str) and added:
            whole[key] = f"{whole.get(key) or ''}{added}"
