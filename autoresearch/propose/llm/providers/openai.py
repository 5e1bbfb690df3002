"""Lets any model behind an OpenAI-compatible server propose: local servers, gateways, other providers.

Invariant: prompt, answer and limits are the same as for Anthropic's models; only the wire format differs.
Features that the server lacks are left out after its first refusal: tools (the answer is then JSON in a
fenced block, which is accepted at any time), the older name of the answer's limit, and streams (`api`).

Not covered: the conversation itself (`conversation`), the network (`api`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import httpx2

from autoresearch.errors import Refused, UserError
from autoresearch.propose.base import SearchServices
from autoresearch.propose.budget import count, price_table
from autoresearch.propose.llm import prompt
from autoresearch.propose.llm.answer import TOOL_NAME, Answered, CutOff, as_utf8, mapping, tool
from autoresearch.propose.llm.conversation import LanguageModel
from autoresearch.propose.llm.providers.api import Api, key_from
from autoresearch.propose.llm.providers.failures import NextModel, Server, Unsupported
from autoresearch.propose.llm.providers.formats import proposal_in, text_of, unpacked
from autoresearch.propose.llm.request import Conversation, Message, ModelOptions, Reply

MAX_REPEATED = 40_000
"""Characters of an answer that are sent back to its author."""


class OpenAIOptions(ModelOptions):
    """The settings of `proposer=openai`. A model without a price costs nothing.

    Attributes:
        base_url: Of the server, up to and without `/chat/completions`.
        key_variable: Environment variable with the key; where it is not set, none is sent.
        tools: Whether to ask for a tool call; set it to false for servers that accept tools but misuse them.
    """

    base_url: str
    key_variable: str
    tools: bool


class OpenAIProposer(LanguageModel):
    """Asks a model of an OpenAI-compatible server for the next experiment.

    Args:
        services: What the search lends.
        options: See `OpenAIOptions`.

    Raises:
        UserError: If the SDK is not installed, the address or the key cannot be one, or dollars are capped
            that cannot be counted.
    """

    name = "openai"
    _free = True

    def __init__(self, *, services: SearchServices | None = None, **options: Any) -> None:
        values = OpenAIOptions(**options)
        unpriced = [model for model in values.models if model not in values.prices]
        if values.max_dollars is not None and unpriced:
            raise UserError(
                f"proposer.max_dollars cannot hold for {unpriced[0]!r}, whose price is not known",
                "add it to proposer.prices, or cap max_tokens or max_calls instead",
            )
        if not re.fullmatch(r"https?://\S+", values.base_url):
            raise UserError(
                f"proposer.base_url is no address: {values.base_url!r}",
                "for example http://localhost:11434/v1",
            )
        if find_spec("openai") is None:
            raise UserError(
                "proposer=openai needs the package openai, which is not installed",
                "pip install 'autoresearch[openai]'",
            )
        super().__init__(values, price_table(values.prices, values.models, free=True), services, _api(values))
        self._tools = values.tools
        self._limit_name = "max_tokens"

    def _form(self) -> prompt.Form:
        return prompt.TOOL if self._tools else prompt.JSON

    def _send(self, conversation: Conversation) -> Reply:
        """Send one request; send it again without a feature that the server says it lacks."""
        for _ in range(3):
            try:
                return self._api.ask(self._body(conversation))
            except Unsupported as error:
                if error.what == "tools" and self._tools:
                    self._tools = False
                elif error.what == "max_tokens" and self._limit_name == "max_tokens":
                    self._limit_name = "max_completion_tokens"
                else:
                    raise NextModel(f"{conversation.model}: {error}", retry=False) from None
        raise AssertionError("unreachable: there are two things to leave out")

    def _body(self, conversation: Conversation) -> dict[str, Any]:
        system = "\n\n".join(block["text"] for block in conversation.asked.system)
        question = "".join(block["text"] for block in conversation.asked.content)
        lacking = not self._tools and not conversation.role
        if lacking and prompt.JSON.how not in system:  # the server said so after the prompt was made
            question += f"\n\nThere is no tool here. Instead:\n{prompt.JSON.how}\n\n{prompt.JSON.ask}"
        opening = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        body: dict[str, Any] = {"model": conversation.model, "messages": [*opening, *conversation.messages]}
        body[self._limit_name] = conversation.limit
        if self._tools and not conversation.role:
            about = tool(conversation.metric)
            function = {"parameters": about.pop("input_schema"), **about}
            body["tools"] = [{"type": "function", "function": function}]
            body["tool_choice"] = {"type": "function", "function": {"name": TOOL_NAME}}
        return body

    def _usage(self, reply: Reply) -> Mapping[str, Any]:
        usage = mapping(reply.get("usage"))
        cached = count(mapping(usage.get("prompt_tokens_details")).get("cached_tokens"))
        cached = cached or count(usage.get("prompt_cache_hit_tokens"))
        asked = count(usage.get("prompt_tokens"))
        # Some servers leave the thoughts out of the completion, though not out of the bill.
        output = max(count(usage.get("completion_tokens")), count(usage.get("total_tokens")) - asked)
        return {
            "input_tokens": max(asked - cached, 0),
            "cache_read_input_tokens": min(cached, asked),
            "output_tokens": output,
        }

    def _read(self, reply: Reply, model: str) -> Answered:
        choice = _choice(reply)
        message = mapping(choice.get("message"))
        if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
            raise NextModel(f"{model} declined to answer")
        if choice.get("finish_reason") == "length":
            raise CutOff
        for function in _functions(message):
            if str(function.get("name")).rpartition(".")[2] == TOOL_NAME:
                return Answered(TOOL_NAME, _arguments(function.get("arguments")))
        found = proposal_in(text_of(message.get("content")))
        for name in ("reasoning_content", "reasoning"):  # some servers take the answer for a thought
            found = found or proposal_in(text_of(message.get(name)))
        if found is None:
            how = f"call the tool `{TOOL_NAME}` once" if self._tools else "answer with one ```json block"
            raise Refused(f"the answer holds no proposal; {how}, with complete edits")
        return Answered(TOOL_NAME, found)

    def _refusal(self, reply: Reply, reason: str) -> list[Message]:
        text = f"Not accepted: {reason}\nThe files are unchanged. Mend this and propose again."
        words = self._text(reply)[:MAX_REPEATED]
        # As text, which every server accepts; tool results must match calls, which may be malformed.
        before = [{"role": "assistant", "content": words}] if words.strip() else []
        return [*before, {"role": "user", "content": as_utf8(text)}]

    def _said(self, reply: Reply) -> str:
        return as_utf8(text_of(mapping(_choice(reply).get("message")).get("content")))

    def _text(self, reply: Reply) -> str:
        message = mapping(_choice(reply).get("message"))
        parts = [said] if (said := text_of(message.get("content"))) else []
        for function in _functions(message):
            arguments = function.get("arguments")
            parts.append(arguments if isinstance(arguments, str) else json.dumps(arguments, default=str))
        return as_utf8("\n".join(parts))


def _api(values: OpenAIOptions) -> Api:
    """The interface; it ignores the environment variables of the SDK."""
    key = key_from(values.key_variable, os.environ.get(values.key_variable, ""))

    def connect(http: httpx2.Client) -> Any:
        import openai

        omitted: Any = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.omit)
        return openai.OpenAI(
            api_key=key or "none",
            base_url=values.base_url,
            max_retries=values.retries,
            http_client=http,
            default_headers=omitted,
        )

    host = re.sub(r"^https?://([^/@]*@)?|/.*$", "", values.base_url)
    server = Server(host, key, values.key_variable, varied=True)
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return Api(server, "/chat/completions", connect, values.timeout, stream)


def _choice(reply: Reply) -> Mapping[str, Any]:
    choices = reply.get("choices")
    return mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _functions(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The functions that a message calls, also by the older name of a call."""
    calls = message.get("tool_calls")
    found = [mapping(mapping(call).get("function")) for call in calls] if isinstance(calls, list) else []
    return [function for function in (*found, mapping(message.get("function_call"))) if function]


def _arguments(arguments: object) -> object:
    """The input of a call: by the standard a JSON text, from some servers an object, or words around one."""
    try:
        return unpacked(arguments, "the input of the tool call")
    except Refused:
        found = proposal_in(arguments) if isinstance(arguments, str) else None
        if found is None:
            raise
        return found
