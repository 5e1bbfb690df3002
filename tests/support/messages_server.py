"""A scripted Messages API over real HTTP, for the real SDK: what to answer is a list of behaviours.

    with MessagesServer([tool_call(...), error(529), garbage(b"<html>")]) as server:
        proposer = AnthropicProposer(base_url=server.url, ...)

Every request uses up one behaviour; when the list is empty, `default` answers, or else an error 500.
Usage is counted as the real service would: a prefix that ends at a cache breakpoint is written once and read
afterwards. Requests are kept in `requests`, for tests to look at. Who asks for a stream gets one, if the
answer has a form that can be streamed.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Behaviour:
    """What to do with one request: wait, then send a status, headers and a body, or hang up (status 0).

    With `pace`, so many seconds pass between two bytes, also of the headers if `slow_headers`.
    """

    status: int = 200
    body: bytes | Callable[[dict[str, Any]], bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    wait: float = 0.0
    pace: float = 0.0
    slow_headers: bool = False
    times: int = 1


def message(content: object, stop_reason: object = "tool_use", **fields: object) -> Behaviour:
    """A well-formed answer around any content; `fields` replace or add top-level fields."""

    def body(usage: dict[str, Any]) -> bytes:
        answer = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": content,
            "stop_reason": stop_reason, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        return json.dumps({**answer, **fields}).encode()

    return Behaviour(body=body)


def tool_call(tool_input: object, name: object = "propose", **fields: object) -> Behaviour:
    """An answer that thinks a little and calls the tool."""
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    call = {"type": "tool_use", "id": "toolu_1", "name": name, "input": tool_input}
    return message([thought, call], **fields)


def proposal(search: str, replace: str, path: str = "train.py", **fields: object) -> Behaviour:
    """A good tool call with one edit."""
    answer = {
        "hypothesis": f"{search} becomes {replace}", "mechanism": "It should.", "category": "optimizer",
        "expected_effect": 0.01, "confidence": 0.4, "risk": "It may diverge.",
        "edits": [{"path": path, "search": search, "replace": replace}],
    }  # fmt: skip
    return tool_call({**answer, **fields})


def text(words: str, stop_reason: str = "end_turn") -> Behaviour:
    """An answer in prose alone."""
    return message([{"type": "text", "text": words}], stop_reason)


def error(status: int, said: str = "it went wrong", kind: str = "api_error", **headers: str) -> Behaviour:
    """An error as the API reports it."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": said}}).encode()
    return Behaviour(status, body, headers)


def garbage(body: bytes, content_type: str = "application/json") -> Behaviour:
    """Any bytes with status 200."""
    return Behaviour(body=body, content_type=content_type)


HANG_UP = Behaviour(status=0)


def events(rows: Iterable[object]) -> bytes:
    """Server-sent events, each with some data; named after its type, if it has one."""
    parts = []
    for row in rows:
        name = f"event: {row['type']}\n" if isinstance(row, dict) and "type" in row else ""
        parts.append(f"{name}data: {row if isinstance(row, str) else json.dumps(row)}\n\n")
    return "".join(parts).encode()


def pieces(text: str, size: int = 7) -> list[str]:
    """A text in pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def message_events(answer: dict[str, Any], size: int = 7) -> list[dict[str, Any]] | None:
    """The events of a message, as the Messages API streams it; None if it has another form."""
    blocks = answer.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return None
    usage = answer.get("usage")
    tokens = {"output_tokens": usage.get("output_tokens")} if isinstance(usage, dict) else {}
    begun = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
    rows: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        deltas = []
        rest = dict(block)
        for key, kind in (("text", "text"), ("thinking", "thinking"), ("signature", "signature")):
            if isinstance(block.get(key), str):
                deltas += [{"type": f"{kind}_delta", key: part} for part in pieces(block[key], size)]
                rest[key] = ""
        if isinstance(block.get("input"), dict):
            text = json.dumps(block["input"])
            deltas += [{"type": "input_json_delta", "partial_json": part} for part in pieces(text, size)]
            rest["input"] = {}
        rows.append({"type": "content_block_start", "index": index, "content_block": rest})
        rows += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        rows.append({"type": "content_block_stop", "index": index})
    end = {key: answer.get(key) for key in ("stop_reason", "stop_sequence", "stop_details") if key in answer}
    return [*rows, {"type": "message_delta", "delta": end, "usage": tokens}, {"type": "message_stop"}]


class MessagesServer:
    """Serves `POST /v1/messages` on a free local port while its context is open."""

    path = "/v1/messages"

    def __init__(self, script: Iterable[Behaviour] = (), default: Behaviour | None = None) -> None:
        self.script = list(script)
        self.default = default
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._cached: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "MessagesServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def usage(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tokens as the service would bill them, cache included."""
        blocks = [*request.get("tools", []), *request.get("system", [])]
        for turn in request.get("messages", []):
            blocks += [{"role": turn["role"]}, *turn["content"]]
        prefix, read, end = "", 0, 0
        written = []
        for block in blocks:
            bare = {key: value for key, value in block.items() if key != "cache_control"}
            prefix += json.dumps(bare, sort_keys=True)
            if prefix in self._cached:
                read = len(prefix)
            if "cache_control" in block:
                end = len(prefix)
                written.append(prefix)
        self._cached.update(written)
        return {
            "input_tokens": (len(prefix) - end) // CHARACTERS_PER_TOKEN,
            "cache_creation_input_tokens": (end - read) // CHARACTERS_PER_TOKEN,
            "cache_read_input_tokens": read // CHARACTERS_PER_TOKEN,
            "output_tokens": 100,
        }

    def _next(self, request: dict[str, Any], headers: dict[str, str]) -> tuple[Behaviour, bytes]:
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
            last = self.default or error(500, "the script is over")
            behaviour = self.script.pop(0) if self.script else last
            body = behaviour.body(self.usage(request)) if callable(behaviour.body) else behaviour.body
        if request.get("stream") and callable(behaviour.body) and not behaviour.headers:
            rows = self.rows(json.loads(body))
            if rows is not None:
                return replace(behaviour, content_type="text/event-stream; charset=utf-8"), events(rows)
        return behaviour, body

    def rows(self, answer: dict[str, Any]) -> Sequence[object] | None:
        """The data of the events of an answer that is streamed."""
        return message_events(answer)

    def _drip(self, file: BinaryIO, content: bytes, pace: float) -> None:
        """Write a byte at a time, until nobody listens any more or the server is closed."""
        with suppress(OSError):
            for at in range(len(content)):
                if self._closed.wait(pace):
                    return
                file.write(content[at : at + 1])
                file.flush()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each body waits for its headers' acknowledgment

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length", 0))
                request = json.loads(self.rfile.read(size))
                behaviour, body = outer._next(request, dict(self.headers.items()))
                time.sleep(behaviour.wait)
                if behaviour.slow_headers:
                    outer._drip(self.wfile, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 999, behaviour.pace)
                    self.close_connection = True
                    return
                if not behaviour.status or not self.path.startswith(outer.path):
                    self.close_connection = True
                    return
                self.send_response(behaviour.status)
                for name, value in behaviour.headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-type", behaviour.content_type)
                self.send_header("content-length", str(len(body) * behaviour.times))
                self.end_headers()
                if behaviour.pace:
                    outer._drip(self.wfile, body, behaviour.pace)
                    return
                with suppress(OSError):
                    for _ in range(behaviour.times):
                        self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return Handler
