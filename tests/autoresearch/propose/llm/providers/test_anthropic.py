"""The Anthropic proposer against a scripted Messages API: the real SDK, real HTTP, every way to go wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanomodel
from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import UserError
from autoresearch.propose import create_proposer
from autoresearch.propose.base import ProposerError
from autoresearch.propose.budget import estimate_tokens
from autoresearch.propose.llm.providers.anthropic import AnthropicProposer
from autoresearch.store.calls import CallLog
from autoresearch.types import Category, Cost, Edit
from tests.support import malformed
from tests.support import messages_server as api
from tests.support.histories import SOURCE, baseline, context, experiment
from tests.support.services import make_services

PRICES = {
    "sonnet": {"input": 2.0, "output": 10.0, "cache_write": 4.0, "cache_read": 0.2},
    "opus": {"input": 4.0, "output": 20.0, "cache_write": 8.0, "cache_read": 0.4},
}
TRAIN = (Path(nanomodel.__file__).parent / "train.py").read_text(encoding="utf-8")
GOOD = api.proposal("0.02", "0.03")
KEY = "sk-test-0123456789"


def check(proposal):
    """What the search will do: apply the edits and obey the rules."""
    sources = {"train.py": SOURCE}
    check_rules(sources, apply(sources, proposal.edits), ["train.py"])


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.fixture
def server():
    with api.MessagesServer() as server:
        yield server


@pytest.fixture
def make(server):
    def make(*script, default=None, services=None, **options):
        server.script, server.default = list(script), default
        values = {
            "models": ["sonnet"], "prices": PRICES, "answer_tokens": 2000, "effort": "high",
            "thinking": "adaptive", "repairs": 3, "retries": 0, "timeout": 10.0, "ledger_tokens": 8000,
            "max_dollars": None, "max_tokens": None, "max_calls": None, "base_url": server.url,
        }  # fmt: skip
        if services:
            return AnthropicProposer(services=services, **values | options)
        return create_proposer("anthropic", column=0, **values | options)

    return make


def failure(proposer, past=None):
    with pytest.raises(ProposerError) as raised:
        proposer.ask(context(past), check)[0]
    assert KEY not in str(raised.value)
    return raised.value


def test_a_good_answer_becomes_a_proposal(make, server):
    proposal = make(GOOD).ask(context(), check)[0]
    assert proposal.edits == (Edit("train.py", "0.02", "0.03"),)
    assert proposal.category is Category.OPTIMIZER
    assert (proposal.expected_effect, proposal.confidence) == (0.01, 0.4)
    assert proposal.proposer == "anthropic:sonnet"
    assert proposal.cost.calls == 1 and proposal.cost.output_tokens == 100 and proposal.cost.seconds > 0
    request = server.requests[0]
    assert request["tools"][0]["strict"] is True and request["tools"][0]["name"] == "propose"
    assert request["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert request["thinking"] == {"type": "adaptive"} and request["output_config"] == {"effort": "high"}
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(request)


def test_without_thinking_the_tool_is_forced(make, server):
    make(GOOD, thinking=None, effort=None).ask(context(), check)[0]
    request = server.requests[0]
    assert request["tool_choice"]["type"] == "tool" and "thinking" not in request
    assert "output_config" not in request


def test_the_second_call_reads_the_prefix_from_the_cache(make, server):
    proposer = make(GOOD, api.proposal("0.02", "0.04"))
    first = proposer.ask(context(), check)[0]
    past = [baseline(), experiment(1, "discard", effect=-0.001, scores=(1.76,))]
    second = proposer.ask(context(past, noise=0.007, score=1.74), check)[0]
    one, two = server.requests
    assert one["tools"] == two["tools"] and one["system"] == two["system"]
    before = one["messages"][0]["content"][:-1]
    bare = [{k: v for k, v in block.items() if k != "cache_control"} for block in before]
    after = [{k: v for k, v in b.items() if k != "cache_control"} for b in two["messages"][0]["content"]]
    assert json.dumps(after).startswith(json.dumps(bare)[:-1]), "byte-identical"
    marks = [
        b["cache_control"] for b in [*two["system"], *two["messages"][0]["content"]] if "cache_control" in b
    ]
    assert [mark["ttl"] for mark in marks] == ["1h", "1h", "1h", "5m"]
    assert second.cost.dollars < first.cost.dollars / 2, (
        "the script of this test is short, so the prefix is most"
    )


def long_history(count):
    """A search of so many experiments, with the diffs, outputs and curves of real ones."""
    lines = TRAIN.splitlines()
    curve = tuple((i / 400, 8 - 5 * (i / 400) ** 0.3) for i in range(401))
    made = [baseline(curve=curve)]
    for number in range(1, count + 1):
        at = 40 + 7 * number % (len(lines) - 60)
        old = lines[at : at + 2 + number % 12]
        diff = f"--- a/train.py\n+++ b/train.py\n@@ -{at} +{at} @@\n"
        diff += "".join(f"-{line}\n" for line in old) + "".join(f"+{line}  # {number}\n" for line in old)
        kind, effect = ("keep", 0.01) if number % 9 == 0 else ("discard", 0.004 - 0.001 * (number % 7))
        scores = (1.75 - effect, 1.74 - effect)[: 1 + number % 2]
        if number % 11 == 5:
            kind, effect, scores = "crash", None, ()
        words = f"Idea {number}: " + "the matrices learn faster where the rate follows their size. " * 3
        log = f"gradient norm of block {number % 5}: {number / 7:.3f}\n" * (number % 4)
        made.append(
            experiment(
                number, kind, effect=effect, scores=scores, diff=diff, hypothesis=words, log=log,
                reason="the gain is not clear against the noise of a seed", expected_effect=0.01,
                confidence=0.1 * (number % 9),
            )
        )  # fmt: skip
    return made


def test_at_a_hundred_experiments_the_prompt_keeps_its_budget_and_its_cached_prefix(make, server):
    budget, answer = 40_000, api.proposal("SOFTCAP = 15.0", "SOFTCAP = 12.0")
    proposer = make(default=answer, ledger_tokens=budget)
    known = {"source": TRAIN, "about": ("# The data\nSpeeches.",), "experiments_left": 40}
    for count in (0, 100, 101):
        past = long_history(count)
        there = context(past, **known, notes=(f"note {count}",), score=1.7 - 0.001 * count)
        proposer.ask(there, lambda proposal: None)
    empty, first, second = (
        [*r["tools"], *r["system"], *r["messages"][0]["content"]] for r in server.requests
    )
    size = [sum(len(block.get("text", "")) for block in blocks) for blocks in (empty, first, second)]
    assert estimate_tokens(size[1]) <= estimate_tokens(size[0]) + budget + 500, "what grows is the history"
    assert estimate_tokens(size[1]) > estimate_tokens(size[0]) + budget / 2, "as much is told as fits"

    def cached(blocks):
        return [json.dumps({k: v for k, v in b.items() if k != "cache_control"}) for b in blocks]

    assert cached(first)[:-1] == cached(second)[: len(first) - 1], "byte-identical but for the state"
    repeated = server.usage(server.requests[1])
    assert repeated["cache_read_input_tokens"] > 0.9 * size[1] / api.CHARACTERS_PER_TOKEN


def test_variants_of_an_idea_become_proposals_where_there_is_room_for_them(make, server):
    def edits(new):
        return [{"path": "train.py", "search": "0.02", "replace": new}]

    variants = [
        {"hypothesis": "A little.", "edits": edits("0.025")},
        {"hypothesis": "The same as the first.", "edits": edits("0.03")},
        {"hypothesis": "It does not apply.", "edits": [{"path": "train.py", "search": "no", "replace": ""}]},
        {"hypothesis": "no edits"},
        {"hypothesis": "More.", "edits": edits("0.04")},
    ]
    answer = api.proposal("0.02", "0.03", variants=variants)
    proposer = make(answer, answer, answer)
    found = proposer.ask(context(), check, 4)
    assert [p.edits[0].replace for p in found] == ["0.03", "0.025", "0.04"]
    assert [p.cost.calls for p in found] == [1] + [0] * (len(found) - 1), "an answer is paid for once"
    assert found[1].hypothesis == "A little." and found[1].category is Category.OPTIMIZER
    assert "may hold up to 3 other ways" in server.requests[0]["messages"][0]["content"][-1]["text"]
    assert len(proposer.ask(context(), check, 1)) == 1
    assert "Places are free" not in server.requests[1]["messages"][0]["content"][-1]["text"]
    assert server.requests[0]["tools"] == server.requests[1]["tools"], "the cached prefix stays"


def test_refused_edits_are_mended_in_the_same_conversation(make, server):
    proposal = make(api.proposal("LR = at(0.05", "x"), api.proposal("0.02", "0.02"), GOOD).ask(
        context(), check
    )[0]
    assert proposal.edits[0].replace == "0.03"
    assert proposal.cost.calls == 3, "every call is paid for by the proposal it led to"
    user, assistant, result = server.requests[1]["messages"]
    assert user == server.requests[0]["messages"][0]
    assert [block["type"] for block in assistant["content"]] == ["thinking", "tool_use"]
    assert result["content"][0]["tool_use_id"] == "toolu_1" and result["content"][0]["is_error"] is True
    assert "   4 | LR = at(0.02, 0.01)" in result["content"][0]["content"], "the nearest text is shown"
    assert len(server.requests[2]["messages"]) == 5


def test_prose_is_asked_for_the_tool_call(make, server):
    assert make(api.text("I would lower LR."), GOOD).ask(context(), check)[0].edits
    assert "call it once" in server.requests[1]["messages"][2]["content"][0]["text"]


def test_a_cut_off_answer_gets_more_room(make, server):
    cut = api.tool_call({"hypothesis": "half an ans"}, stop_reason="max_tokens")
    assert make(cut, cut, GOOD).ask(context(), check)[0].edits
    assert [request["max_tokens"] for request in server.requests] == [2000, 4000, 8000]
    assert len(server.requests[2]["messages"]) == 1, "half an answer is not repeated"


def test_repairs_end(make):
    bad = api.proposal("nowhere", "x")
    error = failure(make(default=bad, repairs=2))
    assert error.retry and "3 tries" in str(error) and "nowhere" not in str(error)
    assert "the search text is not in train.py" in str(error)


def test_the_next_model_is_asked_when_one_declines_or_is_overloaded_or_unknown(make, server):
    refusal = api.message(
        [], "refusal", stop_details={"type": "refusal", "category": "cyber", "explanation": None}
    )
    for wrong in (
        refusal,
        api.error(529),
        api.error(404),
        api.error(429),
        api.error(400, "no such effort"),
    ):
        proposer = make(wrong, GOOD, models=["sonnet", "opus"])
        proposal = proposer.ask(context(), check)[0]
        assert proposal.proposer == "anthropic:opus"
        assert proposal.cost.calls == 1, "what another model cost in vain is its own affair"
        assert {who: cost.calls for who, cost in proposer.unbilled.items()} == {"anthropic:sonnet": 1}
    error = failure(make(refusal, refusal, models=["sonnet", "opus"]))
    assert error.retry and "sonnet declined to answer (cyber); opus declined" in str(error)


@pytest.mark.parametrize(
    ("behaviour", "retry", "says"),
    [
        (api.error(401, "invalid x-api-key"), False, "rejects the key in ANTHROPIC_API_KEY (401)"),
        (api.error(403), False, "rejects the key"),
        (api.error(402, "billing"), True, "run out of money (402): billing"),
        (api.error(404, "no such model"), False, "no such model"),
        (api.error(400, "Your credit balance is too low"), True, "run out of money (400)"),
        (api.error(429, "slow down"), True, "429"),
        (api.error(529, "overloaded"), True, "529"),
        (api.error(500), True, "500"),
        (api.Behaviour(502, b"<html>bad gateway</html>", content_type="text/html"), True, "502"),
        (api.HANG_UP, True, "broke the connection off"),
        (api.Behaviour(wait=1.0), True, "no answer from the API within 0.2 s"),
        (api.garbage(b"<html>login</html>", "text/html"), True, "not an answer"),
        (api.error(401, f"key {KEY} is bad"), False, "key *** is bad"),
    ],
)
def test_failures_have_a_plain_reason(make, behaviour, retry, says):
    proposer = make(default=behaviour, timeout=0.2)
    error = failure(proposer)
    assert error.retry is retry and says in str(error)
    assert proposer.spent.calls >= 1


def test_nothing_listens(make):
    error = failure(make(base_url="http://127.0.0.1:9"))
    assert error.retry and "cannot be reached" in str(error)


def test_what_was_not_carried_out_is_sent_again(make, server):
    busy = [api.error(status, retry_after="0.001") for status in (429, 529, 500)]
    proposer = make(*busy, GOOD, retries=3)
    assert proposer.ask(context(), check)[0].edits
    assert len(server.requests) == 4


@pytest.mark.parametrize("header", [{}, {"x_should_retry": "true"}])
def test_a_server_that_wants_to_be_left_alone_for_an_hour_is_not_waited_for(make, server, header):
    error = failure(make(default=api.error(429, retry_after="3600", **header), retries=9))
    assert error.retry and len(server.requests) == 1


@pytest.mark.parametrize("silence", [api.Behaviour(wait=1.0), api.HANG_UP])
def test_what_left_and_was_not_answered_is_sent_once_and_counts_as_much_as_it_can_cost(
    make, server, tmp_path, silence
):
    calls = CallLog(tmp_path)
    proposer = make(default=silence, timeout=0.2, retries=9, services=make_services(tmp_path))
    error = failure(proposer)
    assert error.retry and len(server.requests) == 1
    assert proposer.spent.dollars > 2000 * 10 / 1e6, "an answer of 2000 tokens may have been written"
    assert calls.spent("anthropic").dollars == pytest.approx(proposer.spent.dollars)


def test_a_call_is_on_record_before_it_is_made(make, server, tmp_path):
    calls, seen = CallLog(tmp_path), []

    def answer(usage):
        seen.extend(calls.of(calls.conversations()[0]))
        return GOOD.body(usage)

    proposal = make(api.Behaviour(body=answer), services=make_services(tmp_path)).ask(context(), check)[0]
    assert [call.problem for call in seen] == ["no answer yet"]
    assert seen[0].cost.dollars > 2000 * 10 / 1e6, "what a kill would leave behind"
    (call,) = calls.of(proposal.conversation)
    assert call.cost == proposal.cost and not call.problem


def test_the_worst_case_of_a_prompt_is_counted_in_bytes(make):
    def worst(word):
        proposer = make(default=api.HANG_UP)
        with pytest.raises(ProposerError):
            proposer.ask(context(brief=word * 3000), check)
        return proposer.spent.input_tokens

    least, *more = (worst(word) for word in ("a", "\u5b57", "\U0001f600"))
    assert [tokens - least for tokens in more] == [2000, 3000], "three bytes a token"


CUT_OFF = api.tool_call({"hypothesis": "half an ans"}, stop_reason="max_tokens")


@pytest.mark.parametrize(
    "refusal",
    [
        "max_tokens: 4000 > 3000, which is the maximum allowed number of output tokens",
        "input length and `max_tokens` exceed context limit: 190000 + 4000 > 200000",
    ],
)
def test_where_there_is_no_more_room_a_shorter_answer_is_asked_for(make, server, refusal):
    proposer = make(CUT_OFF, api.error(400, refusal), CUT_OFF, GOOD, GOOD, models=["sonnet", "opus"])
    assert proposer.ask(context(), check)[0].proposer == "anthropic:sonnet"
    assert [request["max_tokens"] for request in server.requests] == [2000, 4000, 2000, 2000]
    assert "no more room" in json.dumps(server.requests[2]["messages"][-1])
    sizes = [len(json.dumps(request["messages"][0])) for request in server.requests]
    assert len(set(sizes)) == 1, "the history is not to blame"


def test_only_the_conversation_that_overflows_is_shortened(make, server):
    past = [baseline()] + [
        experiment(n, "discard", effect=-0.01, scores=(1.7,), diff=f"+{'x = 1 + 2; ' * 50}{n}\n")
        for n in range(1, 40)
    ]
    said = "input length and `max_tokens` exceed context limit: 210000 + 2000 > 200000"
    proposer = make(api.error(400, said), GOOD, GOOD)
    for _ in range(2):
        proposer.ask(context(past), check)[0]
    sizes = [len(json.dumps(request["messages"])) for request in server.requests]
    assert sizes[1] < sizes[0] == sizes[2]


def test_a_model_that_gives_nothing_usable_or_is_too_dear_is_passed_over(make, server):
    both = {"models": ["opus", "sonnet"], "repairs": 1}
    proposal = make(api.text("hm"), api.text("hm"), GOOD, **both).ask(context(), check)[0]
    assert proposal.proposer == "anthropic:sonnet"
    proposal = make(api.Behaviour(wait=1.0), GOOD, timeout=0.3, **both).ask(context(), check)[0]
    assert proposal.proposer == "anthropic:sonnet"
    cheaper = make(GOOD, max_dollars=0.045, **both)
    assert cheaper.ask(context(), check)[0].proposer == "anthropic:sonnet"


def test_a_prompt_that_is_too_long_is_sent_with_half_the_history(make, server):
    past = [baseline()] + [
        experiment(n, "discard", effect=-0.01, scores=(1.7,), diff=f"+{'x = 1 + 2; ' * 50}{n}\n")
        for n in range(1, 40)
    ]
    overflow = (api.error(413, "too large"), api.error(400, "prompt is too long: 210000 tokens"))
    whole = api.message([], "model_context_window_exceeded")
    assert make(*overflow, whole, GOOD).ask(context(past), check)[0].edits
    sizes = [len(json.dumps(request["messages"])) for request in server.requests]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 3
    error = failure(make(default=api.error(413), repairs=9))
    assert not error.retry and "too long" in str(error)


def test_a_missing_or_broken_key_is_said_at_once(make, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk two words")
    with pytest.raises(UserError, match="does not hold a key") as raised:
        make()
    assert "two words" not in str(raised.value)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY is not set") as raised:
        make()
    assert "proposer=optuna" in raised.value.hint


def test_a_redirect_is_not_followed_so_that_the_key_stays_with_the_server(make, server):
    with api.MessagesServer() as other:
        moved = api.Behaviour(307, b"", headers={"location": f"{other.url}/v1/messages"})
        error = failure(make(default=moved))
    assert "307" in str(error) and not other.requests and len(server.requests) == 1


def test_models_need_prices(make):
    with pytest.raises(UserError, match="no price is known for the model 'haiku'"):
        make(models=["haiku"])
    with pytest.raises(UserError, match="not complete"):
        make(prices={"sonnet": {"input": 1.0}})


@pytest.mark.parametrize(
    ("option", "value"),
    [("models", []), ("repairs", -1), ("repairs", "many"), ("effort", "huge"), ("timeout", 0),
     ("max_dollars", -1), ("answer_tokens", 10), ("thinking", "on"), ("no_such_option", 1)],
)  # fmt: skip
def test_options_out_of_range_are_named(make, option, value):
    with pytest.raises(UserError, match=rf"proposer\.{option}"):
        make(**{option: value})


# -- money ---------------------------------------------------------------------------------------------------


def test_cost_is_usage_times_price(make):
    usage = {
        "input_tokens": 1000, "output_tokens": 500, "cache_creation_input_tokens": 2000,
        "cache_read_input_tokens": 9000,
    }  # fmt: skip
    answer = api.Behaviour(body=lambda _: GOOD.body(usage))
    cost = make(answer).ask(context(), check)[0].cost
    assert cost.dollars == pytest.approx((1000 * 2 + 500 * 10 + 2000 * 4 + 9000 * 0.2) / 1e6)
    assert (cost.input_tokens, cost.output_tokens) == (12_000, 500)


@pytest.mark.parametrize(
    ("cap", "says"),
    [({"max_dollars": 0.05}, "$"), ({"max_tokens": 12_000}, "tokens"), ({"max_calls": 2}, "2 calls")],
)
def test_caps_stop_before_the_call(make, server, cap, says):
    proposer = make(default=GOOD, **cap)
    error = None
    for _ in range(30):
        calls = len(server.requests)
        try:
            proposer.ask(context(), check)[0]
        except ProposerError as stopped:
            error = stopped
            break
    assert error is not None and not error.retry
    assert says in str(error) and next(iter(cap)) in str(error)
    assert len(server.requests) == calls > 0, "no call was made"
    assert proposer.spent.dollars <= cap.get("max_dollars", math.inf)


def test_money_spent_before_a_restart_counts(make, server, tmp_path):
    paid = experiment(1, "discard", effect=0.0, scores=(1.7,), cost=Cost(3, 10_000, 2_000, 0.9, 5.0))
    other = experiment(2, "discard", effect=0.0, scores=(1.7,), proposer="openai:x", cost=Cost(3, 1, 1, 99.0))
    services = make_services(tmp_path, unbilled={"anthropic:retired": Cost(1, 0, 0, 0.09)})
    proposer = make(default=GOOD, max_dollars=1.0, services=services)
    error = failure(proposer, [baseline(), paid, other])
    assert "$0.99 spent" in str(error) and not server.requests


def test_money_is_counted_once_when_a_proposal_shows_up_in_the_history(make):
    proposer = make(default=api.proposal("0.02", "0.03", difference="It is another day."))
    first = proposer.ask(context(), check)[0]
    judged = replace(experiment(1, "discard", effect=0.0, scores=(1.7,)), proposal=first)
    second = proposer.ask(context([baseline(), judged]), check)[0]
    assert proposer.spent.calls == 2
    assert proposer.spent.dollars == pytest.approx(first.cost.dollars + second.cost.dollars)


def test_what_was_spent_without_a_proposal_before_a_restart_is_in_the_next_one(make, tmp_path):
    vain = {"anthropic:sonnet": Cost(2, 100, 10, 0.5), "anthropic:opus": Cost(1, 100, 10, 0.25)}
    services = make_services(tmp_path, unbilled=vain)
    proposer = make(GOOD, services=services, models=["sonnet", "opus"])
    proposal = proposer.ask(context(), check)[0]
    assert proposal.cost.calls == 3 and 0.5 < proposal.cost.dollars < 0.6
    assert proposer.unbilled == {"anthropic:opus": Cost(1, 100, 10, 0.25)}
    assert proposer.spent.calls == 4 and proposer.spent.dollars == pytest.approx(0.25 + proposal.cost.dollars)


def test_what_failed_proposals_cost_is_in_the_next_one(make, server):
    proposer = make(api.proposal("nowhere", "x"), repairs=0)
    failure(proposer)
    server.script = [GOOD]
    proposal = proposer.ask(context(), check)[0]
    assert proposal.cost.calls == 2 and proposal.cost == proposer.spent


# -- malformed answers ---------------------------------------------------------------------------------------

FULL = malformed.full("train.py", "0.02", "0.03")
UNUSABLE = malformed.unusable("train.py", "0.02", "0.03", twice="train")


def without(name):
    return {key: value for key, value in FULL.items() if key != name}


HARMLESS = [
    api.tool_call({**FULL, "confidence": value}) for value in (None, "high", 70, -1, 10**400, [], True)
] + [
    api.tool_call({**FULL, "expected_effect": "big"}),
    api.tool_call({**FULL, "category": "alchemy"}),
    api.tool_call({**FULL, "category": ["optimizer"]}),
    api.tool_call(without("risk")),
    api.tool_call(without("mechanism")),
    api.tool_call({**FULL, "hypothesis": "a\ud800b\n\nc" + "x" * 9000}),
    api.tool_call({**FULL, "extra": {"deep": [1, 2]}}),
    api.tool_call(FULL, usage={"input_tokens": None, "output_tokens": 1.5}),
    api.tool_call(FULL, stop_reason="end_turn"),
    api.tool_call(FULL, model=None, id=None, role="user"),
]


@pytest.mark.parametrize("answer", malformed.few_by_default(UNUSABLE))
def test_no_malformed_answer_does_harm(make, server, answer):
    proposer = make(answer, GOOD)
    assert proposer.ask(context(), check)[0].edits == (Edit("train.py", "0.02", "0.03"),), "mended"
    assert proposer.spent.calls == 2
    for turn in server.requests[1]["messages"]:
        assert turn["content"], "the API refuses empty turns"
    error = failure(make(default=answer, repairs=1))
    assert error.retry and "2 tries" in str(error)


@pytest.mark.parametrize("answer", malformed.few_by_default(HARMLESS))
def test_unusable_commentary_is_dropped_without_another_call(make, server, answer):
    proposal = make(answer).ask(context(), check)[0]
    assert len(server.requests) == 1
    assert proposal.confidence is None or 0 <= proposal.confidence <= 1
    assert len(proposal.hypothesis) <= 600 and proposal.hypothesis.isprintable()
    json.dumps(proposal.to_dict()).encode()


def test_a_long_row_of_malformed_answers_loses_nothing(make, server):
    assert len(UNUSABLE) >= 70
    proposal = make(*UNUSABLE, GOOD, repairs=len(UNUSABLE)).ask(context(), check)[0]
    assert proposal.edits == (Edit("train.py", "0.02", "0.03"),)
    assert proposal.cost.calls == len(server.requests) == len(UNUSABLE) + 1
    assert all(turn["content"] for turn in server.requests[-1]["messages"]), "the API refuses empty turns"


def test_unusable_commentary_of_many_kinds_is_dropped(make, server):
    proposer = make(*HARMLESS)
    for number in range(len(HARMLESS)):
        assert proposer.ask(context(), check)[0].edits
        assert len(server.requests) == number + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def test_any_json_at_all_is_a_proposal_or_a_proposer_error(make, server):
    proposer = make(repairs=0)

    @settings(max_examples=60, deadline=None)
    @given(json_values | st.fixed_dictionaries({key: json_values | st.just(FULL[key]) for key in FULL}))
    def ask(value):
        server.script = [api.tool_call(value)]
        try:
            proposal = proposer.ask(context(), check)[0]
        except ProposerError:
            return
        assert proposal.hypothesis and proposal.edits == (Edit("train.py", "0.02", "0.03"),)

    ask()
