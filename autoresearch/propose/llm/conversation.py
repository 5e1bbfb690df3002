"""A language model as the researcher: one conversation is one proposal, whoever the provider is.

Invariant: `propose` returns a proposal that `check` has accepted, or raises `ProposerError` with a plain
reason, whatever the model or the network sends. What is refused goes back to the model up to `repairs` times.
Every request is allowed by the purse before, its worst case and what is in flight included, and recorded at
that worst case until it is known what it cost: so it counts if this process is killed meanwhile, or if no
answer comes. What all calls of a model cost, failed ones included, is the cost of its next proposal.

Not covered: a provider's wire format (`anthropic`, `openai`), what failures mean (`trouble`), what the model
sees (`prompt`), what it must answer (`answer`), prices and caps (`money`), who is asked first (`bandit`).
"""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoresearch.errors import Refused
from autoresearch.propose.bandit import ranked
from autoresearch.propose.base import BaseProposer, Check, Context, ProposerError
from autoresearch.propose.budget import Capped, Caps, Price, Purse
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.answer import Given, difference, understood
from autoresearch.propose.llm.failures import Garbage, Lost, NextModel, TooLong
from autoresearch.propose.llm.novelty import Novelty
from autoresearch.propose.llm.turns import Answer, Message, Talk, Turn, words
from autoresearch.types import Call, Cost, Proposal

MIN_LEDGER_TOKENS = 500
"""If a prompt with so small a ledger is too long, the script itself is."""

MAX_ANSWER_TOKENS = 64_000
"""A cut-off answer is asked for again with twice the room, up to this."""

BRIEFER = "your answer was cut off at its limit, and there is no more room: think less, and change less"

NO_ANSWER = "no answer yet"
"""The problem of a call that is under way."""

Accept = Callable[[Given], Proposal]
Record = Callable[[Call], None]
"""Where calls are written down: the same conversation, model and time is the same call. Must not raise."""


class LanguageModel(BaseProposer):
    """The part that all providers share; a provider says how to send, read and reply.

    Args:
        models: Model names; which one is asked first is the bandit's choice where there are several.
        prices: Of every model.
        caps: Of the search.
        answer_tokens: Limit of one answer, thinking included.
        repairs: How often a refused or unusable answer is sent back.
        ledger_tokens: Budget of the history in the prompt.
        spent: Money spent before, beyond what the history tells.
        owed: Whom that was spent on.
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
        owed: Mapping[str, Cost] | None,
        record: Record | None,
    ) -> None:
        self._models = models
        self._prices = prices
        self._purse = Purse(caps, spent or Cost(), self.name, owed)
        self._answer_tokens = answer_tokens
        self._repairs = repairs
        self._ledger_tokens = ledger_tokens
        self._record = record or forget

    @property
    def spent(self) -> Cost:
        """Everything this search has paid so far."""
        return self._purse.spent

    @property
    def unbilled(self) -> Mapping[str, Cost]:
        """What calls cost that have led to no proposal so far, by who was asked."""
        return self._purse.owed

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """See `autoresearch.propose.base.Proposer`."""
        self._purse.read(context.paid)
        conversation = f"{len(context.history):04d}-{uuid.uuid4().hex[:12]}"
        failed: list[ProposerError | NextModel] = []
        for model in ranked(self._models, context, self.name, self._purse.owed):
            try:
                return [self._converse(model, context, check, conversation)]
            except (NextModel, Capped) as error:  # a cheaper model may still fit under a cap
                failed.append(error)
        reasons = "; ".join(dict.fromkeys(str(error) for error in failed))
        raise ProposerError(reasons, retry=any(error.retry for error in failed))

    # What a provider says

    @abstractmethod
    def _send(self, model: str, asked: prompt.Prompt, replies: list[Message], limit: int) -> Answer:
        """One request.

        Raises:
            ProposerError, NextModel, TooLong, Garbage: See `trouble`; nothing else.
        """

    @abstractmethod
    def _usage(self, answer: Answer) -> Mapping[str, Any]:
        """What was used, under the names of `Price.cost`; anything at all may have come back."""

    @abstractmethod
    def _read(self, answer: Answer, model: str) -> Given:
        """What was answered: which tool is named, and its input.

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
        """Bytes of everything that is sent."""

    @abstractmethod
    def _text(self, answer: Answer) -> str:
        """What the model said, for the record."""

    def _prompt(self, context: Context, ledger_tokens: int) -> prompt.Prompt:
        return prompt.build(context, ledger_tokens)

    # The conversation

    def _converse(self, model: str, context: Context, check: Check, conversation: str) -> Proposal:
        """Ask one model until its answer is accepted."""
        novelty = Novelty(context)

        def accept(given: Given) -> Proposal:
            proposal = understood(given, f"{self.name}:{model}", [idea.number for idea in context.ideas])
            proposal = novelty(proposal, difference(given.input))
            check(proposal)
            return proposal

        asked = self._prompt(context, self._ledger_tokens)
        talk, reason = Talk(model, conversation, asked, self._answer_tokens, self._ledger_tokens), ""
        while talk.tries <= self._repairs:
            turn = self._turn(talk, accept)
            if turn.proposal is not None:
                return self._purse.bill(turn.proposal, conversation)
            reason = str(turn.trouble)
            self._go_on(talk, turn, context)
        raise NextModel(f"{model}: no usable answer in {talk.tries} tries; the last: {reason}", retry=True)

    def _go_on(self, talk: Talk, turn: Turn, context: Context) -> None:
        """What is asked next, after an answer that led to nothing."""
        refused = not turn.answer and isinstance(turn.trouble, TooLong | NextModel)
        talk.tries += not refused
        if refused and talk.limit > self._answer_tokens:
            # The request was refused, and all that is new in it is the limit.
            talk.limit, talk.bounded = self._answer_tokens, True
            talk.replies += self._reply({}, BRIEFER)
        elif isinstance(turn.trouble, TooLong):
            self._shorten(talk, context, str(turn.trouble))
        elif isinstance(turn.trouble, Refused) and self._cut_off(turn.answer):
            room = min(2 * talk.limit, MAX_ANSWER_TOKENS)
            if talk.bounded or room <= talk.limit:
                talk.replies += self._reply({}, BRIEFER)
            else:
                talk.limit = room
        elif isinstance(turn.trouble, Refused):
            talk.replies += self._reply(turn.answer, str(turn.trouble))

    def _shorten(self, talk: Talk, context: Context, reason: str) -> None:
        """Begin anew with half the history; the next conversation is tried with all of it."""
        talk.ledger //= 2
        if talk.ledger < MIN_LEDGER_TOKENS:
            message = f"the script and the brief alone are too long for a prompt: {reason}"
            raise NextModel(message, retry=False)
        talk.asked, talk.replies = self._prompt(context, talk.ledger), []

    def _turn(self, talk: Talk, accept: Accept) -> Turn:
        """One request, paid for and recorded whatever happens."""
        turn, started = Turn(), time.time()
        try:
            self._pay_and_send(turn, talk, started)
            turn.proposal = accept(self._read(turn.answer, talk.model))
        except (TooLong, Garbage, Refused) as error:
            turn.trouble = error
        except Exception as error:
            turn.trouble = error
            raised = talk.limit > self._answer_tokens and not turn.answer
            if not (raised and isinstance(error, NextModel) and not error.retry):
                raise
        finally:
            if turn.cost is not None:
                problem = "" if turn.trouble is None else str(turn.trouble)
                self._write_down(talk, started, turn.cost, problem, self._text(turn.answer))
        return turn

    def _pay_and_send(self, turn: Turn, talk: Talk, started: float) -> None:
        price, begun = self._prices[talk.model], time.monotonic()
        worst = price.worst(self._size(talk.asked, talk.replies), talk.limit)
        with self._purse.allow(worst, f"{self.name}:{talk.model}") as payment:
            self._write_down(talk, started, worst, NO_ANSWER)
            lost = False
            try:
                turn.answer = self._send(talk.model, talk.asked, talk.replies, talk.limit)
            except Lost:
                lost = True
                raise
            finally:
                seconds = time.monotonic() - begun
                spent = price.cost(self._usage(turn.answer), seconds)
                turn.cost = payment.cost = replace(worst, seconds=seconds) if lost else spent

    def _write_down(self, talk: Talk, started: float, cost: Cost, problem: str, answered: str = "") -> None:
        asked = talk.asked.text if not talk.replies else "\n\n".join(map(words, talk.replies[-1:]))
        who = f"{self.name}:{talk.model}"
        self._record(Call(talk.name, who, started, asked, answered, problem, cost))


def forget(call: Call) -> None:
    """No record is kept."""
