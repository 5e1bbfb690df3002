"""What can go wrong with a request to a language model, whoever provides it, and how often it is repeated.

Owns the reading of failures. Invariants: a request is repeated only if it was not carried out (no connection,
429, 5xx), with pauses that grow to at most `LONGEST_PAUSE`; a server that asks for a longer one is left
alone, so that somebody else can propose meanwhile. A request that left and was never answered may have been
billed: it is `Lost`, and nobody sends it again.

Not covered: sending (`messages`, `chat`), and what becomes of a conversation (`conversation`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from autoresearch.propose.base import ProposerError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first repetition, doubled for each further one; a server's `retry-after` counts more."""

CONNECT_SECONDS = 10.0
"""A network that swallows packets should be found out in seconds; an answer may take minutes."""

CONTEXT = re.compile(r"context.{0,3}(window|length|limit|size)", re.IGNORECASE)
LONG = re.compile(r"too (long|large|many tokens)", re.IGNORECASE)
CREDIT = re.compile(r"credit balance|insufficient.{0,10}(credit|quota|balance|funds)", re.IGNORECASE)

BUSY = (408, 409, 429, 502, 503, 504, 529)
"""Statuses of a server that has no time now."""


class NextModel(Exception):
    """This model cannot answer, another one may. `retry` is for the case that none can."""

    def __init__(self, message: str, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


class Lost(NextModel):
    """The request left, and no answer came: it may be billed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry=True)


class TooLong(Exception):
    """The prompt does not fit the model's context window."""


class Garbage(Exception):
    """What came back is not an answer of the provider's interface."""


class Passing(Exception):
    """The request was not carried out, and may be in a moment.

    Attributes:
        meaning: What to raise if it is not.
        pause: Seconds to wait at least.
    """

    def __init__(self, meaning: Exception, pause: float = 0.0) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning
        self.pause = pause


def persistent(send: Callable[[], T], retries: int) -> T:
    """Send a request, and again while that may help.

    Args:
        send: Raises `Passing` for what may pass.
        retries: How often it is repeated at most.

    Raises:
        Exception: Whatever `send` raises, or what the last `Passing` means.
    """
    for attempt in range(retries + 1):
        try:
            return send()
        except Passing as passing:
            if attempt == retries or passing.pause > LONGEST_PAUSE:
                raise passing.meaning from None
            time.sleep(min(max(FIRST_PAUSE * 2**attempt, passing.pause), LONGEST_PAUSE))
    raise AssertionError("unreachable")


def patience(seconds: float) -> Any:
    """How long to wait for a connection, and for an answer."""
    return library().Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def broken(error: BaseException | None, who: str, seconds: float) -> Exception:
    """What it means that there was no answer at all.

    Args:
        error: What the HTTP library raised.
        who: Was asked.
        seconds: How long it was waited for.
    """
    http = library()
    if isinstance(error, (http.ConnectError, http.ConnectTimeout, http.PoolTimeout, http.ProxyError)):
        return Passing(ProposerError(f"{who} cannot be reached; is the network up?", retry=True))
    if isinstance(error, http.TimeoutException):
        return Lost(f"no answer from {who} within {seconds:g} s")
    if isinstance(error, http.TransportError):
        return Lost(f"{who} broke the connection off before there was an answer")
    return Garbage(f"what came back is not an answer ({type(error).__name__})")


def refusal(status: int, said: str, model: str, key: str, pause: float = 0.0) -> Exception:
    """What an error means that a server reports.

    Args:
        status: Of HTTP.
        said: Its message.
        model: Which was asked.
        key: Who rejects which key, in words.
        pause: Seconds that the server wants to be left alone.
    """
    text = said[:300]
    if status in (401, 403):
        return ProposerError(f"{key} ({status}): {text}", retry=False)
    if status == 402 or (status != 429 and status < 500 and CREDIT.search(said)):
        return ProposerError(f"the account has run out of money ({status}): {text}", retry=True)
    if status == 413 or (status != 429 and CONTEXT.search(said)):
        return TooLong(f"{model}: {text}")
    if status not in BUSY and LONG.search(said) and "max_tokens" not in said:
        return TooLong(f"{model}: {text}")
    passes = status in BUSY or status >= 500
    meaning = NextModel(f"{model}: error {status}: {text}", retry=passes)
    return Passing(meaning, pause) if passes else meaning


def wanted_pause(headers: Any) -> float:
    """What a server's `retry-after` asks for, in seconds; 0 if nothing that can be read."""
    try:
        return max(float(headers.get("retry-after", 0)), 0.0)
    except (TypeError, ValueError):
        return 0.0


def library() -> Any:
    """The HTTP library that came with the Anthropic SDK: older ones bring httpx."""
    try:
        import httpx2 as http
    except ImportError:
        import httpx as http  # type: ignore[no-redef, import-not-found]
    return http
