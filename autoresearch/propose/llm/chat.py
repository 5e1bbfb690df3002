"""One request to an OpenAI-compatible server, and what its failures mean.

Invariants: `ask` returns an answer as plain values, or raises one of a few exceptions, each of which says
what can be done; nothing that comes over the network raises anything else. The key, if the server wants one,
is read from the environment variable that the configuration names, sent to that server alone, and taken out
of every message.

Not covered: what is asked and what an answer means (see `autoresearch.propose.llm.openai`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from autoresearch.errors import UserError
from autoresearch.propose.llm.failures import Garbage, TooLong, broken, library, patience, persistent, refusal
from autoresearch.propose.llm.failures import wanted_pause as pause_of

MAX_BYTES = 20_000_000

NO_TOOLS = re.compile(r"\btools?\b|tool_choice|function|jinja|\bstrict\b")
OLD_NAME = re.compile(r"max_completion_tokens|un(supported|known|recognized|expected)|not supported")


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
        retries: How often a request that was not carried out (429, 5xx, no connection) is repeated.
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

        def send() -> dict[str, Any]:
            try:
                response = self._connected().post(self._url, json={"model": model, **request})
            except Exception as error:
                raise broken(error, self._host, self._timeout) from None
            if response.status_code != 200:
                raise self._meaning(response, model)
            return self._body(response)

        return persistent(send, self._retries)

    @property
    def _host(self) -> str:
        return re.sub(r"^https?://([^/@]*@)?|/.*$", "", self._url)

    def _connected(self) -> Any:
        """The client, made on first use."""
        if self._client is None:
            headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
            self._client = library().Client(headers=headers, timeout=patience(self._timeout))
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
            raise Garbage(f"the server reports an error: {self._hidden(str(answer['error']))[:300]}")
        return answer

    def _meaning(self, response: Any, model: str) -> Exception:
        """What to do about a failed request."""
        said, status = self._hidden(_said(response)), response.status_code
        where = f"the key in {self._variable}" if self._key else f"a request without {self._variable}"
        rejects = f"{self._host} rejects {where}"
        meaning = refusal(status, said, model, rejects, pause_of(response.headers))
        # A server that cannot do something says 500 or 501, too; one that is busy may mention anything.
        if status in (400, 422, 500, 501) and not isinstance(meaning, TooLong):
            if NO_TOOLS.search(said):
                return Unsupported("tools", said[:300])
            if "max_tokens" in said and OLD_NAME.search(said.lower()):
                return Unsupported("max_tokens", said[:300])
        return meaning

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


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
