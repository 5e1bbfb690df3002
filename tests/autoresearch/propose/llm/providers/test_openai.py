"""The proposer for OpenAI-compatible servers against a scripted one: real HTTP, every way to go wrong."""

import contextlib
import gzip
import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import Refused, UserError
from autoresearch.propose import create_proposer
from autoresearch.propose import settings as shipped
from autoresearch.propose.base import ProposerError
from autoresearch.propose.llm.providers.formats import proposal_in
from autoresearch.types import Category, Edit, Idea
from tests.support import chat_server as chat
from tests.support import malformed
from tests.support import messages_server as api
from tests.support.histories import SOURCE, baseline, context, experiment
from tests.support.services import make_services

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


def test_an_answer_may_ask_for_a_tuning_a_sweep_or_a_diagnosis(make):
    tuned = GOOD_ANSWER | {"tune": "LR 0.01..0.1 log; WARMUP 0.0..0.1", "points": 3}
    told = f"```json\n{json.dumps(GOOD_ANSWER | {'edits': [], 'tune': 'LR: 0.01 | 0.04'})}\n```"
    asked = GOOD_ANSWER | {"diagnose": True, "tune": "LR x4"}
    proposer = make(
        chat.call(tuned), chat.words(told), chat.call(asked), chat.call(GOOD_ANSWER | {"edits": []}), GOOD
    )
    tuning, sweep, diagnosis, mended = (proposer.ask(context(), check)[0] for _ in range(4))
    assert (tuning.tuning.kind, tuning.tuning.points, tuning.edits) == ("tuning", 3, EDIT)
    assert (sweep.tuning.kind, sweep.tuning.values) == ("sweep", {"LR": 0.01})
    assert diagnosis.diagnostic and diagnosis.tuning is None and diagnosis.edits == EDIT
    assert mended.edits == EDIT, "without a tuning edits are needed"


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


ARGUMENTS = json.dumps(GOOD_ANSWER)
DRAFT = json.dumps(chat.proposal("0.02", "0.9", hypothesis="A draft."))
BLOCKS = """I will raise the rate.
{fence}
{before}train.py{after}
<<<<<<< SEARCH
0.02
=======
0.03
>>>>>>> REPLACE
{end}"""


def said(**message):
    return chat.completion({"role": "assistant", "content": None, **message})


FORMS = {
    "arguments encoded twice": chat.call(json.dumps(ARGUMENTS)),
    "arguments encoded three times": chat.call(json.dumps(json.dumps(ARGUMENTS))),
    "arguments as an object": said(tool_calls=[{"function": {"name": "propose", "arguments": GOOD_ANSWER}}]),
    "arguments in a fence": chat.call(f"```json\n{ARGUMENTS}\n```"),
    "edits encoded": chat.call(GOOD_ANSWER | {"edits": json.dumps(GOOD_ANSWER["edits"])}),
    "a single edit": chat.call(GOOD_ANSWER | {"edits": GOOD_ANSWER["edits"][0]}),
    "a single edit, encoded": chat.call(GOOD_ANSWER | {"edits": json.dumps(GOOD_ANSWER["edits"][0])}),
    "content in parts": said(
        content=[{"type": "text", "text": "Here."}, {"type": "text", "text": ARGUMENTS}]
    ),
    "content in texts": said(content=["Here it is:", ARGUMENTS]),
    "only a thought, as llama.cpp and vLLM call it": said(content="", reasoning_content=ARGUMENTS),
    "only a thought, as Ollama calls it": said(content="", reasoning=f"Hm.\n{ARGUMENTS}"),
    "draft, then final": chat.words(f"First:\n```json\n{DRAFT}\n```\nBetter:\n```json\n{ARGUMENTS}\n```"),
    "draft in a thought": chat.words(f"<think>{DRAFT}</think>{ARGUMENTS}"),
    "Hermes' call": chat.words(f'<tool_call>\n{{"name": "propose", "arguments": {ARGUMENTS}}}\n</tool_call>'),
    "Llama's call": chat.words(f'<|python_tag|>{{"name": "propose", "parameters": {ARGUMENTS}}}'),
    "Mistral's call": chat.words(f'[TOOL_CALLS][{{"name": "propose", "arguments": {ARGUMENTS}}}]'),
    "LM Studio's call": chat.words(
        f'[TOOL_REQUEST]{{"name": "propose", "arguments": {ARGUMENTS}}}[END_TOOL_REQUEST]'
    ),
    "a call whose arguments are encoded": chat.words(json.dumps({"name": "propose", "arguments": ARGUMENTS})),
    "the older name of a call": said(function_call={"name": "propose", "arguments": ARGUMENTS}),
    "a name with its space": chat.call(ARGUMENTS, name="functions.propose"),
    "two calls, one of them ours": said(
        tool_calls=[
            {"function": {"name": "think", "arguments": "{}"}},
            {"function": {"name": "propose", "arguments": ARGUMENTS}},
        ]
    ),
    "search and replace": chat.words(BLOCKS.format(fence="", before="", after="", end="")),
    "search and replace in a fence": chat.words(
        BLOCKS.format(fence="```python", before="**`", after="`**:", end="```")
    ),
    "usage as vLLM tells it": chat.completion(
        {"content": ARGUMENTS},
        usage={"prompt_tokens": 9, "completion_tokens": 9, "prompt_tokens_details": None},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_servers_send_is_read(make, server, form):
    proposal = make(FORMS[form]).ask(context(), check)[0]
    assert proposal.edits == EDIT and len(server.requests) == 1
    assert proposal.hypothesis in (GOOD_ANSWER["hypothesis"], "I will raise the rate.")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (chat.words(f"```json\n{DRAFT}\n```\nBetter:\n```json\n{ARGUMENTS[:-30]}\n```"), "cannot be read"),
        (chat.call(ARGUMENTS[:-1] + ",}"), "line 1, column"),
        (chat.words(ARGUMENTS.replace('", "', '" "', 1)), "expecting ',' delimiter at line 1, column"),
        (chat.call(GOOD_ANSWER | {"edits": "[{oops"}), "edits is no JSON: expecting property name"),
        (chat.words("<<<<<<< SEARCH\n0.02\n=======\n0.03\n>>>>>>> REPLACE"), "hypothesis must be a sentence"),
    ],
)
def test_what_cannot_be_read_is_sent_back_with_what_is_wrong_and_where(make, server, answer, says):
    assert make(answer, GOOD).ask(context(), check)[0].edits == EDIT
    assert says in server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("idea", ["1", "#1", " 1 ", 1, 1.0])
@pytest.mark.parametrize("category", ["Optimizer", " OPTIMIZER ", "optimizer"])
def test_an_idea_in_quotes_and_a_category_in_capitals_are_understood(make, idea, category):
    asked = context(ideas=(Idea(1, "raise the rate"),))
    proposal = make(chat.call(GOOD_ANSWER | {"idea": idea, "category": category})).ask(asked, check)[0]
    assert (proposal.idea, proposal.category) == (1, Category.OPTIMIZER)


OVERLOADED = [
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    {"error": {"code": 429, "message": "Rate limited upstream"}},
    {"error": {"code": 503, "message": "no instance"}},
    {"error": {"type": "rate_limit_error", "message": "slow down"}},
]


@pytest.mark.parametrize("answer", OVERLOADED)
def test_an_overload_within_a_good_status_is_one(make, server, answer):
    busy = api.Behaviour(body=json.dumps(answer).encode(), headers={"retry_after": "0.001"})
    assert make(busy, GOOD, retries=1, repairs=0).ask(context(), check)[0].edits == EDIT
    assert len(server.requests) == 2 and len(server.requests[1]["messages"]) == 2, "sent again as it was"
    assert failure(make(default=busy, repairs=3)).retry
    assert len(server.requests) == 3, "no answer to mend"


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
    with contextlib.suppress(Refused):
        found = proposal_in(text)
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


PACKED = {"content_encoding": "gzip"}
BOMB = gzip.compress(b"0" * 30_000_000)


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (api.Behaviour(body=b"{}" * 99, pace=0.05), "within 0.5 s"),
        (api.Behaviour(body=b"{}", pace=0.05, slow_headers=True), "within 0.5 s"),
        (api.Behaviour(body=b"x" * 1_000_000, times=300), "more than 20 MB"),
        (api.Behaviour(body=BOMB, headers=PACKED), "more than 20 MB, packed"),
    ],
)
def test_an_answer_is_bounded_in_time_and_size(make, server, behaviour, says):
    proposer = make(default=behaviour, timeout=0.5 if "within" in says else 5.0, retries=3)
    assert says in str(failure(proposer)) and len(server.requests) == 1, "it may be billed: it is sent once"


def test_a_packed_answer_is_read(make):
    behaviour = api.Behaviour(body=lambda usage: gzip.compress(GOOD.body(usage)), headers=PACKED)
    assert make(behaviour).ask(context(), check)[0].edits == EDIT


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_prompt(make, server, status):
    with chat.ChatServer(default=GOOD) as other:
        failure(make(default=api.Behaviour(status, headers={"location": f"{other.url}/chat/completions"})))
        assert not other.requests and len(server.requests) == 1


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
        experiment(n, "discard", effect=-0.01, scores=(1.7,), diff=f"+{'x = 1 + 2; ' * 50}{n}\n")
        for n in range(1, 40)
    ]
    assert make(said, GOOD).ask(context(past), check)[0].edits == EDIT
    sizes = [len(json.dumps(request)) for request in server.requests]
    assert sizes[1] < sizes[0]


def test_the_next_model_is_asked(make):
    refusal = chat.completion({"role": "assistant", "content": None, "refusal": "no"})
    proposal = make(refusal, GOOD, models=["small", "large"]).ask(context(), check)[0]
    assert proposal.proposer == "openai:large"


def by_model(server):
    return Counter(request["model"] for request in server.requests)


class TwoModels(chat.ChatServer):
    """`small` fails as it is told to, `large` proposes something new each time."""

    failing = api.error(500)

    def _next(self, request, headers):
        number = len(self.requests)
        good = chat.call(
            chat.proposal("0.02", f"0.{number + 300}", hypothesis=f"Rate number {number} {number * 7}")
        )
        self.script = [self.failing if request["model"] == "small" else good]
        return super()._next(request, headers)


@pytest.mark.parametrize(
    "failing",
    [api.error(500), api.error(401, "not for this model"), api.error(403), api.error(402, "top up"),
     chat.words("An essay."), chat.call(chat.proposal("nowhere", "x"))],
)  # fmt: skip
def test_a_model_that_never_delivers_bars_no_other_and_waits(make, tmp_path, failing):
    told, past = [], [baseline()]
    with TwoModels() as server:
        server.failing = failing
        services = make_services(tmp_path, told)
        proposer = make(base_url=server.url, models=["small", "large"], services=services, repairs=1)
        for number in range(1, 31):
            [proposal] = proposer.ask(context(past), check)
            assert proposal.proposer == "openai:large"
            past.append(replace(experiment(number, "discard", scores=(1.8,)), proposal=proposal))
        assert by_model(server)["large"] == 30 and 1 <= by_model(server)["small"] <= 10
    assert len(told) == 1 and "small" in told[0]


def test_money_where_there_is_a_price(make):
    prices = {"small": {"input": 2.0, "output": 10.0, "cache_read": 0.5}}
    cost = make(GOOD, prices=prices).ask(context(), check)[0].cost
    half = cost.input_tokens // 2
    assert cost.dollars == pytest.approx(((cost.input_tokens - half) * 2 + half * 0.5 + 1000) / 1e6, abs=1e-6)
    error = failure(make(default=GOOD, prices=prices, max_dollars=0.01))
    assert not error.retry and "max_dollars" in str(error)


PRICES = {"small": {"input": 3.0, "output": 15.0, "cache_read": 0.3}}


@pytest.mark.parametrize(
    ("asked", "answered", "more", "dollars"),
    [
        (100_000, 2000, {}, 0.33),
        (100_000, 2000, {"prompt_tokens_details": {"cached_tokens": 80_000}}, 0.114),
        (100_000, 2000, {"prompt_cache_hit_tokens": 80_000}, 0.114),
        (1000, 6000, {"completion_tokens_details": {"reasoning_tokens": 5000}}, 0.093),
        (1000, 1000, {"total_tokens": 7000}, 0.093),
    ],
)
def test_dollars_as_computed_by_hand(make, asked, answered, more, dollars):
    usage = {"prompt_tokens": asked, "completion_tokens": answered, **more}
    answer = chat.call(GOOD_ANSWER, usage=usage)
    assert make(answer, prices=PRICES).ask(context(), check)[0].cost.dollars == pytest.approx(dollars)


def test_without_its_package_it_says_how_to_install_it(make, monkeypatch):
    monkeypatch.setattr("autoresearch.propose.llm.providers.openai.find_spec", lambda name: None)
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
