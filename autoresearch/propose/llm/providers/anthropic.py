"""Lets a Claude model propose, through the Messages API of Anthropic.

Invariant: an answer goes back into the conversation unchanged, thinking included, or not at all; the API
refuses anything else.

Not covered: the conversation itself (`conversation`), the network (`api`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

import httpx2

from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import SearchServices
from autoresearch.propose.budget import price_table
from autoresearch.propose.llm.answer import TOOL_NAME, Answered, CutOff, as_utf8, mapping, tool
from autoresearch.propose.llm.conversation import LanguageModel
from autoresearch.propose.llm.providers.api import Api, key_from
from autoresearch.propose.llm.providers.failures import NextModel, Server, TooLong
from autoresearch.propose.llm.providers.formats import proposal_in, text_of, unpacked
from autoresearch.propose.llm.request import Conversation, Message, ModelOptions, Reply

KEY = "ANTHROPIC_API_KEY"


class AnthropicOptions(ModelOptions):
    """The settings of `proposer=anthropic`.

    Attributes:
        effort: How much the model thinks; None leaves it to the model.
        thinking: "adaptive"; None for models and gateways without it.
        base_url: Another endpoint that speaks the same protocol; None is Anthropic's.
    """

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    thinking: Literal["adaptive"] | None
    base_url: str | None


class AnthropicProposer(LanguageModel):
    """Asks a Claude model for the next experiment.

    Args:
        services: Services of the search.
        options: See `AnthropicOptions`.

    Raises:
        UserError: If the key or a price is missing.
    """

    name = "anthropic"

    def __init__(self, *, services: SearchServices | None = None, **options: Any) -> None:
        values = AnthropicOptions(**options)
        prices = price_table(values.prices, values.models)
        super().__init__(values, prices, services, connected(values))
        self._fixed = _fixed(values.effort, values.thinking)

    def _body(self, conversation: Conversation) -> dict[str, Any]:
        messages = [{"role": "user", "content": conversation.asked.content}, *conversation.messages]
        return {
            "model": conversation.model,
            "max_tokens": conversation.limit,
            "system": conversation.asked.system,
            "messages": messages,
            "tools": [tool(conversation.metric)],
            **self._fixed,
            **({"tool_choice": {"type": "none"}} if conversation.role else {}),
        }

    def _usage(self, reply: Reply) -> Mapping[str, Any]:
        return mapping(reply.get("usage"))

    def _read(self, reply: Reply, model: str) -> Answered:
        stop = reply.get("stop_reason")
        if stop == "refusal":
            category = mapping(reply.get("stop_details")).get("category")
            raise NextModel(f"{model} declined to answer" + (f" ({category})" if category else ""))
        if stop == "model_context_window_exceeded":
            raise TooLong(f"prompt and answer do not fit the context window of {model}")
        if stop == "max_tokens":
            raise CutOff
        calls = [block for block in _blocks(reply) if _is_call(block)]
        if not calls and (found := proposal_in(text_of(_blocks(reply)))) is not None:
            return Answered(TOOL_NAME, found)
        if not calls:
            raise Refused(
                f"the answer does not call the tool `{TOOL_NAME}`; call it once, with complete edits"
            )
        known = [call for call in calls if call.get("name") == TOOL_NAME]
        chosen = (known or calls)[0]
        return Answered(str(chosen.get("name")), unpacked(chosen.get("input"), "the input of the tool call"))

    def _refusal(self, reply: Reply, reason: str) -> list[Message]:
        """As results of the tool calls, if the API accepts the answer unchanged."""
        text = as_utf8(
            f"Not accepted: {reason}\nThe files are unchanged. Mend this and call `{TOOL_NAME}` again."
        )
        words = [{"type": "text", "text": text}]
        blocks = _blocks(reply)
        if not blocks or not all(_can_be_repeated(block) for block in blocks):
            return [{"role": "user", "content": words}]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "is_error": True, "content": text}
            for block in blocks
            if _is_call(block)
        ]
        return [{"role": "assistant", "content": blocks}, {"role": "user", "content": results or words}]

    def _said(self, reply: Reply) -> str:
        return as_utf8(text_of(_blocks(reply)))

    def _text(self, reply: Reply) -> str:
        shown = [
            {key: value for key, value in block.items() if key != "signature"}
            for block in _blocks(reply)
            if isinstance(block, Mapping)
        ]
        return as_utf8(json.dumps(shown, ensure_ascii=False, indent=1, default=str)) if shown else ""


def connected(values: AnthropicOptions) -> Api:
    """The Messages API, with the key of the environment.

    Raises:
        UserError: If there is no key.
    """
    key = key_from(KEY, os.environ.get(KEY, ""))
    if not key:
        raise UserError(
            f"the anthropic proposer needs an API key, and {KEY} is not set",
            f"export {KEY}=..., or use proposer=optuna, which needs no key",
        )

    def connect(http: httpx2.Client) -> Any:
        import anthropic

        return anthropic.Anthropic(
            api_key=key, base_url=values.base_url, max_retries=values.retries, http_client=http
        )

    return Api(Server("the API", key, KEY), "/v1/messages", connect, values.timeout, {"stream": True})


def _fixed(effort: str | None, thinking: str | None) -> dict[str, Any]:
    """Request options that never change."""
    # A forced tool call and thinking exclude each other on several models, so with thinking the call is asked
    # for in the prompt; the tool is strict either way.
    forced = {"type": "tool", "name": TOOL_NAME}
    options: dict[str, Any] = {
        "tool_choice": {**({"type": "auto"} if thinking else forced), "disable_parallel_tool_use": True}
    }
    if thinking:
        options["thinking"] = {"type": thinking}
    if effort:
        options["output_config"] = {"effort": effort}
    return options


def _blocks(reply: Reply) -> list[Any]:
    content = reply.get("content")
    return content if isinstance(content, list) else []


def _is_call(block: object) -> bool:
    return mapping(block).get("type") == "tool_use"


def _can_be_repeated(block: object) -> bool:
    """Whether the API accepts a content block unchanged."""
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
