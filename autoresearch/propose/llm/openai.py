"""Any model behind an OpenAI-compatible server as the researcher: local ones, gateways, other providers.

Invariant: the same prompt, the same answer and the same caps as for Anthropic's models; only the envelope
differs. What the server does not know is left out from then on: tools (the answer is then JSON in a fenced
block, which is accepted at any time), and the older name of the answer's limit.

Not covered: the conversation itself (`conversation`), the network (`chat`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, validate_call

from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import Context
from autoresearch.propose.budget import Caps, count, price_table, size_of
from autoresearch.propose.llm import instructions as forms
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.answer import TOOL_NAME, TOOLS, Given, clean, tools
from autoresearch.propose.llm.chat import ChatEndpoint, Unsupported
from autoresearch.propose.llm.conversation import MAX_ANSWER_TOKENS, MIN_LEDGER_TOKENS, LanguageModel, Record
from autoresearch.propose.llm.failures import NextModel
from autoresearch.propose.llm.turns import Answer, Message
from autoresearch.types import Cost

MAX_REPEATED = 40_000
"""Characters of an answer that are sent back to its author."""


class OpenAIProposer(LanguageModel):
    """Asks a model of an OpenAI-compatible server for the next experiment.

    Args:
        base_url: Of the server, up to and without `/chat/completions`.
        key_variable: Environment variable with the key; where it is not set, none is sent.
        models: Model names; as for Anthropic's.
        prices: Model -> dollars per million tokens (input, output, and cache_read if it differs); a model
            that is not listed costs nothing.
        tools: Whether to ask for a tool call; false for servers that do not refuse tools but confuse them.
        answer_tokens: Limit of one answer, thinking included.
        repairs: How often a refused or unusable answer is sent back.
        retries: How often a request that was not carried out (429, 5xx, no connection) is repeated.
        timeout: Seconds for one request.
        ledger_tokens: Budget of the history in the prompt.
        max_dollars: Cap of the search, likewise `max_tokens` and `max_calls`; None is no cap.
        spent: Money spent before, beyond what the history tells.
        owed: Whom that was spent on.
        record: Where every call is written down.

    Raises:
        UserError: If the address or the key cannot be one, or dollars are capped that cannot be counted.
    """

    name = "openai"

    @validate_call
    def __init__(
        self,
        *,
        base_url: str,
        key_variable: str,
        models: Annotated[list[str], Field(min_length=1)],
        prices: dict[str, dict[str, float]],
        tools: bool,
        answer_tokens: Annotated[int, Field(ge=1024, le=MAX_ANSWER_TOKENS)],
        repairs: Annotated[int, Field(ge=0, le=100)],
        retries: Annotated[int, Field(ge=0, le=20)],
        timeout: Annotated[float, Field(gt=0)],
        ledger_tokens: Annotated[int, Field(ge=MIN_LEDGER_TOKENS)],
        max_dollars: Annotated[float, Field(gt=0)] | None,
        max_tokens: Annotated[int, Field(gt=0)] | None,
        max_calls: Annotated[int, Field(gt=0)] | None,
        spent: Cost | None = None,
        owed: dict[str, Cost] | None = None,
        record: Record | None = None,
    ) -> None:
        unpriced = [model for model in models if model not in prices]
        if max_dollars is not None and unpriced:
            raise UserError(
                f"proposer.max_dollars cannot hold for {unpriced[0]!r}, whose price is not known",
                "add it to proposer.prices, or cap max_tokens or max_calls instead",
            )
        super().__init__(
            models=models,
            prices=price_table(prices, models, free=True),
            caps=Caps(max_dollars, max_tokens, max_calls),
            answer_tokens=answer_tokens,
            repairs=repairs,
            ledger_tokens=ledger_tokens,
            spent=spent,
            owed=owed,
            record=record,
        )
        self._endpoint = ChatEndpoint(base_url, key_variable, retries, timeout)
        self._tools = tools
        self._limit_name = "max_tokens"

    def _prompt(self, context: Context, ledger_tokens: int) -> prompt.Prompt:
        return prompt.build(context, ledger_tokens, forms.TOOL if self._tools else forms.JSON)

    def _send(self, model: str, asked: prompt.Prompt, replies: list[Message], limit: int) -> Answer:
        """One request; asked once more without whatever the server says it does not know."""
        for _ in range(3):
            try:
                return self._endpoint.ask(model, self._request(asked, replies, limit))
            except Unsupported as error:
                if error.what == "tools" and self._tools:
                    self._tools = False
                elif error.what == "max_tokens" and self._limit_name == "max_tokens":
                    self._limit_name = "max_completion_tokens"
                else:
                    raise NextModel(f"{model}: {error}", retry=False) from None
        raise AssertionError("unreachable: there are two things to leave out")

    def _request(self, asked: prompt.Prompt, replies: list[Message], limit: int) -> dict[str, Any]:
        words, told = "\n\n".join(b["text"] for b in asked.system), forms.JSON.how in asked.system[0]["text"]
        question = "".join(block["text"] for block in asked.content)
        if not self._tools and not told:  # found out while the prompt was under way
            question += f"\n\nThere is no tool here. Instead:\n{forms.JSON.how}\n\n{forms.JSON.ask}"
        opening = [{"role": "system", "content": words}, {"role": "user", "content": question}]
        request: dict[str, Any] = {"messages": [*opening, *replies], self._limit_name: limit}
        if self._tools:
            request["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": about["name"],
                        "description": about["description"],
                        "strict": True,
                        "parameters": about["input_schema"],
                    },
                }
                for about in tools()
            ]
            request["tool_choice"] = {"type": "function", "function": {"name": TOOL_NAME}}
        return request

    def _size(self, asked: prompt.Prompt, replies: list[Message]) -> int:
        return size_of(json.dumps(self._request(asked, replies, 0), ensure_ascii=False))

    def _usage(self, answer: Answer) -> Mapping[str, Any]:
        usage = answer.get("usage")
        if not isinstance(usage, Mapping):
            return {}
        details = usage.get("prompt_tokens_details")
        cached = count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
        asked = count(usage.get("prompt_tokens"))
        return {
            "input_tokens": max(asked - cached, 0),
            "cache_read_input_tokens": min(cached, asked),
            "output_tokens": count(usage.get("completion_tokens")),
        }

    def _cut_off(self, answer: Answer) -> bool:
        return _choice(answer).get("finish_reason") == "length"

    def _read(self, answer: Answer, model: str) -> Given:
        choice, message = _choice(answer), _message(answer)
        if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
            raise NextModel(f"{model} declined to answer", retry=True)
        if choice.get("finish_reason") == "length":
            raise Refused("the answer was cut off before it was complete")
        for call in _calls(message):
            function = call.get("function")
            if isinstance(function, Mapping) and function.get("name") in TOOLS:
                return Given(str(function["name"]), _loaded(function.get("arguments")))
        found = json_in(message.get("content"))
        if found is None:
            how = f"call the tool `{TOOL_NAME}` once" if self._tools else "answer with one ```json block"
            raise Refused(f"the answer holds no proposal; {how}, with complete edits")
        return Given(TOOL_NAME, found)

    def _reply(self, answer: Answer, reason: str) -> list[Message]:
        text = f"Not accepted: {reason}\nThe files are unchanged. Mend this and propose again."
        words = self._text(answer)[:MAX_REPEATED]
        # As words: every server takes those, while tool results must match calls that may be malformed.
        before = [{"role": "assistant", "content": words}] if words.strip() else []
        return [*before, {"role": "user", "content": clean(text)}]

    def _text(self, answer: Answer) -> str:
        message = _message(answer)
        content = message.get("content")
        parts = [content] if isinstance(content, str) else []
        for call in _calls(message):
            function = call.get("function")
            arguments = function.get("arguments") if isinstance(function, Mapping) else None
            parts.append(arguments if isinstance(arguments, str) else json.dumps(arguments, default=str))
        return clean("\n".join(parts))


def json_in(content: object) -> dict[str, Any] | None:
    """The proposal that a text holds: in a fenced block if there is one, else the first object in it."""
    text = content if isinstance(content, str) else ""
    text = text.rpartition("</think>")[2]
    starts = [match.end() for match in re.finditer(r"```(?:json|JSON)?\s*(?=\{)", text)]
    starts += [match.start() for match in re.finditer(r"\{", text)][:20]
    for start in starts:
        try:
            found, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        for inner in (found, found.get("arguments"), found.get("parameters"), found.get("input")):
            if isinstance(inner, dict) and {"edits", "hypothesis"} & inner.keys():
                return inner
    return None


def _loaded(arguments: object) -> object:
    """The input of a call: a JSON text by the book, an object from some servers."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.JSONDecoder(strict=False).decode(arguments)
    except (ValueError, RecursionError):
        return json_in(arguments)


def _choice(answer: Answer) -> Mapping[str, Any]:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _message(answer: Answer) -> Mapping[str, Any]:
    message = _choice(answer).get("message")
    return message if isinstance(message, Mapping) else {}


def _calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
