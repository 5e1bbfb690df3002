"""Streamed answers: put together they are what came whole, and what is cut is no answer."""

import json
import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.propose import create_proposer, settings
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.propose.llm.providers.stream import assembled
from tests.support import chat_server as chat
from tests.support import messages_server as api
from tests.support.histories import context

WORDS = st.text(min_size=1, max_size=30)
SIZES = st.integers(1, 9)


def accept(proposal: object) -> None: ...


@given(WORDS, WORDS, st.dictionaries(WORDS, WORDS, min_size=1, max_size=3), SIZES)
def test_a_message_is_what_it_was_before_it_was_streamed(
    said: str, thought: str, value: dict, size: int
) -> None:
    blocks = [
        {"type": "thinking", "thinking": thought, "signature": "c2ln"},
        {"type": "text", "text": said},
        {"type": "tool_use", "id": "t1", "name": "propose", "input": value},
    ]
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 9}
    answer = {"id": "m", "content": blocks, "stop_reason": "tool_use", "stop_sequence": None, "usage": usage}
    rows = api.message_events(answer, size)
    assert rows
    whole = api.events(rows)
    assert json.loads(assembled(whole) or b"") == answer
    assert json.loads(assembled(whole.replace(b"\n", b"\r\n")) or b"") == answer
    assert assembled(api.events(rows[:-1])) is None, "it may have lost its end"


@given(WORDS, WORDS, WORDS, SIZES)
def test_a_completion_is_what_it_was_before_it_was_streamed(
    said: str, thought: str, value: str, size: int
) -> None:
    function = {"name": "propose", "arguments": json.dumps({"edits": value})}
    message = {"role": "assistant", "content": said, "reasoning_content": thought}
    message["tool_calls"] = [{"type": "function", "function": function}] * 2  # type: ignore[assignment]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    answer = {"id": "c", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 7}}
    rows = chat.completion_events(answer, size)
    assert rows
    assert json.loads(assembled(api.events(rows)) or b"") == answer
    assert assembled(api.events(rows[:-3])) is None


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"data: ", b"{", b"}", b"[]", b"\n", b"\n\n", b":", b'"'])).map(b"".join)
)
def test_no_bytes_do_harm(content: bytes) -> None:
    assembled(content)
    assembled(b'data: {"type": "message_stop"}\n\ndata: ' + content)
    assembled(b'data: {"choices": [{"delta": {"tool_calls": [[], {"index": []}]}}]}\n\ndata: ' + content)


def proposer(kind: str, url: str, **options: object) -> Proposer:
    values = settings(kind) | {
        "base_url": url,
        "models": ["m"],
        "retries": 0,
        "timeout": 20.0,
        "fallback": None,
    }
    prices = {"m": {"input": 1, "output": 5, "cache_write": 2, "cache_read": 0.1}}
    return create_proposer(kind, column=0, **values | {"prices": prices, "max_dollars": None} | options)


KINDS = {
    "anthropic": (api.MessagesServer, api.proposal("0.02", "0.03")),
    "openai": (chat.ChatServer, chat.call(chat.proposal("0.02", "0.03"))),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    return str(request.param)


def test_streamed_or_not_a_proposal_costs_the_same(kind: str) -> None:
    server, good = KINDS[kind]
    with server([good]) as streaming:
        one = proposer(kind, streaming.url).ask(context(), accept)[0]
        assert streaming.requests[0]["stream"] is True
    with server([api.error(400, "streaming is not supported here"), good, good]) as plain:
        asked = proposer(kind, plain.url)
        two = asked.ask(context(), accept)[0]
        assert ["stream" in request for request in plain.requests] == [True, False]
        asked.ask(context(), accept)
        assert "stream" not in plain.requests[2] and "stream_options" not in plain.requests[2]
    assert one.edits == two.edits and one.cost.dollars == two.cost.dollars > 0
    assert one.cost.output_tokens == two.cost.output_tokens == 100


def test_a_stream_that_breaks_off_is_sent_once_and_counts_as_much_as_it_can_cost(kind: str) -> None:
    server, good = KINDS[kind]
    with server() as cutting:
        rows = cutting.rows(json.loads(good.body({"output_tokens": 1})))  # type: ignore[operator]
        assert rows
        cut = api.Behaviour(body=api.events(rows[: len(rows) // 2]), content_type="text/event-stream")
        cutting.default = cut
        asked = proposer(kind, cutting.url, retries=3)
        with pytest.raises(ProposerError, match="broke the connection off") as raised:
            asked.ask(context(), accept)
        assert raised.value.retry and len(cutting.requests) == 1
        assert asked.spent.dollars > 0.01  # type: ignore[attr-defined]


def test_an_overload_within_a_stream_is_one(kind: str) -> None:
    server, good = KINDS[kind]
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    busy = api.Behaviour(body=api.events([{"type": "ping"}, error]), content_type="text/event-stream")
    with server([busy, good]) as recovering:
        assert proposer(kind, recovering.url, retries=1).ask(context(), accept)
        assert len(recovering.requests) == 2


class ImpatientProxy:
    """Passes bytes on, and ends a connection on which none has come back for so many seconds."""

    def __init__(self, port: int, patience: float) -> None:
        self._target, self._patience = port, patience
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._pass, args=(self._listener.accept()[0],), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server, suppress(OSError):
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            server.settimeout(self._patience)
            try:
                while part := server.recv(65536):
                    client.sendall(part)
            finally:
                client.shutdown(socket.SHUT_RDWR)  # closing alone would wait for who still reads from it

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while part := client.recv(65536):
                server.sendall(part)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.soak
def test_a_long_answer_survives_a_proxy_that_drops_idle_connections(kind: str) -> None:
    server, good = KINDS[kind]
    with server() as slow:
        answer = good.body({"input_tokens": 1, "output_tokens": 1})  # type: ignore[operator]
        rows = slow.rows(json.loads(answer))
        assert rows
        streamed = api.events(rows)
        silent = api.Behaviour(body=answer, wait=4.0)
        steady = api.Behaviour(body=streamed, content_type="text/event-stream", pace=6.0 / len(streamed))
        proxy = ImpatientProxy(int(slow.url.split(":")[2].split("/")[0]), 2.0)
        asked = proposer(kind, slow.url.replace(str(slow._server.server_port), str(proxy.port)))
        try:
            slow.script = [silent]
            with pytest.raises(ProposerError, match="broke the connection off"):
                asked.ask(context(), accept)
            slow.script = [steady]
            assert asked.ask(context(), accept)[0].edits
        finally:
            proxy.close()
