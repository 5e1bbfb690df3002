"""What a failure of a server means: each exception says what to do next.

Servers report the same failure with different statuses and words; both are read here. The key is removed from
every message. Not covered: sending, and repeating what failed (`api`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

MAX_ERROR = 20_000
"""Bytes of an answer that may be an error."""

STATUS_OF = {"overloaded_error": 529, "rate_limit_error": 429, "server_error": 500, "api_error": 500}
"""Kinds of errors that a server may report with status 200 -> the status that they should have."""

LOST = 599
"""The status that stands for "no answer came"; no server sends it."""

BUSY = (408, 409, 429, 502, 503, 504, 529)
"""Statuses of a busy server."""

CONTEXT = re.compile(r"context.{0,3}(window|length|limit|size)", re.IGNORECASE)
LONG = re.compile(r"too (long|large|many tokens)", re.IGNORECASE)
CREDIT = re.compile(r"credit balance|insufficient.{0,10}(credit|quota|balance|funds)", re.IGNORECASE)
NO_STREAM = re.compile(r"\bstream(s|ing|_options)?\b", re.IGNORECASE)
NO_TOOLS = re.compile(r"\btools?\b|tool_choice|function|jinja|\bstrict\b")
OLD_NAME = re.compile(r"max_completion_tokens|un(supported|known|recognized|expected)|not supported")


class NextModel(Exception):
    """This model cannot answer, but another may. `retry` applies if no model can."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


class Busy(NextModel):
    """The request was not carried out; a repetition may succeed."""


class Lost(NextModel):
    """The request was sent, and no answer came: it may be billed."""


class TooLong(Exception):
    """The prompt does not fit the model's context window."""


class Malformed(Exception):
    """The answer does not follow the provider's interface."""


class Unsupported(Exception):
    """The server does not know something in the request; `what` is "tools", "max_tokens" or "stream"."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(said)
        self.what = what


@dataclass(frozen=True)
class Server:
    """The server to ask.

    Attributes:
        name: In words, for messages.
        key: Key of the account; empty: send none.
        key_variable: Environment variable of the key.
        varied: Whether the server may lack parts of the provider's interface, as many servers do.
    """

    name: str
    key: str
    key_variable: str
    varied: bool = False


def meaning(response: httpx2.Response, server: Server, model: str) -> Exception:
    """The exception for a failure that a server reports."""
    said, status = hidden(_said(response), server.key), response.status_code
    text = said[:300]
    if status == LOST:
        return Lost(said)
    if status in (401, 403):
        key = (
            f"the key in {server.key_variable}" if server.key else f"a request without {server.key_variable}"
        )
        return NextModel(
            f"{server.name} rejects {key} ({status}): {text}", retry=False
        )  # another model may be allowed
    if status == 402 or (status != 429 and status < 500 and CREDIT.search(said)):
        return NextModel(f"the account has run out of money ({status}): {text}", retry=True)
    if status == 413 or (status != 429 and CONTEXT.search(said)):
        return TooLong(f"{model}: {text}")
    if status not in BUSY and LONG.search(said) and "max_tokens" not in said:
        return TooLong(f"{model}: {text}")
    if status in (400, 422, *((500, 501) if server.varied else ())) and NO_STREAM.search(said):
        return Unsupported("stream", text)
    # A server also answers 500 or 501 if it lacks a feature; a busy server may say anything.
    if server.varied and status in (400, 422, 500, 501):
        if NO_TOOLS.search(said):
            return Unsupported("tools", text)
        if "max_tokens" in said and OLD_NAME.search(said.lower()):
            return Unsupported("max_tokens", text)
    message = f"{model}: error {status}: {text}"
    return Busy(message) if status in BUSY or status >= 500 else NextModel(message, retry=False)


def status_within(content: bytes) -> int:
    """The status of an error that is sent with status 200; 200 if there is none."""
    if len(content) > MAX_ERROR or b'"error"' not in content:
        return 200
    try:
        error = json.loads(content)["error"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return 200
    about = error if isinstance(error, Mapping) else {}
    kind, code = about.get("type"), about.get("code")
    status = STATUS_OF.get(kind if isinstance(kind, str) else "", code)
    return status if isinstance(status, int) and 400 <= status < 600 else 200


def _said(response: httpx2.Response) -> str:
    """The message in an error of any of the usual shapes."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return response.text[:2000]
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and key in body:
            body = body[key]
    return str(body)[:2000]


def pause(headers: httpx2.Headers) -> float:
    """The pause in seconds that a server asks for; removes an unreadable value, which the SDK might obey."""
    headers.pop("retry-after-ms", None)
    try:
        return float(headers.get("retry-after", 0))
    except ValueError:
        del headers["retry-after"]
        return 0.0


def hidden(text: str, key: str) -> str:
    """A text without the key."""
    return text.replace(key, "***") if key else text
