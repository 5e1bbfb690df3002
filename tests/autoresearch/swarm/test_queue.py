"""The queue: what is verified next. Simulated with honest people, liars, and floods of new names."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.config import Serve
from autoresearch.swarm.queue import (
    MOST_CLAIMED,
    Record,
    Sent,
    Spent,
    Turns,
    Waiting,
    choose,
    network,
    over_quota,
)

LIMITS = Serve(
    newcomers=0.2,
    waiting=5,
    daily=50,
    queue=100,
    kilobytes=100,
    requests=100,
    seconds=30,
    recheck=0.05,
    search=None,
)


class World:
    """A verifier of one run a turn; each turn, every waiting contribution is topped up by its sender.

    Args:
        honest: Name -> chance that a contribution of this person is confirmed.
        hostile: How many names the liar has.
        fresh: Whether the liar drops a name once a claim of it was refuted, and makes another.
    """

    def __init__(self, honest: dict[str, float], hostile: int, *, fresh: bool, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.honest, self.fresh = honest, fresh
        self.liars = [f"liar{i}" for i in range(hostile)]
        self.made = hostile
        self.outcomes: dict[str, list[bool]] = {}
        self.spent: list[Spent] = []
        self.waiting: list[Waiting] = []
        self.number = 0
        self.has: Counter[str] = Counter()

    def send(self, who: str, claim: float) -> None:
        while self.has[who] < 2:
            self.number += 1
            self.has[who] += 1
            group = who if who in self.honest else f"net{self.number % 7}"
            self.waiting.append(Waiting(self.number, who, group, claim))

    def turn(self) -> str:
        for who in (*self.honest, *self.liars):
            self.send(who, self.chance.uniform(1, 4) if who in self.honest else 1000.0)
        turns = Turns(self.spent, {who: Record.of(known) for who, known in self.outcomes.items()})
        one = choose(self.waiting, turns, LIMITS.newcomers)
        assert one is not None
        self.waiting.remove(one)
        self.has[one.who] -= 1
        good = self.chance.random() < self.honest.get(one.who, 0.0)
        self.spent.append(Spent(one.who, one.group, turns.record(one.who).known))
        self.outcomes.setdefault(one.who, []).append(good)
        if self.fresh and one.who in self.liars:
            self.liars.remove(one.who)
            self.waiting = [w for w in self.waiting if w.who != one.who]
            self.liars.append(f"liar{self.made}")
            self.made += 1
        return one.who


@pytest.mark.parametrize("fresh", [False, True])
def test_nine_liars_of_ten_take_at_most_a_fifth_of_the_turns_and_every_honest_person_is_heard(fresh):
    world = World({f"honest{i}": 0.5 for i in range(10)}, 90, fresh=fresh)
    first = [world.turn() for _ in range(150)]
    later = [world.turn() for _ in range(150)]
    assert sum(who.startswith("liar") for who in later) <= 0.2 * len(later) + 1
    assert all(f"honest{i}" in first for i in range(10))
    turns = Counter(later)
    assert min(turns[f"honest{i}"] for i in range(10)) > 0, turns


def test_a_person_who_arrives_late_is_heard_among_the_known_and_the_liars():
    world = World({f"honest{i}": 0.6 for i in range(3)}, 50, fresh=True)
    for _ in range(200):
        world.turn()
    world.honest["late"] = 0.9
    assert "late" in [world.turn() for _ in range(60)]


def test_ten_times_as_many_names_gain_no_more_turns():
    few, many = (World({"honest": 0.8}, hostile, fresh=False) for hostile in (30, 300))
    shares = [sum(world.turn() != "honest" for _ in range(150)) for world in (few, many)]
    assert abs(shares[0] - shares[1]) <= 15, shares


def test_who_was_honest_and_begins_to_lie_loses_the_place():
    known = Record.of([True] * 40)
    assert known.known and Record.of([True] * 40 + [False] * 12).trust < known.trust
    assert not Record.of([True] * 40 + [False] * 20).known


def test_a_claim_orders_the_known_but_a_lie_counts_no_more_than_the_largest_honest_claim():
    turns = Turns(records={"a": Record(3, 0), "b": Record(3, 0)})
    small, large = Waiting(1, "a", "x", 1.0), Waiting(2, "b", "y", MOST_CLAIMED)
    assert choose([small, large], turns, 0.2) == large
    lie = Waiting(3, "a", "x", 1e300)
    assert choose([lie, large], turns, 0.2) == large  # the same worth: the first that came


@given(
    st.lists(
        st.builds(
            Waiting,
            st.integers(1, 1000),
            st.sampled_from("abcdef"),
            st.sampled_from(["n1", "n2"]),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        unique_by=lambda one: one.number,
    ),
    st.dictionaries(st.sampled_from("abcdef"), st.builds(Record, st.integers(0, 9), st.integers(0, 9))),
    st.lists(st.builds(Spent, st.sampled_from("abcdef"), st.sampled_from(["n1", "n2"]), st.booleans())),
    st.floats(0, 1),
)
def test_one_of_those_that_wait_is_chosen_whatever_is_claimed(waiting, records, spent, newcomers):
    chosen = choose(waiting, Turns(spent, records), newcomers)
    assert chosen in waiting if waiting else chosen is None


def test_with_proposals_of_its_own_a_verifier_gives_newcomers_no_more_than_their_share():
    waiting = [Waiting(1, "new", "x", 5.0)]
    full = Turns([Spent("", "", True, 1.0)] * 8 + [Spent("other", "y", False, 1.0)] * 2)
    assert choose(waiting, full, 0.2, own=True) is None
    assert choose(waiting, full, 0.2) == waiting[0], "without any, it would stand still"
    assert choose(waiting, full, 0.3, own=True) == waiting[0]
    known = Turns(full.spent, {"new": Record(2, 0)})
    assert choose(waiting, known, 0.2, own=True) == waiting[0]
    assert choose([], full, 0.2, own=True) is None


def test_the_same_queue_gives_the_same_choice_in_any_order():
    chance = random.Random(0)
    waiting = [Waiting(i, chance.choice("abc"), chance.choice("xy"), chance.random()) for i in range(30)]
    turns = Turns([Spent("a", "x", True)] * 9, {"a": Record(5, 1)})
    found = {choose(chance.sample(waiting, 30), turns, 0.2) for _ in range(20)}
    assert len(found) == 1


def test_quotas_say_what_is_too_much():
    new, known = Record(), Record(3, 0)
    nothing = Sent()
    assert over_quota(LIMITS, new, nothing, nothing, 0) == ""
    assert "wait already" in over_quota(LIMITS, new, Sent(5, 5), nothing, 0)
    assert over_quota(LIMITS, known, Sent(5, 5), nothing, 0) == ""
    assert "within a day" in over_quota(LIMITS, new, Sent(0, 50), nothing, 0)
    assert "your network wait" in over_quota(LIMITS, known, nothing, Sent(20, 20), 0)
    assert "your network within" in over_quota(LIMITS, known, nothing, Sent(0, 200), 0)
    assert "with a record" in over_quota(LIMITS, new, nothing, nothing, 100)
    assert over_quota(LIMITS, known, nothing, nothing, 100) == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.1.2.3", "10.1.2.250", True),
        ("10.1.2.3", "10.1.3.3", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::9", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("::ffff:10.1.2.3", "10.1.2.9", True),
        ("testclient", "testclient", True),
    ],
)
def test_a_network_is_what_one_person_is_likely_to_have(one, other, same):
    assert (network(one) == network(other)) is same
