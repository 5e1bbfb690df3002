"""One request to the Messages API, and what its failures mean.

Invariants: `ask` returns an answer as plain values, or raises one of a few exceptions, each of which says
what can be done; nothing that comes over the network raises anything else. The SDK repeats nothing by itself:
it would repeat what was billed, and wait as long as it is told to. The key is read from the environment,
given to the SDK's client, and taken out of every message.

Not covered: what is asked and what an answer means (see `autoresearch.propose.llm.anthropic`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoresearch.errors import UserError
from autoresearch.propose.llm.failures import Garbage, broken, patience, persistent, refusal, wanted_pause

if TYPE_CHECKING:
    import anthropic

KEY = "ANTHROPIC_API_KEY"


class Endpoint:
    """A Messages API endpoint with its key.

    Args:
        retries: How often a request that was not carried out (429, 5xx, no connection) is repeated.
        timeout: Seconds for one request.
        base_url: None is Anthropic's.

    Raises:
        UserError: If the key is missing or cannot be a key.
    """

    def __init__(self, retries: int, timeout: float, base_url: str | None) -> None:
        self._key = _key()
        self._retries = retries
        self._timeout = timeout
        self._base_url = base_url
        self._client: anthropic.Anthropic | None = None

    def ask(self, model: str, limit: int, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request.

        Args:
            model: Whom to ask.
            limit: Most tokens of the answer, thinking included.
            request: Everything else that `messages.create` takes.

        Returns:
            The answer as plain values; nothing of it has been looked at.

        Raises:
            ProposerError: If the key is rejected, or the network is down.
            NextModel, TooLong, Garbage: See there.
        """

        def send() -> dict[str, Any]:
            try:
                message = self._connected().messages.create(model=model, max_tokens=limit, **request)
                return dict(message.model_dump(exclude_unset=True, warnings=False))
            except Exception as error:
                raise self._meaning(error, model) from None  # the cause may quote the request with its key

        return persistent(send, self._retries)

    def _connected(self) -> anthropic.Anthropic:
        """The client, made on first use: importing the SDK takes about a second."""
        if self._client is None:
            import anthropic

            self._client = anthropic.Anthropic(
                api_key=self._key, base_url=self._base_url, max_retries=0, timeout=patience(self._timeout)
            )
        return self._client

    def _meaning(self, error: Exception, model: str) -> Exception:
        """What to do about a failed request."""
        import anthropic

        if isinstance(error, anthropic.APIConnectionError):
            return broken(error.__cause__ or error, "the API", self._timeout)
        if not isinstance(error, anthropic.APIStatusError):
            return Garbage(f"what came back is not an answer ({type(error).__name__})")
        said = (error.api_message or str(error)).replace(self._key, "***")
        rejects = f"the API rejects the key in {KEY}"
        return refusal(error.status_code, said, model, rejects, wanted_pause(error.response.headers))


def _key() -> str:
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise UserError(
            f"the anthropic proposer needs an API key, and {KEY} is not set",
            f"export {KEY}=..., or use proposer=optuna, which needs no key",
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise UserError(f"{KEY} does not hold a key: it has blanks or unusual characters", "set it again")
    return key
