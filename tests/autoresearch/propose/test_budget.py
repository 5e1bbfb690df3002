"""Caps hold for everything that is spent or in flight, whoever asks at the same time."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
