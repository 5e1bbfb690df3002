"""A language model as the researcher: one conversation is one proposal, whoever the provider is.

Invariant: `propose` returns a proposal that `check` has accepted, or raises `ProposerError` with a plain
reason, whatever the model or the network sends. What is refused goes back to the model up to `repairs` times.
Every request is allowed by the purse before, its worst case and what is in flight included, and counted and
recorded after; what all calls cost, failed ones included, is the cost of the next proposal.

Not covered: a provider's wire format (`anthropic`, `openai`), what the model sees (`prompt`), what it must
answer (`answer`), prices and caps (`money`), which model is asked first (`bandit`).
"""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.propose import prompt
from autoresearch.propose.answer import difference, parse
from autoresearch.propose.bandit import ranked
from autoresearch.propose.money import Caps, Price, Purse
from autoresearch.propose.similar import Novelty
from autoresearch.types import Call, Check, Context, Cost, Proposal, ProposerError, Refused

MIN_LEDGER_TOKENS = 500
"""If a prompt with so small a ledger is too long, the script itself is."""

MAX_ANSWER_TOKENS = 64_000
"""A cut-off answer is asked for again with twice the room, up to this."""

Message = dict[str, Any]
Answer = Mapping[str, Any]
Record = Callable[[Call], None]
"""Where calls are written down; must not raise."""


class NextModel(Exception):
    """This model cannot answer, another one may. `retry` is for the case that none can."""

    def __init__(self, message: str, retry: bool) -> None:
        super().__init__(message)
        self.retry = retry


class TooLong(Exception):
    """The prompt does not fit the model's context window."""


class Garbage(Exception):
    """What came back is not an answer of the provider's interface."""


@dataclass
class Turn:
    """One request of a conversation, and what came of it."""

    answer: Answer = field(default_factory=dict)
    proposal: Proposal | None = None
    trouble: Exception | None = None
    cost: Cost | None = None


class LanguageModel(ABC):
    """The part that all providers share; a provider says how to send, read and reply.

    Args:
        models: Model names; which one is asked first is the bandit's choice where there are several.
        prices: Of every model.
        caps: Of the search.
        answer_tokens: Limit of one answer, thinking included.
        repairs: How often a refused or unusable answer is sent back.
        ledger_tokens: Budget of the history in the prompt.
        spent: Money spent before, beyond what the history tells.
        record: Where every call is written down.
    """

    name: str
    instant = False

    def __init__(
        self,
        *,
        models: Sequence[str],
        prices: Mapping[str, Price],
        caps: Caps,
        answer_tokens: int,
        repairs: int,
        ledger_tokens: int,
        spent: Cost | None,
        record: Record | None,
    ) -> None:
        self._models = models
        self._prices = prices
        self._purse = Purse(caps, spent or Cost(), self.name)
        self._answer_tokens = answer_tokens
        self._repairs = repairs
        self._ledger_tokens = ledger_tokens
        self._record = record or _forget

    @property
    def spent(self) -> Cost:
        """Everything this search has paid so far."""
        return self._purse.spent

    def propose(self, context: Context, check: Check) -> Proposal:
        """See `autoresearch.types.Proposer`."""
        self._purse.read(context.paid)
        conversation = f"{len(context.history):04d}-{uuid.uuid4().hex[:12]}"
        failed: list[NextModel] = []
        for model in ranked(self._models, context, self.name):
            try:
                return self._converse(model, context, check, conversation)
            except NextModel as error:
                failed.append(error)
        reasons = "; ".join(str(error) for error in failed)
        raise ProposerError(reasons, retry=any(error.retry for error in failed))

    # What a provider says

    @abstractmethod
    def _send(self, model: str, asked: prompt.Prompt, replies: list[Message], limit: int) -> Answer:
        """One request.

        Raises:
            ProposerError, NextModel, TooLong, Garbage: See there; nothing else.
        """

    @abstractmethod
    def _usage(self, answer: Answer) -> Mapping[str, Any]:
        """What was used, under the names of `Price.cost`; anything at all may have come back."""

    @abstractmethod
    def _read(self, answer: Answer, model: str) -> object:
        """What was answered, in the form that `answer.parse` takes; it may be anything at all.

        Raises:
            Refused: With the reason, for the model.
            NextModel: If the model declined.
            TooLong: If the answer ran into the end of the context window.
        """

    @abstractmethod
    def _reply(self, answer: Answer, reason: str) -> list[Message]:
        """The messages that send a refusal back."""

    @abstractmethod
    def _cut_off(self, answer: Answer) -> bool:
        """Whether the answer ended at its limit."""

    @abstractmethod
    def _size(self, asked: prompt.Prompt, replies: list[Message]) -> int:
        """Characters of everything that is sent."""

    @abstractmethod
    def _text(self, answer: Answer) -> str:
        """What the model said, for the record."""

    def _prompt(self, context: Context) -> prompt.Prompt:
        return prompt.build(context, self._ledger_tokens)

    # The conversation

    def _converse(self, model: str, context: Context, check: Check, conversation: str) -> Proposal:
        """Ask one model until its answer is accepted."""
        novelty = Novelty(context)

        def accept(given: object) -> Proposal:
            proposal = parse(given, f"{self.name}:{model}", [idea.number for idea in context.ideas])
            proposal = novelty(proposal, difference(given))
            check(proposal)
            return proposal

        asked = self._prompt(context)
        replies: list[Message] = []
        limit, reason = self._answer_tokens, ""
        for _ in range(self._repairs + 1):
            turn = self._turn(model, asked, replies, limit, accept, conversation)
            if turn.proposal is not None:
                return self._signed(turn.proposal, conversation)
            reason = str(turn.trouble)
            if isinstance(turn.trouble, TooLong):
                asked, replies = self._shorter(context, reason), []
            elif isinstance(turn.trouble, Refused) and self._cut_off(turn.answer):
                limit = max(limit, min(2 * limit, MAX_ANSWER_TOKENS))
            elif isinstance(turn.trouble, Refused):
                replies += self._reply(turn.answer, reason)
        raise ProposerError(
            f"{model}: no usable answer in {self._repairs + 1} tries; the last: {reason}", retry=True
        )

    def _turn(
        self,
        model: str,
        asked: prompt.Prompt,
        replies: list[Message],
        limit: int,
        accept: Callable[[object], Proposal],
        conversation: str,
    ) -> Turn:
        """One request, paid for and recorded whatever happens."""
        turn, started = Turn(), time.time()
        try:
            self._pay_and_send(turn, model, asked, replies, limit)
            turn.proposal = accept(self._read(turn.answer, model))
        except (TooLong, Garbage, Refused) as error:
            turn.trouble = error
        except Exception as error:
            turn.trouble = error
            raise
        finally:
            if turn.cost is not None:
                new = asked.text if not replies else "\n\n".join(map(_words, replies[-1:]))
                self._record(
                    Call(
                        conversation=conversation,
                        model=f"{self.name}:{model}",
                        started=started,
                        asked=new,
                        answered=self._text(turn.answer),
                        problem="" if turn.trouble is None else str(turn.trouble),
                        cost=turn.cost,
                    )
                )
        return turn

    def _pay_and_send(
        self, turn: Turn, model: str, asked: prompt.Prompt, replies: list[Message], limit: int
    ) -> None:
        price, begun = self._prices[model], time.monotonic()
        with self._purse.allow(price.worst(self._size(asked, replies), limit)) as payment:
            try:
                turn.answer = self._send(model, asked, replies, limit)
            finally:
                turn.cost = price.cost(self._usage(turn.answer), time.monotonic() - begun)
                payment.cost = turn.cost

    def _shorter(self, context: Context, reason: str) -> prompt.Prompt:
        """The prompt with half the history; later prompts stay as short."""
        self._ledger_tokens //= 2
        if self._ledger_tokens < MIN_LEDGER_TOKENS:
            raise ProposerError(f"the script and the brief alone are too long for a prompt: {reason}")
        return self._prompt(context)

    def _signed(self, proposal: Proposal, conversation: str) -> Proposal:
        """The proposal with everything it cost."""
        billed = replace(proposal, cost=self._purse.bill(), conversation=conversation)
        self._purse.ours(billed)
        return billed


def _words(message: Message) -> str:
    """The text of a message that we sent."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text") or block.get("content") or "") for block in blocks)


def _forget(call: Call) -> None:
    """No record is kept."""
