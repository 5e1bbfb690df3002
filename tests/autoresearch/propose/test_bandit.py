"""The model that gains most per dollar is asked most, the others often enough to be known."""

from collections import Counter
from dataclasses import replace

from autoresearch.propose.bandit import ranked
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

    def first(owed, history=good):
        orders = (ranked(["a", "b"], context(history, seed=n), "anthropic", owed) for n in range(200))
        return Counter(order[0] for order in orders)

    assert first({})["a"] > 60, "nothing is known of it"
    assert first(asked)["a"] < 20
    dropped = tuple(
        Proposal("h", Category.OTHER, (), "anthropic:a", cost=Cost(1, dollars=0.3)) for _ in range(30)
    )
    assert first({}, [*good[:-1], replace(good[-1], dropped=dropped)])["a"] < 20
