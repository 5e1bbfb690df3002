"""The portfolio asks who pays, keeps a floor and its controls, and is rebuilt from the journal alone."""

from collections import Counter
from dataclasses import replace
from importlib.metadata import EntryPoint
from random import Random

import pytest

from autoresearch.errors import UserError
from autoresearch.propose import PROPOSERS, create_proposer
from autoresearch.propose.bandit import INDEPENDENT, BanditProposer, Outcome, outcomes, possible_kinds
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.types import Category, Cost, Edit, Proposal
from tests.support.histories import baseline, context, experiment

OPTIONS = {"floor": 0.1, "control": 0.1, "discount": 0.97, "device_hour": 2.0}


class Thinker(Proposer):
    """A model as far as the portfolio knows."""

    name = "thinker"
    reads_ideas = True

    def __init__(self, *, dollars: float = 0.1, fails: bool = False) -> None:
        self.asked, self.dollars, self.fails = [], dollars, fails

    def ask(self, context, check, n=1):
        self.asked.append(context)
        if self.fails:
            raise ProposerError("no answer", retry=True, exhausted=False)
        edit = Edit("train.py", "0.02", f"0.{len(context.history) + 30}")
        return [Proposal("h", Category.OPTIMIZER, (edit,), "thinker:big", cost=Cost(1, dollars=self.dollars))]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    entry = EntryPoint("thinker", f"{__name__}:Thinker", PROPOSERS.group)
    monkeypatch.setitem(PROPOSERS._shipped, "thinker", entry)


def make(*members, **options):
    return BanditProposer(members=list(members), column=0, **{**OPTIONS, **options})


def run(proposer, pays, experiments=120):
    """Who was asked, where each author's proposals are kept with a chance that `pays` tells."""
    past = [baseline()]
    for number in range(1, experiments + 1):
        found = proposer.ask(context(past), lambda p: None)[0]
        kept = number % pays.get(found.proposer, 10**9) == 0
        made = experiment(
            number, "keep" if kept else "discard", effect=0.01 if kept else -0.01, scores=(1.75,)
        )
        past.append(replace(made, proposal=found))
    return past


def test_who_pays_is_asked_more_often_and_the_rest_keep_a_floor():
    members = ("random", {"name": "random", "label": "random-2"}, {"name": "thinker", "dollars": 0.0})
    for payer in ("random", "thinker:big"):
        past = run(make(*members), {payer: 4})
        shares = Counter(e.proposal.proposer for e in past[1:])
        assert shares[payer] > 50 and min(shares.values()) >= 5 and len(shares) == 3, shares


def test_a_member_that_costs_more_for_the_same_gain_is_asked_less():
    def arm(cost):
        return [Outcome(0.01 if age % 4 == 0 else 0.0, cost, age) for age in range(20)]

    proposer, draw = make("random"), Random(1)
    first = Counter(proposer._drawn({"dear": arm(5.0), "cheap": arm(1.0)}, draw)[0] for _ in range(300))
    assert first["cheap"] > 250
    even = Counter(proposer._drawn({"one": arm(1.0), "other": arm(1.0)}, draw)[0] for _ in range(300))
    assert 100 < even["one"] < 200


def test_the_first_keep_does_not_take_all():
    def arm(*gains):
        return [Outcome(gain, 1.0, age) for age, gain in enumerate(gains)]

    proposer, draw = make("random", discount=1.0), Random(2)
    arms = {"kept": arm(0.0, 0.0, 0.01), "none": arm(0.0, 0.0, 0.0)}
    # Both means are drawn to 0.01 / 6 with the weight of four: 0.01 (1 + 4 / 6) / 7 and 0.01 (4 / 6) / 7.
    first = Counter(proposer._drawn(arms, draw)[0] for _ in range(4000))
    assert first["kept"] / 4000 == pytest.approx(2.5**2 / (2.5**2 + 1), abs=0.02)
    unknown = Counter(proposer._drawn({"new": [], **arms}, draw)[0] for _ in range(4000))
    assert unknown["none"] < unknown["new"] < unknown["kept"], "who was never asked counts as the mean"
    order = proposer._drawn({"new": [], **arms}, draw)
    assert sorted(order) == ["kept", "new", "none"], "each stands in it, for when the first has no proposal"


def test_nothing_that_costs_nothing_is_in_the_way():
    proposer, draw = make("random"), Random(3)
    free = {"one": [Outcome(0.0, 0.0, 0)], "other": [], "third": [Outcome(0.01, 0.0, 1)]}
    assert {proposer._drawn(free, draw)[0] for _ in range(300)} == set(free)


def test_a_restart_chooses_the_same():
    past = run(make("random", "thinker"), {"random": 5}, 30)
    again, once = (make("random", "thinker").ask(context(past), lambda p: None) for _ in range(2))
    assert again == once


def test_kinds_are_asked_for_and_recorded_and_one_is_a_control_without_history():
    proposer = make("thinker", control=0.3)
    past = run(proposer, {"thinker:big": 6}, 60)
    kinds = Counter(e.proposal.kind for e in past[1:])
    assert kinds[INDEPENDENT] >= 8 and len(kinds) >= 4
    thinker = proposer._members["thinker"]
    alone = [c for c in thinker.asked if c.without_history]
    assert len(alone) == kinds[INDEPENDENT] and all(c.request for c in thinker.asked)
    assert possible_kinds([baseline()]) == ["new", "tuning", "simplification", INDEPENDENT]


def test_when_one_has_none_the_next_is_asked():
    proposer = make({"name": "thinker", "fails": True}, "random")
    assert proposer.ask(context(), lambda p: None)[0].proposer == "random"
    with pytest.raises(ProposerError, match="no answer") as raised:
        make({"name": "thinker", "fails": True}).ask(context(), lambda p: None)
    assert raised.value.retry and not raised.value.exhausted


def test_a_member_without_a_key_is_left_out(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    proposer = create_proposer("portfolio", column=0, members=["anthropic", "optuna"], **OPTIONS)
    assert proposer.instant and proposer.ask(context(), lambda p: None)[0].proposer == "optuna"
    with pytest.raises(UserError, match=r"no member .* can start"):
        make("anthropic")
    with pytest.raises(UserError, match="two are called random"):
        make("random", "random")
    two = make("optuna", {"name": "optuna", "label": "optuna-tpe", "sampler": "tpe"}, floor=0.5)
    authors = {e.proposal.proposer for e in run(two, {}, 8)[1:]}
    assert authors == {"optuna", "optuna-tpe"}


def test_outcomes_count_time_money_and_what_was_given_up():
    kept = experiment(1, "keep", effect=0.02, scores=(1.7, 1.7), cost=Cost(dollars=0.5), proposer="a:m")
    given_up = replace(kept.proposal, cost=Cost(dollars=0.25))
    past = [
        baseline(),
        replace(kept, dropped=(given_up,)),
        experiment(2, "discard", scores=(1.8,), proposer="b"),
    ]
    first, second = outcomes(past, 3600.0, author="a")
    assert (first.gain, first.cost, first.age) == (0.02, 0.5 + 2.0, 1)
    assert (second.gain, second.cost) == (0.0, 0.25)
