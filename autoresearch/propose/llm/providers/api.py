"""Sends one request to a language model over HTTP, with its provider's SDK.

Invariants: `Api.ask` returns an answer as plain values, or raises one of a few exceptions, each of which says
what to do next; no data from the network raises anything else. The SDK repeats a request, and `_Client`
decides whether it may: only if the server did not carry out the request (no connection, 429, 5xx) and asks
for no long pause. A request without an answer may have been billed: it raises `Lost` and is never sent again.
A request and its answer end by a deadline, however slowly bytes come, and no more of an answer is read or
unpacked than an answer can hold. Answers are streamed, so that no proxy takes a model that thinks for one
that is gone; a server that cannot stream is asked without. Redirects are not followed: prompt and key go only
to the server, and the key is removed from every message.

Not covered: the content of requests and answers (`anthropic`, `openai`), the form of a stream (`stream`),
what a failure means (`failures`).
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx2

from autoresearch.errors import UserError
from autoresearch.propose.base import ProposerError
from autoresearch.propose.llm.providers.failures import (
    LOST,
    Busy,
    Malformed,
    NextModel,
    Server,
    Unsupported,
    hidden,
    meaning,
    pause,
    status_within,
)
from autoresearch.propose.llm.providers.stream import EVENTS, assembled

LONGEST_PAUSE = 30.0
"""Seconds. If a server asks for a longer pause, another model proposes meanwhile."""

CONNECT_SECONDS = 10.0
"""Seconds to connect: a network that drops packets is noticed soon, while an answer may take minutes."""

MAX_BYTES = 20_000_000
"""Larger answers are refused, packed or unpacked; a stream says the same with more bytes."""

MAX_STREAM = 4 * MAX_BYTES


class Api:
    """One interface of one server.

    Args:
        server: The server to ask.
        path: Path of the interface, below the SDK's base URL.
        connect: Makes the SDK's client around an HTTP client; called at the first request, because importing
            an SDK takes about a second.
        timeout: Seconds for one request and its answer.
        stream: What in a request asks for a streamed answer.
    """

    def __init__(
        self,
        server: Server,
        path: str,
        connect: Callable[[httpx2.Client], Any],
        timeout: float,
        stream: Mapping[str, Any],
    ) -> None:
        self._server, self._stream = server, dict(stream)
        self._path = path
        self._connect = connect
        self._timeout = timeout
        self._sdk: Any = None

    def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; the SDK repeats it while that may help.

        Args:
            body: All of it, `model` included.

        Returns:
            The answer as plain values, unchecked.

        Raises:
            ProposerError: If the network is down.
            NextModel, TooLong, Malformed, Unsupported: See there.
        """
        try:
            return self._ask({**body, **self._stream})
        except Unsupported as error:
            if error.what != "stream":
                raise
            if not self._stream:  # it speaks of something else
                raise NextModel(f"{body['model']}: {error}", retry=False) from None
        self._stream = {}
        return self.ask(body)

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            if self._sdk is None:
                self._sdk = self._connect(_Client(self._server, self._timeout))
            response = self._sdk.post(self._path, body=body, cast_to=httpx2.Response)
        except Exception as error:  # its cause may quote the request with the key
            raise self._meaning(error, str(body["model"])) from None
        return self._answer(response)

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"what came back is not an answer ({type(error).__name__})") from None
        if not isinstance(answer, dict):
            raise Malformed(f"what came back is not an answer ({type(answer).__name__})")
        if answer.get("error"):  # some gateways say so with status 200
            said = hidden(str(answer["error"]), self._server.key)[:300]
            raise Malformed(f"the server reports an error: {said}")
        return answer

    def _meaning(self, error: Exception, model: str) -> Exception:
        """The exception for a failed request. Both SDKs raise errors of the same shape."""
        response = getattr(error, "response", None)
        if isinstance(response, httpx2.Response):
            return meaning(response, self._server, model)
        if isinstance(error.__cause__, httpx2.TransportError):
            return ProposerError(f"{self._server.name} cannot be reached; is the network up?", retry=True)
        return Malformed(f"what came back is not an answer ({type(error).__name__})")


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust; reading that takes longer than a short answer, so that all clients share it."""
    return httpx2.create_ssl_context()


class _Client(httpx2.Client):
    """An HTTP client that tells the SDK of each failure whether the request may be repeated."""

    def __init__(self, server: Server, timeout: float) -> None:
        patience = httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
        # Connections are not kept, so that the deadline knows the one of each request.
        once = httpx2.Limits(max_keepalive_connections=0)
        super().__init__(timeout=patience, limits=once, follow_redirects=False, verify=_certificates())
        self._server = server
        self._seconds = timeout

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one request, and read the answer."""
        if not self._server.key:
            request.headers.pop("authorization", None)  # the SDK always sends one
        request.headers["accept-encoding"] = "gzip, identity"
        late = f"no answer from {self._server.name} within {self._seconds:g} s"
        deadline = _Deadline(self._seconds)
        request.extensions = {**request.extensions, "trace": deadline.watch}
        try:
            with deadline:
                response = self._read(super().send(request, **{**options, "stream": True}))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError):
            raise  # it was not sent: the SDK sends it again
        except httpx2.TimeoutException:
            return self._lost(request, late)
        except httpx2.RequestError:
            said = f"{self._server.name} broke the connection off before there was an answer"
            return self._lost(request, late if deadline.over else said)
        except _TooLarge as error:
            return self._lost(request, f"{self._server.name} sent {error}")
        if deadline.over:
            return self._lost(request, late)
        if response.status_code >= 300:
            again = isinstance(meaning(response, self._server, ""), Busy)
            again = again and pause(response.headers) <= LONGEST_PAUSE
            response.headers["x-should-retry"] = str(again).lower()
        return response

    def _read(self, stream: httpx2.Response) -> httpx2.Response:
        """The whole answer, unpacked.

        Raises:
            _TooLarge: If it is larger than an answer can be.
            httpx2.RemoteProtocolError: If a stream ends too early.
        """
        events = stream.headers.get("content-type", "").lower().startswith(EVENTS)
        most = MAX_STREAM if events else MAX_BYTES
        with closing(stream):
            raw = bytearray()
            for part in stream.iter_raw():
                raw += part
                if len(raw) > most:
                    raise _TooLarge(f"more than {most / 1e6:g} MB")
        packing = stream.headers.get("content-encoding", "identity").strip().lower()
        content = bytes(raw)
        if packing in ("gzip", "x-gzip", "deflate"):
            unpacking = zlib.decompressobj(wbits=47)
            with suppress(zlib.error):  # what is cut off is no JSON either
                content = unpacking.decompress(content, most + 1)
            if len(content) > most:
                raise _TooLarge(f"more than {most / 1e6:g} MB, packed")
        if events and stream.status_code < 300:
            if (whole := assembled(content)) is None:
                raise httpx2.RemoteProtocolError("the stream ended early")
            content = whole
        names = ("content-encoding", "content-length", "transfer-encoding")
        headers = {name: value for name, value in stream.headers.items() if name not in names}
        status = stream.status_code if stream.status_code >= 300 else status_within(content)
        return httpx2.Response(status, headers=headers, content=content, request=stream.request)

    def _lost(self, request: httpx2.Request, said: str) -> httpx2.Response:
        headers = {"x-should-retry": "false"}
        return httpx2.Response(LOST, headers=headers, json={"error": said}, request=request)


class _TooLarge(Exception):
    """An answer is larger than any should be."""


class _Deadline:
    """Ends a request by shutting its connection down when its time is over, whatever it waits for.

    Attributes:
        over: Whether the time was over before the request was done.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def watch(self, event: str, about: Mapping[str, Any]) -> None:
        """Note the sockets of the request; the HTTP library calls this with everything it does."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            opened = about["return_value"].get_extra_info("socket")
            if isinstance(opened, socket.socket):
                self._sockets.append(opened)
                if self.over:
                    self._end()

    def _end(self) -> None:
        self.over = True
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def key_from(variable: str, value: str) -> str:
    """A key as an HTTP header can carry it.

    Raises:
        UserError: If it cannot be one.
    """
    key = value.strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise UserError(
            f"{variable} does not hold a key: it has blanks or unusual characters", "set it again"
        )
    return key
