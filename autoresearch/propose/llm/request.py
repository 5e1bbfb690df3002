"""One request to a language model of any provider: what it may cost, what it has cost, and its record.

Invariant: the budget must allow every request before it is sent, with its worst case and all requests under
way. The request is recorded at its worst case until its cost is known, so it counts if this process is killed
meanwhile, or if no answer comes. The cost of all calls of a model, failed ones included, is added to its next
proposal.

Not covered: a provider's wire format and the network (`providers`), what is asked, and what becomes of an
answer (`conversation`), prices and caps (`propose.budget`).
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from autoresearch.errors import UserError
from autoresearch.propose.base import Proposer, ProposerError, SearchServices
from autoresearch.propose.budget import Budget, Caps, Price, price_table, size_of, unbilled_before
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.providers.api import Api
from autoresearch.propose.llm.providers.failures import Lost
from autoresearch.types import Call, Cost, Metric, Proposal

MIN_HISTORY_TOKENS = 500
"""If a prompt with this little history is too long, the script itself is too long."""

MAX_ANSWER_TOKENS = 64_000
"""After a cut-off answer the limit is doubled, up to this."""

NO_ANSWER = "no answer yet"
"""The recorded problem of a call that is under way."""

Message = dict[str, Any]
Reply = Mapping[str, Any]


class ModelOptions(BaseModel):
    """The settings that all providers share. Defaults are in `configs/proposer`.

    Attributes:
        models: Model names. If there are several, the order follows their gain per dollar (see `strategy`),
            and the next one is asked if one cannot answer.
        prices: Model -> dollars per million tokens of each kind (input, output, cache_write, cache_read).
        answer_tokens: Limit of one answer, thinking included.
        repairs: How often a refused or unusable answer is sent back.
        retries: How often a failed request (429, 5xx, no connection) is repeated.
        timeout: Seconds for one request.
        ledger_tokens: Budget of the history in the prompt, in tokens.
        max_dollars: Limit of the search, like `max_tokens` and `max_calls`; None: no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Annotated[list[str], Field(min_length=1)]
    prices: dict[str, dict[str, float]]
    answer_tokens: Annotated[int, Field(ge=1024, le=MAX_ANSWER_TOKENS)]
    repairs: Annotated[int, Field(ge=0, le=100)]
    retries: Annotated[int, Field(ge=0, le=20)]
    timeout: Annotated[float, Field(gt=0)]
    ledger_tokens: Annotated[int, Field(ge=MIN_HISTORY_TOKENS)]
    max_dollars: Annotated[float, Field(gt=0)] | None
    max_tokens: Annotated[int, Field(gt=0)] | None
    max_calls: Annotated[int, Field(gt=0)] | None


@dataclass
class Conversation:
    """The state of one conversation with one model.

    Attributes:
        model: The model.
        name: Name under which its calls are stored.
        metric: Metric of the task.
        asked: The first prompt.
        limit: Limit of the next answer, in tokens.
        history_tokens: Budget of the history in `asked`.
        messages: The messages after it.
        n: Largest number of proposals.
        tries: Number of answers without a proposal.
        role: The role that is asked in words, and calls no tool; empty: the proposer.
        at_limit: Whether the limit of an answer cannot grow further.
    """

    model: str
    name: str
    metric: Metric
    asked: prompt.Prompt
    limit: int
    history_tokens: int
    messages: list[Message] = field(default_factory=list)
    n: int = 1
    tries: int = 0
    at_limit: bool = False
    role: str = ""


@dataclass
class Exchange:
    """One request of a conversation, and its result."""

    reply: Reply = field(default_factory=dict)
    proposals: list[Proposal] = field(default_factory=list)
    problem: Exception | None = None
    cost: Cost | None = None


class Requester(Proposer):
    """Sends requests to models, pays for them, and writes them down; a provider says how to ask and read.

    Args:
        options: The settings.
        prices: Prices of every model.
        services: Services of the search; None outside a search.
        api: The provider's interface.
    """

    _free = False
    """Whether a model without a price costs nothing."""

    def __init__(
        self, options: ModelOptions, prices: Mapping[str, Price], services: SearchServices | None, api: Api
    ) -> None:
        self._options = options
        self._prices = dict(prices)
        self._api = api
        caps = Caps(options.max_dollars, options.max_tokens, options.max_calls)
        self._budget = Budget(self.name, caps, unbilled_before(self.name, options.models, services))
        self._record = services.record if services else _ignore
        self._say = services.say if services else _ignore

    @property
    def spent(self) -> Cost:
        """The spending of this search so far."""
        return self._budget.spent

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """See `autoresearch.propose.base.Proposer`."""
        return self._budget.unbilled

    # Each provider implements these

    @abstractmethod
    def _body(self, conversation: Conversation) -> dict[str, Any]:
        """The whole request."""

    def _send(self, conversation: Conversation) -> Reply:
        """One request; raises what `Api.ask` raises, `Unsupported` excepted."""
        return self._api.ask(self._body(conversation))

    @abstractmethod
    def _usage(self, reply: Reply) -> Mapping[str, Any]:
        """The usage, under the names of `Price.cost`; the reply may be any value."""

    @abstractmethod
    def _text(self, reply: Reply) -> str:
        """The model's text, for the record."""

    # Each request

    def _pay_and_send(
        self, exchange: Exchange, conversation: Conversation, started: float, payer: str = ""
    ) -> None:
        price, begun = self._price(conversation.model), time.monotonic()
        sent = json.dumps(self._body(conversation), ensure_ascii=False, default=str)
        worst = price.worst(size_of(sent), conversation.limit)
        with self._budget.allow(worst, f"{self.name}:{payer or conversation.model}") as payment:
            self._write_down(conversation, started, worst, NO_ANSWER)
            lost = False
            try:
                exchange.reply = self._send(conversation)
            except Lost:
                lost = True
                raise
            finally:
                seconds = time.monotonic() - begun
                spent = price.cost(self._usage(exchange.reply), seconds)
                exchange.cost = payment.cost = replace(worst, seconds=seconds) if lost else spent

    def _price(self, model: str) -> Price:
        """The price of a model; that of a role may be one that proposes nothing.

        Raises:
            ProposerError: If it is not known. A search does not begin so, but a brief may change meanwhile.
        """
        if model not in self._prices:
            free = self._free and self._options.max_dollars is None
            try:
                self._prices |= price_table(self._options.prices, [model], free=free)
            except UserError as error:
                raise ProposerError(f"a role of the brief: {error}", exhausted=False) from None
        return self._prices[model]

    def _write_down(
        self, conversation: Conversation, started: float, cost: Cost, problem: str, answered: str = ""
    ) -> None:
        asked = (
            "\n\n".join(map(_words, conversation.messages[-1:]))
            if conversation.messages
            else conversation.asked.text
        )
        who = ":".join(part for part in (self.name, conversation.model, conversation.role) if part)
        self._record(Call(conversation.name, who, started, asked, answered, problem, cost))


def _words(message: Message) -> str:
    """The text of a message that we sent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text") or block.get("content") or "") for block in blocks)


def _ignore(said: object) -> None:
    """Nobody listens."""
