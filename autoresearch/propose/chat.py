"""One request to an OpenAI-compatible server, and what its failures mean.

Invariants: `ask` returns an answer as plain values, or raises one of five exceptions, each of which says what
can be done; nothing that comes over the network raises anything else. Failures that may pass (429, 5xx, the
network) are tried again with growing pauses. The key, if the server wants one, is read from the environment
variable that the configuration names, sent to that server alone, and taken out of every message.

Not covered: what is asked and what an answer means (see `autoresearch.propose.openai`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from autoresearch.errors import UserError
from autoresearch.propose.conversation import Garbage, NextModel, TooLong
from autoresearch.types import ProposerError

CONNECT_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first repetition, doubled for each further one; a server's `retry-after` counts more."""

MAX_BYTES = 20_000_000


class Unsupported(Exception):
    """The server does not know something in the request; `what` is "tools" or "max_tokens"."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(said)
        self.what = what


class ChatEndpoint:
    """The `/chat/completions` of a server.

    Args:
        base_url: Up to and without that; `http://localhost:11434/v1` for example.
        key_variable: Environment variable with the key; where it is not set, none is sent.
        retries: How often a request that failed is repeated.
        timeout: Seconds for one request.

    Raises:
        UserError: If the URL or the key cannot be one.
    """

    def __init__(self, base_url: str, key_variable: str, retries: int, timeout: float) -> None:
        if not re.fullmatch(r"https?://\S+", base_url):
            raise UserError(
                f"proposer.base_url is no address: {base_url!r}", "for example http://localhost:11434/v1"
            )
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._variable = key_variable
        self._key = os.environ.get(key_variable, "").strip()
        if self._key and not re.fullmatch(r"[!-~]+", self._key):
            raise UserError(
                f"{key_variable} does not hold a key: it has blanks or unusual characters", "set it again"
            )
        self._retries = retries
        self._timeout = timeout
        self._client: Any = None

    def ask(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; repeats it while that may help.

        Args:
            model: Whom to ask.
            request: Everything else of the body.

        Raises:
            ProposerError: If the key is rejected, or the network is down.
            NextModel, TooLong, Garbage, Unsupported: See there.
        """
        http, client = _library(), self._connected()
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            try:
                response = client.post(self._url, json={"model": model, **request})
            except http.TimeoutException:
                problem = f"no answer from {self._host} within {self._timeout:g} s"
            except http.HTTPError as error:
                problem = f"{self._host} cannot be reached ({type(error).__name__}); is the server up?"
            except Exception as error:  # whatever the library does not foresee, such as a broken encoding
                raise Garbage(f"what came back is not an answer ({type(error).__name__})") from None
            else:
                if response.status_code == 200:
                    return self._body(response)
                if last or not _may_pass(response):
                    raise self._meaning(response, model)
                problem, pause = "", max(pause, _wanted_pause(response))
            if last:
                raise ProposerError(problem, retry=True)
            time.sleep(pause)
        raise AssertionError("unreachable")

    @property
    def _host(self) -> str:
        return re.sub(r"^https?://([^/@]*@)?|/.*$", "", self._url)

    def _connected(self) -> Any:
        """The client, made on first use."""
        if self._client is None:
            http = _library()
            headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
            patience = http.Timeout(self._timeout, connect=min(self._timeout, CONNECT_SECONDS))
            self._client = http.Client(headers=headers, timeout=patience)
        return self._client

    def _body(self, response: Any) -> dict[str, Any]:
        try:
            if len(response.content) > MAX_BYTES:
                raise Garbage("the answer is larger than any answer should be")
            answer = response.json()
        except (ValueError, RecursionError) as error:
            raise Garbage(f"what came back is not an answer ({type(error).__name__})") from None
        if not isinstance(answer, dict):
            raise Garbage(f"what came back is not an answer ({type(answer).__name__})")
        if "error" in answer and "choices" not in answer:  # some gateways say so with status 200
            raise Garbage(f"the server reports an error: {self._hidden(str(answer['error']))}")
        return answer

    def _meaning(self, response: Any, model: str) -> Exception:
        """What to do about a failed request."""
        said, status = self._hidden(_said(response)), response.status_code
        if status in (401, 402, 403):
            where = f"the key in {self._variable}" if self._key else f"a request without {self._variable}"
            return ProposerError(f"{self._host} rejects {where} ({status}): {said}", retry=False)
        if status == 413 or (
            status == 400 and re.search(r"too long|context.{0,3}(window|length|size)", said)
        ):
            return TooLong(f"{model}: {said}")
        if status not in (408, 409, 429):
            if re.search(r"\btools?\b|tool_choice|function|jinja|\bstrict\b", said):
                return Unsupported("tools", said)
            if "max_tokens" in said:
                return Unsupported("max_tokens", said)
        return NextModel(f"{model}: error {status}: {said}", retry=status in (408, 409, 429) or status >= 500)

    def _hidden(self, text: str) -> str:
        text = text.replace(self._key, "***") if self._key else text
        return text[:300]


def _library() -> Any:
    """The HTTP library that came with the Anthropic SDK: older ones bring httpx."""
    try:
        import httpx2 as http
    except ImportError:
        import httpx as http  # type: ignore[no-redef, import-not-found]
    return http


def _may_pass(response: Any) -> bool:
    """Whether asking again may help; a server that cannot do something says 500 or 501 forever."""
    status = response.status_code
    if status in (408, 409, 429, 502, 503, 504, 529):
        return True
    return status == 500 and not re.search(r"\btools?\b|jinja|not (supported|implemented)", _said(response))


def _wanted_pause(response: Any) -> float:
    try:
        return min(max(float(response.headers.get("retry-after", 0)), 0.0), LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _said(response: Any) -> str:
    """The message in an error of any of the usual shapes."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return str(response.text)[:2000]
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and key in body:
            body = body[key]
    return str(body)[:2000]
