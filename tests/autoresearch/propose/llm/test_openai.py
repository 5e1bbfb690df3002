"""The proposer for OpenAI-compatible servers against a scripted one: real HTTP, every way to go wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import UserError
from autoresearch.propose import create_proposer
from autoresearch.propose import settings as shipped
from autoresearch.propose.base import ProposerError
from autoresearch.propose.llm.openai import json_in
from autoresearch.types import Edit
from tests.support import chat_server as chat
from tests.support import malformed
from tests.support import messages_server as api
from tests.support.histories import SOURCE, baseline, context, experiment

GOOD_ANSWER = chat.proposal("0.02", "0.03")
GOOD = chat.call(GOOD_ANSWER)
EDIT = (Edit("train.py", "0.02", "0.03"),)
KEY = "sk-local-0123456789"


def check(proposal):
    sources = {"train.py": SOURCE}
    check_rules(sources, apply(sources, proposal.edits), ["train.py"])


@pytest.fixture
def server():
    with chat.ChatServer() as server:
        yield server


@pytest.fixture
def make(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def make(*script, default=None, **options):
        server.script, server.default = list(script), default
        values = shipped("openai") | {
            "base_url": server.url, "models": ["small"], "retries": 0, "timeout": 5.0, "fallback": None
        }  # fmt: skip
        return create_proposer("openai", column=0, **values | options)

    return make


def sent(server):
    return {name.lower(): value for name, value in server.headers[0].items()}


def failure(proposer, past=None):
    with pytest.raises(ProposerError) as raised:
        proposer.ask(context(past), check)[0]
    assert KEY not in str(raised.value)
    return raised.value


def test_a_tool_call_becomes_a_proposal(make, server):
    proposal = make(GOOD).ask(context(), check)[0]
    assert proposal.edits == EDIT and proposal.proposer == "openai:small"
    assert (proposal.expected_effect, proposal.confidence) == (0.01, 0.4)
    assert proposal.cost.calls == 1 and proposal.cost.dollars == 0 and proposal.cost.output_tokens == 100
    request = server.requests[0]
    assert [m["role"] for m in request["messages"]] == ["system", "user"]
    assert "<brief>" in request["messages"][0]["content"]
    assert '<script path="train.py">' in request["messages"][1]["content"]
    function = request["tools"][0]["function"]
    assert function["name"] == "propose" and function["parameters"]["required"]
    assert sent(server)["authorization"] == f"Bearer {KEY}" and KEY not in json.dumps(request)


def test_no_key_no_header(make, server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert make(GOOD, key_variable="NOBODY_HAS_THIS").ask(context(), check)[0].edits == EDIT
    assert "authorization" not in sent(server)


@pytest.mark.parametrize(
    "said",
    [
        api.error(400, "registry/small does not support tools"),
        api.error(500, "tools param requires --jinja flag"),
        api.error(422, '"auto" tool choice requires --enable-auto-tool-choice'),
        api.error(400, "Unrecognized request argument: function"),
        api.Behaviour(501, b"tools are not implemented", content_type="text/plain"),
    ],
)
def test_a_server_without_tools_is_asked_in_words_from_then_on(make, server, said):
    fenced = f"I think:\n```json\n{json.dumps(GOOD_ANSWER, indent=2)}\n```"
    proposer = make(said, chat.words(fenced), chat.words(fenced))
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert "```json" in server.requests[1]["messages"][1]["content"]
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert "tools" in server.requests[0] and "tools" not in server.requests[1] | server.requests[2]
    assert "```json" in server.requests[2]["messages"][0]["content"]
    assert "Call the tool" not in server.requests[2]["messages"][0]["content"]


def test_the_newer_name_of_the_limit(make, server):
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    proposer = make(api.error(400, said), GOOD)
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert "max_completion_tokens" in server.requests[1] and "max_tokens" not in server.requests[1]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD_ANSWER),
        f"<think>maybe {{x}} or ```json {{}}```?</think>\n{json.dumps(GOOD_ANSWER)} Done.",
        f"```\n{json.dumps(GOOD_ANSWER)}\n```",
        f"```json\n{json.dumps({'name': 'propose', 'arguments': GOOD_ANSWER})}\n```",
        f"Of the form {{a: b}}:\n```JSON\n{json.dumps(GOOD_ANSWER)}\n```\nand ```py\nx = {{}}\n```",
    ],
)
def test_json_is_found_in_words(make, text):
    assert make(chat.words(text)).ask(context(), check)[0].edits == EDIT


def test_refused_answers_are_mended_in_the_same_conversation(make, server):
    bad = chat.call(chat.proposal("LR = at(0.05", "x"))
    proposal = make(bad, chat.words("Hm."), GOOD).ask(context(), check)[0]
    assert proposal.edits == EDIT and proposal.cost.calls == 3
    roles = [m["role"] for m in server.requests[2]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "   4 | LR = at(0.02, 0.01)" in server.requests[1]["messages"][3]["content"]


UNUSABLE = [
    *(api.garbage(body) for body in (b"", b"null", b"[]", b"{}", b"17", b"{oops", b"\xff\xfe", b"[" * 9000)),
    api.garbage(b"<html>login</html>", "text/html"),
    api.garbage(b'{"error": {"message": "boom"}}'),
    *(chat.completion(message) for message in (None, "x", [], {}, {"content": 3}, {"tool_calls": "x"})),
    *(chat.completion({"tool_calls": calls}) for calls in ([None], [{}], [{"function": 3}], [[]])),
    *(chat.call(value) for value in ("", "null", "{", "[1]", {}, [], 3)),
    chat.call(GOOD_ANSWER, name="another"),
    chat.call(GOOD_ANSWER, name=["propose"]),
    chat.call(GOOD_ANSWER | {"edits": []}),
    chat.call(GOOD_ANSWER | {"hypothesis": " "}),
    chat.call(GOOD_ANSWER | {"edits": [{"path": "train.py", "search": "0.02", "replace": 3}]}),
    chat.call(chat.proposal("nowhere", "x")),
    chat.call(chat.proposal("0.02", "((")),
    chat.call(chat.proposal("0.02", "0.020")),
    chat.words(""),
    chat.words("\ud800 nothing"),
    chat.words("```json\n{broken\n```"),
    chat.completion({"content": "{"}, "length"),
    chat.completion({"content": None}, None, usage="many"),
    chat.completion({"content": None}, 7, usage={"prompt_tokens": -3, "prompt_tokens_details": [1]}),
]


def test_a_long_row_of_malformed_answers_loses_nothing(make, server):
    proposal = make(*UNUSABLE, GOOD, repairs=len(UNUSABLE)).ask(context(), check)[0]
    assert proposal.edits == EDIT and proposal.cost.calls == len(UNUSABLE) + 1


@pytest.mark.parametrize("answer", malformed.few_by_default(UNUSABLE))
def test_no_malformed_answer_does_harm(make, answer):
    proposer = make(answer, GOOD)
    assert proposer.ask(context(), check)[0].edits == EDIT, "mended"
    assert proposer.spent.calls == 2
    error = failure(make(default=answer, repairs=1))
    assert error.retry and "2 tries" in str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.text("{}[]\"'`json:, \n", max_size=60))
def test_any_text_at_all_is_searched_without_harm(text):
    found = json_in(text)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize(
    ("behaviour", "retry", "says"),
    [
        (api.error(401, "bad key"), False, "rejects the key in OPENAI_API_KEY (401)"),
        (api.error(404, "no such model"), False, "no such model"),
        (api.error(429, "slow down"), True, "429"),
        (api.error(503), True, "503"),
        (api.HANG_UP, True, "broke the connection off"),
        (api.error(402, "top up"), True, "run out of money (402)"),
        (api.Behaviour(wait=1.0), True, "no answer from 127.0.0.1"),
        (api.error(401, f"key {KEY} is bad"), False, "key *** is bad"),
    ],
)
def test_failures_have_a_plain_reason(make, behaviour, retry, says):
    error = failure(make(default=behaviour, timeout=0.2))
    assert error.retry is retry and says in str(error)


def test_it_waits_and_tries_again(make, server):
    proposer = make(*(api.error(status, retry_after="0.001") for status in (429, 500, 502)), GOOD, retries=3)
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert len(server.requests) == 4


def test_nothing_listens(make):
    error = failure(make(base_url="http://127.0.0.1:9/v1"))
    assert error.retry and "cannot be reached" in str(error)


@pytest.mark.parametrize("silence", [api.Behaviour(wait=1.0), api.HANG_UP])
def test_what_left_and_was_not_answered_is_sent_once_and_counts_as_much_as_it_can_cost(make, server, silence):
    prices = {"small": {"input": 2.0, "output": 10.0}}
    proposer = make(default=silence, timeout=0.2, retries=9, prices=prices, answer_tokens=2000)
    assert failure(proposer).retry and len(server.requests) == 1
    assert proposer.spent.dollars > 2000 * 10 / 1e6


@pytest.mark.parametrize("status", [502, 503, 529])
def test_a_server_that_is_busy_is_not_thought_to_know_no_tools(make, server, status):
    proposer = make(api.error(status, "all tool workers are busy", retry_after="0.001"), GOOD, retries=1)
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert "tools" in server.requests[1]


@pytest.mark.parametrize(
    "refusal",
    [
        api.error(400, "max_tokens is too large: 4000. This model supports at most 3000 completion tokens"),
        api.error(400, "This model's maximum context length is 8192 tokens. However, you requested 9000"),
    ],
)
def test_where_there_is_no_more_room_a_shorter_answer_is_asked_for(make, server, refusal):
    cut_off = chat.completion({"content": "{"}, "length")
    proposer = make(cut_off, refusal, GOOD, cut_off, GOOD, answer_tokens=2000)
    assert proposer.ask(context(), check)[0].edits == EDIT
    assert [request["max_tokens"] for request in server.requests] == [2000, 4000, 2000]
    assert "no more room" in server.requests[2]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "said",
    [
        api.error(400, "This model's maximum context length is 8192 tokens."),
        api.error(500, "Context size has been exceeded."),
        api.error(400, "the request exceeds the available context size"),
        api.error(422, "CONTEXT_LENGTH_EXCEEDED"),
        api.error(413),
    ],
)
def test_a_prompt_that_is_too_long_is_sent_with_half_the_history(make, server, said):
    past = [baseline()] + [
        experiment(n, "keep", effect=0.01, scores=(1.7,), diff=f"+{'x = 1 + 2; ' * 50}{n}\n")
        for n in range(1, 40)
    ]
    assert make(said, GOOD).ask(context(past), check)[0].edits == EDIT
    sizes = [len(json.dumps(request)) for request in server.requests]
    assert sizes[1] < sizes[0]


def test_the_next_model_is_asked(make):
    refusal = chat.completion({"role": "assistant", "content": None, "refusal": "no"})
    proposal = make(refusal, GOOD, models=["small", "large"]).ask(context(), check)[0]
    assert proposal.proposer == "openai:large"


def test_money_where_there_is_a_price(make):
    prices = {"small": {"input": 2.0, "output": 10.0, "cache_read": 0.5}}
    cost = make(GOOD, prices=prices).ask(context(), check)[0].cost
    half = cost.input_tokens // 2
    assert cost.dollars == pytest.approx(((cost.input_tokens - half) * 2 + half * 0.5 + 1000) / 1e6, abs=1e-6)
    error = failure(make(default=GOOD, prices=prices, max_dollars=0.01))
    assert not error.retry and "max_dollars" in str(error)


def test_without_its_package_it_says_how_to_install_it(make, monkeypatch):
    monkeypatch.setattr("autoresearch.propose.llm.openai.find_spec", lambda name: None)
    with pytest.raises(UserError, match="package openai") as raised:
        make()
    assert "autoresearch[openai]" in raised.value.hint and raised.value.code == 2


def test_the_environment_of_the_sdk_itself_is_not_sent_to_any_server(make, server, monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert make(GOOD).ask(context(), check)[0].edits == EDIT
    assert "mine" not in server.headers[0].values()


def test_dollars_that_cannot_be_counted_cannot_be_capped(make):
    with pytest.raises(UserError, match="price is not known"):
        make(max_dollars=1.0)
    with pytest.raises(UserError, match="no address"):
        make(base_url="localhost:11434")
