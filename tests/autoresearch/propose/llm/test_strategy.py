"""The model that gains most per dollar is asked most; on a plateau something else is asked for."""

from collections import Counter
from dataclasses import replace

import pytest

from autoresearch.propose.llm import strategy
from autoresearch.propose.llm.outcomes import Outcomes
from autoresearch.propose.llm.prompt import build
from autoresearch.propose.llm.strategy import (
    LONGEST,
    SHORTEST,
    ranked,
    waits,
)
from autoresearch.types import Category, Cost, Proposal
from tests.support.histories import baseline, context, experiment

MODELS = ["a", "b", "c"]


def past(*records):
    """(model, gain or None, dollars) of each experiment."""
    return [baseline()] + [
        experiment(n, "discard" if gain is None else "keep", effect=gain or -0.01, scores=(1.7,),
                   proposer=f"anthropic:{model}", cost=Cost(1, 10, 10, dollars))
        for n, (model, gain, dollars) in enumerate(records, start=1)
    ]  # fmt: skip


def firsts(history, models=MODELS, draws=300):
    return Counter(ranked(models, context(history, seed=seed), "anthropic")[0] for seed in range(draws))


def test_as_listed_until_something_is_known():
    assert ranked(MODELS, context(), "anthropic") == MODELS
    assert ranked(["only"], context(past(("only", 0.1, 1.0))), "anthropic") == ["only"]
    others = past(("a", 0.1, 1.0))
    assert ranked(MODELS, context(others), "openai") == MODELS, "another provider's models are others"


def test_what_gains_more_per_dollar_is_asked_first_most_often():
    never = [("b", None, 0.1), ("c", None, 0.1)] * 20
    assert firsts(past(*[("a", 0.01, 0.1), ("a", None, 0.1)] * 10, *never))["a"] > 240
    dear = past(*[("a", 0.01, 1.0), ("a", None, 1.0), ("b", 0.01, 0.1), ("b", None, 0.1)] * 10)
    assert firsts(dear, ["a", "b"])["b"] > 240


def test_those_that_were_never_asked_get_their_chance():
    assert firsts(past(*[("a", None, 0.1)] * 5))["b"] > 60


def test_free_models_are_weighed_by_gain_alone():
    never = [("b", None, 0.0), ("c", None, 0.0)] * 30
    assert firsts(past(*[("a", 0.01, 0.0), ("a", None, 0.0)] * 5, *never))["a"] > 270


def test_on_a_plateau_another_model_is_asked():
    dry = past(("a", 0.01, 0.1), *[("a", None, 0.1)] * 30)
    assert firsts(dry, ["a", "b"]) == {"b": 300}
    assert firsts(past(*[("a", 0.01, 0.1)] * 5), ["a", "b"])["a"] > 100, "not while things go well"


def test_the_same_history_gives_the_same_order():
    history = past(("a", 0.01, 0.1), ("b", None, 0.2))
    orders = {tuple(ranked(MODELS, context(history, seed=3), "anthropic")) for _ in range(5)}
    assert len(orders) == 1 and sorted(orders.pop()) == MODELS


def test_a_model_that_only_costs_is_not_asked_first_for_ever():
    good = past(*[("b", 0.01, 0.1), ("b", None, 0.1)] * 10)
    asked = {"anthropic:a": Cost(30, dollars=9.0)}

    def first(unbilled, history=good):
        orders = (ranked(["a", "b"], context(history, seed=n), "anthropic", unbilled) for n in range(200))
        return Counter(order[0] for order in orders)

    assert first({})["a"] > 60, "nothing is known of it"
    assert first(asked)["a"] < 20
    dropped = tuple(
        Proposal("h", Category.OTHER, (), "anthropic:a", cost=Cost(1, dollars=0.3)) for _ in range(30)
    )
    assert first({}, [*good[:-1], replace(good[-1], dropped=dropped)])["a"] < 20


def run_of(kinds, **more):
    made = [
        experiment(n, "keep" if kind == "k" else "discard", effect=0.01 if kind == "k" else -0.01,
                   scores=(1.7,), **more)
        for n, kind in enumerate(kinds, start=1)
    ]  # fmt: skip
    return [baseline(), *made]


def request_on_plateau(history):
    return strategy.request_on_plateau(Outcomes.of(history))


def plateau_length(history):
    return strategy.plateau_length(Outcomes.of(history))


def since_keep(history):
    return Outcomes.of(history).since_keep


def test_nothing_is_said_while_things_go_well():
    assert (
        request_on_plateau([])
        == request_on_plateau(run_of(""))
        == request_on_plateau(run_of("kdkdk"))
        == request_on_plateau(run_of("ddd"))
        == ""
    )
    assert "stuck" not in build(context(run_of("kdkd")), 9000).text


def test_a_plateau_is_longer_where_keeps_are_rare():
    assert plateau_length(run_of("kkkkk")) == SHORTEST
    lengths = [plateau_length(run_of("d" * n + "k")) for n in (0, 5, 10, 200)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1] == LONGEST
    assert {plateau_length(run_of("dk" + "d" * n)) for n in range(40)} == {plateau_length(run_of("dk"))}, (
        "fixed until a keep"
    )
    assert since_keep(run_of("kdkddd")) == 3 and since_keep(run_of("ddd")) == 3


def test_a_plateau_asks_for_something_else_each_time():
    long = "k" + "d" * 40
    starts = [n for n in range(1, 41) if request_on_plateau(run_of(long[: n + 1]))]
    assert starts and starts == list(range(starts[0], 41)), "until something is kept"
    wishes = [request_on_plateau(run_of(long[: n + 1])).partition("This time: ")[2] for n in starts[:6]]
    assert len(set(wishes[:3])) == 3 and wishes[3] == wishes[0]
    assert request_on_plateau(run_of(long + "k")) == ""


def test_another_kind_of_change_is_named():
    words = request_on_plateau(run_of("d" * 12, category=Category.OPTIMIZER))
    wishes = [request_on_plateau(run_of("d" * n, category=Category.OPTIMIZER)) for n in range(12, 16)]
    other = next(w for w in wishes if "another kind of change" in w)
    assert "all about optimizer" in other and "architecture" in other and words


def test_near_misses_are_to_be_combined():
    near = [
        experiment(n, "discard", effect=0.001 * n, scores=(1.7, 1.7), category=Category.DATA)
        for n in (1, 2, 3)
    ]
    rest = [experiment(n, "discard", effect=-0.01, scores=(1.8,)) for n in range(4, 20)]
    wishes = [request_on_plateau([baseline(), *near, *rest[:n]]) for n in range(8, 12)]
    assert any("experiments 1 and 2 and 3" in wish for wish in wishes)


def test_it_stands_in_the_prompt_after_the_cached_part():
    prompt = build(context(run_of("d" * 15)), 9000)
    assert "# The search is stuck" in prompt.content[-1]["text"]


@pytest.mark.parametrize("plateau", [False, True])
@pytest.mark.parametrize("calls_in_vain", [1, 4])
def test_a_model_in_vain_waits_longer_and_longer(plateau, calls_in_vain):
    """It gives errors, essays or duplicates alone, and is asked less and less often before the others."""
    history = past(("b", 0.01, 0.1), *[("b", None, 0.1)] * (30 if plateau else 1))
    calls, requests = 0, 0
    for number in range(40):
        unbilled = {"anthropic:a": Cost(calls, dollars=0.1 * calls)} if calls else {}
        if ranked(["a", "b"], context(history), "anthropic", unbilled)[0] == "a":
            calls, requests = calls + calls_in_vain, requests + calls_in_vain
        kept = 0.01 if not plateau and number % 4 == 0 else None
        history = [*history, *past(*[("b", kept, 0.1)] * len(history))[-1:]]
    assert 0 < requests <= 16


def test_a_model_that_gave_a_proposal_waits_no_more():
    history = past(("b", None, 0.1))
    assert waits("a", context(history[:1]), "anthropic", {"anthropic:a": Cost(1)})
    assert not waits("a", context(history[:1]), "anthropic", {})
