"""Answers in the order of asking."""

import json

import pytest

from autoresearch.judge.orders import Orders, TrialRequest


def drain(orders: Orders) -> list[tuple[int, float | None]]:
    out = []
    while (answer := orders.take()) is not None:
        out.append((answer[0].number, answer[1]))
    return out


def test_early_answers_wait_for_the_older_ones():
    orders = Orders()
    orders.plan([("screen", 1), ("confirm", 2), ("incumbent", 3)])
    first, second, third = orders.issue(), orders.issue(), orders.issue()
    assert orders.issue() is None and not orders.idle
    orders.answer(third, 0.3)
    orders.answer(second, None)
    assert drain(orders) == []
    assert orders.unanswered == (first,)
    orders.answer(first, 0.1)
    assert drain(orders) == [(1, 0.1), (2, None), (3, 0.3)]
    assert orders.idle


def test_what_was_cleared_may_still_answer_once_and_counts_no_more():
    orders = Orders()
    orders.plan([("confirm", 1), ("confirm", 2), ("confirm", 3)])
    first, second = orders.issue(), orders.issue()
    orders.answer(second, 0.2)
    orders.clear()
    assert orders.idle and orders.unanswered == ()
    orders.plan([("screen", 1)])
    new = orders.issue()
    orders.answer(first, 0.1)
    orders.answer(new, 0.9)
    assert drain(orders) == [(new.number, 0.9)]
    with pytest.raises(ValueError):
        orders.answer(first, 0.1)


def test_a_want_that_was_never_issued_is_refused():
    orders = Orders()
    orders.plan([("screen", 1)])
    orders.issue()
    with pytest.raises(ValueError):
        orders.answer(TrialRequest("screen", 1, number=9), 0.1)


def test_json_keeps_everything():
    orders = Orders()
    orders.plan([("screen", 1), ("confirm", 2), ("incumbent", 3)])
    first, second = orders.issue(), orders.issue()
    orders.answer(second, None)
    again = Orders.from_dict(json.loads(json.dumps(orders.to_dict())))
    assert again.to_dict() == orders.to_dict()
    again.answer(first, 0.5)
    assert drain(again) == [(1, 0.5), (2, None)]
    assert again.issue() == TrialRequest("incumbent", 3, 3)
