"""A scripted OpenAI-compatible server over real HTTP, with the behaviours of the scripted Messages API.

with ChatServer([answer(...), api.error(429)]) as server:
    proposer = create_proposer("openai", base_url=server.url, ...)
"""

import json
from collections.abc import Sequence
from typing import Any

from tests.support.messages_server import Behaviour, MessagesServer, pieces


class ChatServer(MessagesServer):
    """Serves `POST /v1/chat/completions`."""

    path = "/v1/chat/completions"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url += "/v1"

    def usage(self, request: dict[str, Any]) -> dict[str, Any]:
        size = len(json.dumps(request["messages"])) // 4
        return {
            "prompt_tokens": size,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": size // 2},
        }

    def rows(self, answer: dict[str, Any]) -> Sequence[object] | None:
        return completion_events(answer)


def completion_events(answer: dict[str, Any], size: int = 7) -> list[object] | None:
    """The chunks of a completion, as servers stream it; None if it has another form."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict) or set(message) - {"role", "content", "tool_calls", "reasoning_content"}:
        return None
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for key in ("reasoning_content", "content"):
        if not isinstance(message.get(key), str | None):
            return None
        deltas += [{key: part} for part in pieces(message.get(key) or "", size)]
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
            return None
        deltas.append({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
        for part in pieces(function["arguments"], size):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    rest = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    rows: list[object] = [
        {**rest, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas
    ]
    rows.append({**rest, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return [*rows, {**rest, "choices": [], "usage": answer.get("usage")}, "[DONE]"]


def completion(message: object, finish_reason: object = "stop", **fields: object) -> Behaviour:
    """A well-formed answer around any message."""

    def body(usage: dict[str, Any]) -> bytes:
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        answer = {"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        return json.dumps({**answer, **fields}).encode()

    return Behaviour(body=body)


def call(arguments: object, name: object = "propose", **fields: object) -> Behaviour:
    """An answer that calls the tool; the arguments are a JSON text unless they are a text already."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": name, "arguments": text}
    tool_call = {"id": "call_1", "type": "function", "function": function}
    return completion(
        {"role": "assistant", "content": None, "tool_calls": [tool_call]}, "tool_calls", **fields
    )


def words(text: str, finish_reason: str = "stop") -> Behaviour:
    """An answer in words."""
    return completion({"role": "assistant", "content": text}, finish_reason)


def proposal(search: str, replace: str, path: str = "train.py", **fields: object) -> dict[str, Any]:
    """A good proposal as an object."""
    return {
        "hypothesis": f"{search} becomes {replace}", "mechanism": "It should.", "category": "optimizer",
        "expected_effect": 0.01, "confidence": 0.4, "risk": "It may diverge.",
        "edits": [{"path": path, "search": search, "replace": replace}], **fields,
    }  # fmt: skip
