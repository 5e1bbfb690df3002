"""A scripted OpenAI-compatible server over real HTTP, with the behaviours of the scripted Messages API.

with ChatServer([answer(...), api.error(429)]) as server:
    proposer = create_proposer("openai", base_url=server.url, ...)
"""

import json
from typing import Any

from tests.support.messages_server import Behaviour, MessagesServer


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
