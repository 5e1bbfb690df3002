"""Asks a language model of any provider for a proposal; each conversation gives one, and variants of it.

Invariant: `ask` returns a proposal that `check` has accepted, or raises `ProposerError` with a plain reason,
whatever the model or the network sends. A refused answer goes back to the model up to `repairs` times.

Not covered: one request, its price and its record (`request`), wire formats and the network (`providers`),
what the model sees (`prompt`), what it must answer (`answer`), which model is asked first (`strategy`).
"""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from autoresearch.clock import now
from autoresearch.config.roles import Role, split
from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import Check, Context, ProposerError, SearchServices
from autoresearch.propose.budget import Capped, Price
from autoresearch.propose.llm import prompt, roles
from autoresearch.propose.llm.answer import MAX_VARIANTS, Answered, CutOff, accept
from autoresearch.propose.llm.providers.api import Api
from autoresearch.propose.llm.providers.failures import Malformed, NextModel, TooLong
from autoresearch.propose.llm.request import (
    MAX_ANSWER_TOKENS,
    MIN_HISTORY_TOKENS,
    Conversation,
    Exchange,
    Message,
    ModelOptions,
    Reply,
    Requester,
)
from autoresearch.propose.llm.strategy import ranked
from autoresearch.types import Proposal

BRIEFER = "your answer was cut off at its limit, and there is no more room: think less, and change less"

MAX_QUESTIONS = 16
"""Conversations with a model at the same time: providers limit the rate."""


class LanguageModel(Requester):
    """The part that all providers share; a subclass says what to send, how to read answers, and how to reply.

    Args:
        options: The settings.
        prices: Prices of every model.
        services: Services of the search; None outside a search.
        api: The provider's interface.
    """

    reads_ideas = True
    questions = MAX_QUESTIONS

    def __init__(
        self, options: ModelOptions, prices: Mapping[str, Price], services: SearchServices | None, api: Api
    ) -> None:
        super().__init__(options, prices, services, api)
        self._waiting: set[str] = set()
        self._prompts = prompt.Writer()

    def ask(self, context: Context, check: Check, n: int = 1) -> list[Proposal]:
        """A proposal, and at most n - 1 variants of it; see `autoresearch.propose.base.Proposer`."""
        self._budget.read(context.paid)
        name = conversation_name(context)
        failed: list[ProposerError | NextModel] = []
        parts = _roles(context.brief)
        own = parts.get("proposer")
        models = [own.model] if own and own.model else self._options.models
        for model in ranked(models, context, self.name, self._budget.unbilled):
            try:
                found = self._converse(model, self._scouted(parts, model, context, name), check, name, n)
            except (NextModel, Capped) as error:  # a cheaper model may still fit under a cap
                failed.append(error)
                if isinstance(error, NextModel):
                    self._tell_of_wait(model, error)
            else:
                self._waiting.discard(model)
                return found
        reasons = "; ".join(dict.fromkeys(str(error) for error in failed))
        capped = all(isinstance(error, Capped) for error in failed)  # which is the end that a person has set
        raise ProposerError(reasons, retry=any(error.retry for error in failed), exhausted=capped)

    def _tell_of_wait(self, model: str, error: Exception) -> None:
        """Say once that others are asked before a model, until it gives a proposal again."""
        if len(self._options.models) > 1 and model not in self._waiting:
            self._waiting.add(model)
            self._say(f"{error}. The other models are asked before {model} until it gives a proposal.")

    # Each provider implements these

    @abstractmethod
    def _read(self, reply: Reply, model: str) -> Answered:
        """Which tool is named, and its input; raises `Refused`, `NextModel` (it declined) or `TooLong`."""

    @abstractmethod
    def _refusal(self, reply: Reply, reason: str) -> list[Message]:
        """The messages that send a refusal back."""

    @abstractmethod
    def _said(self, reply: Reply) -> str:
        """The words of an answer that calls no tool."""

    def _form(self) -> prompt.Form:
        """The form of the answer."""
        return prompt.TOOL

    # The conversation

    def _converse(self, model: str, context: Context, check: Check, name: str, n: int) -> list[Proposal]:
        """Ask one model until its answer is accepted."""
        limit, history_tokens, reason = self._options.answer_tokens, self._options.ledger_tokens, ""
        asked = self._prompt(context, history_tokens, n)
        conversation = Conversation(model, name, context.metric, asked, limit, history_tokens, n=n)
        critic, first = _roles(context.brief).get(roles.CRITIC), list[Proposal]()
        while conversation.tries <= self._options.repairs:
            try:
                exchange = self._exchange(conversation, context, check)
            except (NextModel, ProposerError):
                if first:  # what was objected to is better than nothing
                    break
                raise
            if (found := exchange.proposals) and critic and not first:
                words = self._consult(critic, model, context, name, found)
                if objected := roles.objections(words):
                    first = found
                    conversation.messages += self._refusal(exchange.reply, f"the critic says: {objected}")
                    continue
            if found:
                return [self._budget.bill(proposal, name) for proposal in found]
            reason = str(exchange.problem)
            self._continue(conversation, exchange, context)
        if first:
            return [self._budget.bill(proposal, name) for proposal in first]
        raise NextModel(f"{model}: no usable answer in {conversation.tries} tries; the last: {reason}")

    # The roles of a brief

    def _scouted(self, parts: Mapping[str, Role], model: str, context: Context, name: str) -> Context:
        """The context with what the scout suggests, if the brief has one."""
        scout = parts.get(roles.SCOUT)
        return replace(context, advice=self._consult(scout, model, context, name)) if scout else context

    def _consult(
        self, role: Role, model: str, context: Context, name: str, proposals: Sequence[Proposal] = ()
    ) -> str:
        """What a role says; empty if it cannot answer, or may not since that could break a cap.

        Args:
            role: Whom to ask.
            model: Of the proposer; it pays, and answers unless the role has a model of its own.
            context: What it may know.
            name: Of the conversation.
            proposals: For the critic.
        """
        options, form = self._options, replace(self._form(), ask=roles.ask_of(role, proposals))
        asked = self._prompts.build(context, options.ledger_tokens, form)
        who, limit = role.model or model, options.answer_tokens
        question = Conversation(
            who, name, context.metric, asked, limit, options.ledger_tokens, role=role.name
        )
        exchange, started = Exchange(), now()
        said = ""
        try:
            self._pay_and_send(exchange, question, started, payer=model)
            said = self._said(exchange.reply).rpartition("</think>")[2].strip()[: roles.MOST]
        except (NextModel, Capped, TooLong, Malformed) as error:
            exchange.problem = error
        finally:
            if exchange.cost is not None:
                problem = "" if said else str(exchange.problem or "it said nothing")
                self._write_down(question, started, exchange.cost, problem, said)
        return said

    def _prompt(self, context: Context, history_tokens: int, n: int) -> prompt.Prompt:
        return self._prompts.build(context, history_tokens, self._form(), min(n - 1, MAX_VARIANTS))

    def _continue(self, conversation: Conversation, exchange: Exchange, context: Context) -> None:
        """Prepare the next request after an answer without a proposal."""
        problem, usual_limit = exchange.problem, self._options.answer_tokens
        rejected = not exchange.reply and isinstance(problem, TooLong | NextModel)
        conversation.tries += not rejected
        if rejected and conversation.limit > usual_limit:
            # The server rejected the request, and only its limit is new.
            conversation.limit, conversation.at_limit = usual_limit, True
            conversation.messages += self._refusal({}, BRIEFER)
        elif isinstance(problem, TooLong):
            self._shorten(conversation, context, str(problem))
        elif isinstance(problem, CutOff):
            room = min(2 * conversation.limit, MAX_ANSWER_TOKENS)
            if conversation.at_limit or room <= conversation.limit:
                conversation.messages += self._refusal({}, BRIEFER)
            else:
                conversation.limit = room
        elif isinstance(problem, Refused):
            conversation.messages += self._refusal(exchange.reply, str(problem))

    def _shorten(self, conversation: Conversation, context: Context, reason: str) -> None:
        """Start again with half the history; the next conversation tries the whole history."""
        conversation.history_tokens //= 2
        if conversation.history_tokens < MIN_HISTORY_TOKENS:
            message = f"the script and the brief alone are too long for a prompt: {reason}"
            raise NextModel(message, retry=False)
        conversation.asked = self._prompt(context, conversation.history_tokens, conversation.n)
        conversation.messages = []

    def _exchange(self, conversation: Conversation, context: Context, check: Check) -> Exchange:
        """Send one request; pay for it and record it in every case."""
        exchange, started = Exchange(), now()
        try:
            self._pay_and_send(exchange, conversation, started)
            answered = self._read(exchange.reply, conversation.model)
            who = f"{self.name}:{conversation.model}"
            exchange.proposals = accept(answered, who, context, check, conversation.n)
        except (TooLong, Malformed, Refused) as error:
            exchange.problem = error
        except Exception as error:
            exchange.problem = error
            raised = conversation.limit > self._options.answer_tokens and not exchange.reply
            if not (raised and isinstance(error, NextModel) and not error.retry):
                raise
        finally:
            if exchange.cost is not None:
                problem = "" if exchange.problem is None else str(exchange.problem)
                self._write_down(conversation, started, exchange.cost, problem, self._text(exchange.reply))
        return exchange


def _roles(brief: str) -> Mapping[str, Role]:
    """The roles of a brief; none while a person writes what cannot be read."""
    with suppress(UserError):
        return split(brief)[1]
    return {}


def conversation_name(context: Context) -> str:
    """A new name for the calls that lead to the next proposal."""
    return f"{len(context.history):04d}-{uuid.uuid4().hex[:12]}"
