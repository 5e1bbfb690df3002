"""Caps hold for everything that is spent or in flight, whoever asks at the same time."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.propose.base import ProposerError
from autoresearch.propose.budget import Budget, Caps, Price, price_table
from autoresearch.types import Category, Cost, Proposal

PRICE = Price(2.0, 10.0, 4.0, 0.2)


def test_what_is_in_flight_counts():
    budget = Budget("anthropic", Caps(1.0, None, None))
    with budget.allow(Cost(1, dollars=0.6), "a") as first:
        with pytest.raises(ProposerError, match="max_dollars"), budget.allow(Cost(1, dollars=0.6), "a"):
            pass
        with budget.allow(Cost(1, dollars=0.4), "b") as second:
            second.cost = Cost(1, dollars=0.1)
        first.cost = Cost(1, dollars=0.2)
    assert budget.spent == Cost(2, dollars=pytest.approx(0.3))
    with budget.allow(Cost(1, dollars=0.7), "a"):
        pass
    made = Proposal("h", Category.OTHER, (), "a")
    assert budget.bill(made, "c1") == replace(made, cost=Cost(2, dollars=0.2), conversation="c1")
    assert budget.bill(made, "c2").cost == Cost(), "paid is paid"
    assert budget.unbilled == {"b": Cost(1, dollars=0.1)}, "whoever was asked pays"


def test_proposals_alike_are_told_apart():
    budget = Budget("anthropic", Caps(None, None, None))
    before = Proposal("h", Category.OTHER, (), "anthropic:a", cost=Cost(1), conversation="earlier")
    with budget.allow(Cost(1), "anthropic:a"):
        pass
    made = budget.bill(replace(before, conversation=""), "now")
    budget.read([before, made])
    assert budget.spent.calls == 2


def test_a_call_that_fails_frees_what_was_set_aside_and_counts_as_a_call():
    budget = Budget("anthropic", Caps(None, None, 2))
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), budget.allow(Cost(1), "a"):
            raise ValueError("broken")
    with pytest.raises(ProposerError, match="max_calls"), budget.allow(Cost(1), "a"):
        pass


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4000), st.floats(0, 1)), min_size=1, max_size=30), st.integers(1, 20)
)
def test_no_number_of_threads_breaks_a_cap(calls, cents):
    budget = Budget("anthropic", Caps(cents / 100, None, None))

    def ask(tokens, share):
        worst = PRICE.worst(3 * tokens, tokens)
        try:
            with budget.allow(worst, "a") as payment:
                payment.cost = Cost(1, dollars=worst.dollars * share)
        except ProposerError:
            return

    threads = [threading.Thread(target=ask, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent.dollars <= cents / 100 + 1e-9


def test_prices_may_be_left_out_where_that_is_said():
    free = price_table({"a": {"input": 1.0, "output": 2.0}}, ["a", "b"], free=True)
    assert free["a"] == Price(1.0, 2.0, 1.0, 1.0) and free["b"] == Price(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("fresh", "short", "long", "read", "output", "dollars"),
    [
        (10_000, 0, 0, 0, 1000, 0.03),
        (1000, 0, 10_000, 0, 0, 0.042),
        (0, 20_000, 10_000, 0, 0, 0.09),
        (0, 0, 0, 100_000, 2000, 0.04),
        (500, 0, 4000, 36_000, 9000, 0.1142),
    ],
)
def test_dollars_as_computed_by_hand(
    fresh: int, short: int, long: int, read: int, output: int, dollars: float
) -> None:
    """Input $2, output $10 (thoughts are output), cache writes $4 or (5 minutes) $2.50, cache reads $0.20."""
    usage: dict[str, object] = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }
    assert PRICE.cost(usage, 0.0).dollars == pytest.approx(dollars, abs=1e-9)


@pytest.mark.parametrize("split", ["odd", None, [], {"ephemeral_5m_input_tokens": "many"}])
def test_an_odd_split_counts_as_the_dearer_kind(split: object) -> None:
    usage = {"cache_creation_input_tokens": 1000, "cache_creation": split}
    assert PRICE.cost(usage, 0.0).dollars == pytest.approx(0.004)
    boast = {"cache_creation_input_tokens": 1000, "cache_creation": {"ephemeral_5m_input_tokens": 10**9}}
    assert PRICE.cost(boast, 0.0).dollars == pytest.approx(0.0025)


@pytest.mark.parametrize("model", ["claude-next-6", "org/model.v2", "qwen3:32b"])
def test_the_hint_for_an_unknown_price_is_a_form_that_works(model: str) -> None:
    with pytest.raises(UserError) as error:
        price_table({}, [model])
    override = error.value.hint.split("'")[1]
    prices = load(["proposer=anthropic", override], {}).proposer["prices"]
    assert price_table(prices, [model])[model].output == 10
