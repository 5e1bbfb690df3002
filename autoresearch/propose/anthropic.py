"""An LLM as the researcher, through the Anthropic Messages API.

Invariant: `propose` returns a proposal that `check` has accepted, or raises `ProposerError` with a plain
reason, whatever the model or the network sends. What all its calls cost, failed ones included, is the cost of
the next proposal.

One conversation is one proposal: what is refused goes back to the model as the result of its tool call, up to
`repairs` times. A model that declines, is overloaded or unknown is passed over for the next in the list.

Not covered: what the model sees (`prompt`), what it must answer (`answer`), prices and caps (`money`), the
network (`messages`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, validate_call

from autoresearch.propose import prompt
from autoresearch.propose.answer import TOOL_NAME, clean, parse, tool
from autoresearch.propose.messages import Endpoint, Garbage, NextModel, TooLong
from autoresearch.propose.money import Caps, Purse, price_table
from autoresearch.types import Check, Context, Cost, Proposal, ProposerError, Refused

MIN_LEDGER_TOKENS = 500
"""If a prompt with so small a ledger is too long, the script itself is."""

MAX_ANSWER_TOKENS = 64_000
"""A cut-off answer is asked for again with twice the room, up to this."""

Message = dict[str, Any]
Answer = Mapping[str, Any]


class AnthropicProposer:
    """Asks a Claude model for the next experiment.

    Args:
        models: Model names; a later one is asked when an earlier one cannot answer.
        prices: Model -> dollars per million tokens of each kind (input, output, cache_write, cache_read).
        answer_tokens: Limit of one answer, thinking included.
        effort: "low", "medium", "high", "xhigh" or "max"; None leaves it to the model.
        thinking: "adaptive"; None for models and gateways that do not know it.
        repairs: How often a refused or unusable answer is sent back.
        retries: How often the SDK repeats a request that failed (429, 5xx, network), waiting in between.
        timeout: Seconds for one request.
        ledger_tokens: Budget of the history in the prompt.
        max_dollars: Cap of the search, likewise `max_tokens` and `max_calls`; None is no cap.
        base_url: Another endpoint that speaks the same protocol; None is Anthropic's.
        spent: Money spent before, beyond what the history tells.

    Raises:
        UserError: If the key or a price is missing.
    """

    name = "anthropic"
    instant = False

    @validate_call
    def __init__(
        self,
        *,
        models: Annotated[list[str], Field(min_length=1)],
        prices: dict[str, dict[str, float]],
        answer_tokens: Annotated[int, Field(ge=1024, le=MAX_ANSWER_TOKENS)],
        effort: Literal["low", "medium", "high", "xhigh", "max"] | None,
        thinking: Literal["adaptive"] | None,
        repairs: Annotated[int, Field(ge=0, le=100)],
        retries: Annotated[int, Field(ge=0, le=20)],
        timeout: Annotated[float, Field(gt=0)],
        ledger_tokens: Annotated[int, Field(ge=MIN_LEDGER_TOKENS)],
        max_dollars: Annotated[float, Field(gt=0)] | None,
        max_tokens: Annotated[int, Field(gt=0)] | None,
        max_calls: Annotated[int, Field(gt=0)] | None,
        base_url: str | None,
        spent: Cost | None = None,
    ) -> None:
        self._models = models
        self._purse = Purse(Caps(max_dollars, max_tokens, max_calls), spent or Cost(), self.name)
        self._endpoint = Endpoint(price_table(prices, models), self._purse, retries, timeout, base_url)
        self._answer_tokens = answer_tokens
        self._options = _options(effort, thinking)
        self._repairs = repairs
        self._ledger_tokens = ledger_tokens

    @property
    def spent(self) -> Cost:
        """Everything this search has paid so far."""
        return self._purse.spent

    def propose(self, context: Context, check: Check) -> Proposal:
        """See `autoresearch.types.Proposer`."""
        self._purse.read(context.paid)
        failed: list[NextModel] = []
        for model in self._models:
            try:
                return self._converse(model, context, check)
            except NextModel as error:
                failed.append(error)
        reasons = "; ".join(str(error) for error in failed)
        raise ProposerError(reasons, retry=any(error.retry for error in failed))

    def _converse(self, model: str, context: Context, check: Check) -> Proposal:
        """Ask one model until its answer is accepted."""
        asked = prompt.build(context, self._ledger_tokens)
        replies: list[Message] = []
        limit, reason = self._answer_tokens, ""
        for _ in range(self._repairs + 1):
            answer: Answer = {}
            try:
                answer = self._ask(model, asked, replies, limit)
                proposal = _read(answer, model, self.name)
                check(proposal)
            except TooLong as error:
                asked, replies, reason = self._shorter(context, error), [], str(error)
            except Garbage as error:
                reason = str(error)
            except Refused as refused:
                reason = str(refused)
                if answer.get("stop_reason") == "max_tokens":
                    limit = max(limit, min(2 * limit, MAX_ANSWER_TOKENS))
                else:
                    replies += _reply(answer, reason)
            else:
                return self._signed(proposal)
        raise ProposerError(
            f"{model}: no usable answer in {self._repairs + 1} tries; the last: {reason}", retry=True
        )

    def _ask(self, model: str, asked: prompt.Prompt, replies: list[Message], limit: int) -> Answer:
        tools = [tool()]
        messages = [{"role": "user", "content": asked.content}, *replies]
        characters = asked.characters + len(json.dumps([tools, replies]))
        request = {"system": asked.system, "messages": messages, "tools": tools, **self._options}
        return self._endpoint.ask(model, characters, limit, request)

    def _shorter(self, context: Context, error: TooLong) -> prompt.Prompt:
        """The prompt with half the history; later prompts stay as short."""
        self._ledger_tokens //= 2
        if self._ledger_tokens < MIN_LEDGER_TOKENS:
            raise ProposerError(f"the script and the brief alone are too long for a prompt: {error}")
        return prompt.build(context, self._ledger_tokens)

    def _signed(self, proposal: Proposal) -> Proposal:
        """The proposal with everything it cost."""
        billed = replace(proposal, cost=self._purse.bill())
        self._purse.ours(billed)
        return billed


def _options(effort: str | None, thinking: str | None) -> dict[str, Any]:
    """Request options that never change.

    A forced tool call and thinking exclude each other on several models, so with thinking the call is asked
    for in the prompt; the tool is strict either way.
    """
    forced = {"type": "tool", "name": TOOL_NAME}
    options: dict[str, Any] = {
        "tool_choice": {**({"type": "auto"} if thinking else forced), "disable_parallel_tool_use": True}
    }
    if thinking:
        options["thinking"] = {"type": thinking}
    if effort:
        options["output_config"] = {"effort": effort}
    return options


def _read(answer: Answer, model: str, name: str) -> Proposal:
    """The proposal in an answer.

    Raises:
        Refused: With the reason, for the model.
        NextModel: If the model declined.
        TooLong: If the answer ran into the end of the context window.
    """
    stop = answer.get("stop_reason")
    if stop == "refusal":
        details = answer.get("stop_details")
        why = f" ({details['category']})" if isinstance(details, Mapping) and details.get("category") else ""
        raise NextModel(f"{model} declined to answer{why}", retry=True)
    if stop == "model_context_window_exceeded":
        raise TooLong(f"prompt and answer do not fit the context window of {model}")
    if stop == "max_tokens":
        raise Refused("the answer was cut off before it was complete")
    calls = [block for block in _blocks(answer) if _is_call(block) and block.get("name") == TOOL_NAME]
    if not calls:
        raise Refused(f"the answer does not call the tool `{TOOL_NAME}`; call it once, with complete edits")
    return parse(calls[0].get("input"), f"{name}:{model}")


def _reply(answer: Answer, reason: str) -> list[Message]:
    """The turns that send a refusal back: as results of the tool calls where the answer can be repeated.

    An answer that the API would not take back (malformed blocks) is left out of the conversation.
    """
    text = f"Not accepted: {reason}\nThe files are unchanged. Mend this and call `{TOOL_NAME}` again."
    blocks = _blocks(answer)
    if not blocks or not all(_can_be_repeated(block) for block in blocks):
        return [{"role": "user", "content": [{"type": "text", "text": clean(text)}]}]
    results: list[Message] = [
        {"type": "tool_result", "tool_use_id": block["id"], "is_error": True, "content": clean(text)}
        for block in blocks
        if _is_call(block)
    ]
    back = results or [{"type": "text", "text": clean(text)}]
    return [{"role": "assistant", "content": blocks}, {"role": "user", "content": back}]


def _blocks(answer: Answer) -> list[Any]:
    content = answer.get("content")
    return content if isinstance(content, list) else []


def _is_call(block: object) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "tool_use"


def _can_be_repeated(block: object) -> bool:
    """Whether the API takes a content block back as it came."""
    if not isinstance(block, Mapping):
        return False
    try:
        json.dumps(block, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    kind = block.get("type")
    if kind == "tool_use":
        return isinstance(block.get("input"), Mapping) and all(_filled(block.get(k)) for k in ("id", "name"))
    if kind == "thinking":
        return isinstance(block.get("thinking"), str) and _filled(block.get("signature"))
    return (kind == "text" and _filled(block.get("text"))) or (
        kind == "redacted_thinking" and _filled(block.get("data"))
    )


def _filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
