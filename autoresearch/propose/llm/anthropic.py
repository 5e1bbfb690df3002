"""A Claude model as the researcher, through the Messages API of Anthropic.

Invariant: an answer goes back into the conversation as it came, thinking included, or not at all; the API
would refuse anything else.

Not covered: the conversation itself (`conversation`), the network (`messages`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, validate_call

from autoresearch.errors import Refused
from autoresearch.propose.budget import Caps, price_table, size_of
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.answer import TOOL_NAME, TOOLS, Given, clean, tools
from autoresearch.propose.llm.conversation import MAX_ANSWER_TOKENS, MIN_LEDGER_TOKENS, LanguageModel, Record
from autoresearch.propose.llm.failures import NextModel, TooLong
from autoresearch.propose.llm.messages import Endpoint
from autoresearch.propose.llm.turns import Answer, Message
from autoresearch.types import Cost


class AnthropicProposer(LanguageModel):
    """Asks a Claude model for the next experiment.

    Args:
        models: Model names. The first is asked first; where there are several, the next ones are chosen by
            what they gained per dollar (see `bandit`), and another one is asked when one cannot answer.
        prices: Model -> dollars per million tokens of each kind (input, output, cache_write, cache_read).
        answer_tokens: Limit of one answer, thinking included.
        effort: "low", "medium", "high", "xhigh" or "max"; None leaves it to the model.
        thinking: "adaptive"; None for models and gateways that do not know it.
        repairs: How often a refused or unusable answer is sent back.
        retries: How often a request that was not carried out (429, 5xx, no connection) is repeated.
        timeout: Seconds for one request.
        ledger_tokens: Budget of the history in the prompt.
        max_dollars: Cap of the search, likewise `max_tokens` and `max_calls`; None is no cap.
        base_url: Another endpoint that speaks the same protocol; None is Anthropic's.
        spent: Money spent before, beyond what the history tells.
        owed: Whom that was spent on.
        record: Where every call is written down.

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
        owed: dict[str, Cost] | None = None,
        record: Record | None = None,
    ) -> None:
        super().__init__(
            models=models,
            prices=price_table(prices, models),
            caps=Caps(max_dollars, max_tokens, max_calls),
            answer_tokens=answer_tokens,
            repairs=repairs,
            ledger_tokens=ledger_tokens,
            spent=spent,
            owed=owed,
            record=record,
        )
        self._endpoint = Endpoint(retries, timeout, base_url)
        self._options = _options(effort, thinking)

    def _send(self, model: str, asked: prompt.Prompt, replies: list[Message], limit: int) -> Answer:
        messages = [{"role": "user", "content": asked.content}, *replies]
        request = {"system": asked.system, "messages": messages, "tools": tools(), **self._options}
        return self._endpoint.ask(model, limit, request)

    def _size(self, asked: prompt.Prompt, replies: list[Message]) -> int:
        return asked.size + size_of(json.dumps([tools(), replies], ensure_ascii=False, default=str))

    def _usage(self, answer: Answer) -> Mapping[str, Any]:
        usage = answer.get("usage")
        return usage if isinstance(usage, Mapping) else {}

    def _cut_off(self, answer: Answer) -> bool:
        return answer.get("stop_reason") == "max_tokens"

    def _read(self, answer: Answer, model: str) -> Given:
        stop = answer.get("stop_reason")
        if stop == "refusal":
            details = answer.get("stop_details")
            known = isinstance(details, Mapping) and details.get("category")
            why = f" ({details['category']})" if known and isinstance(details, Mapping) else ""
            raise NextModel(f"{model} declined to answer{why}", retry=True)
        if stop == "model_context_window_exceeded":
            raise TooLong(f"prompt and answer do not fit the context window of {model}")
        if stop == "max_tokens":
            raise Refused("the answer was cut off before it was complete")
        calls = [block for block in _blocks(answer) if _is_call(block)]
        if not calls:
            raise Refused(
                f"the answer does not call the tool `{TOOL_NAME}`; call it once, with complete edits"
            )
        known = [call for call in calls if call.get("name") in TOOLS]
        chosen = (known or calls)[0]
        return Given(str(chosen.get("name")), chosen.get("input"))

    def _reply(self, answer: Answer, reason: str) -> list[Message]:
        return _reply(answer, reason)

    def _text(self, answer: Answer) -> str:
        shown = [
            {key: value for key, value in block.items() if key != "signature"}
            for block in _blocks(answer)
            if isinstance(block, Mapping)
        ]
        return clean(json.dumps(shown, ensure_ascii=False, indent=1, default=str)) if shown else ""


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
