import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.judge.base import Kept
from autoresearch.judge.finished.audit import Audited, audit, doubtful, false_share

NOISE = 1.0


def kept(effect: float, doubt: float | None = 0.1, error: float = 0.8) -> Kept:
    return Kept(effect, error, effect * 0.8, (0.0, 2 * effect), 3, doubt)


def factorial(gains: list[float], count: int, seed: int = 0) -> list[tuple[list[bool], float]]:
    chance = random.Random(seed)
    runs = []
    for _ in range(count // 2):
        half = [chance.random() < 0.5 for _ in gains]
        for present in (half, [not p for p in half]):
            score = 100 - sum(g for g, p in zip(gains, present, strict=True) if p)
            runs.append((present, score + chance.gauss(0, NOISE)))
    return runs


def test_without_runs_the_search_s_own_reckoning_stands() -> None:
    found = audit([kept(3.0, 0.05)], [], NOISE)[0]
    assert found.effect == pytest.approx(2.4)
    assert found.doubt == pytest.approx(0.05, abs=0.01)


def test_the_false_one_is_found_among_real_ones() -> None:
    gains = [3.0, 0.0, 2.5, 4.0]
    keeps = [kept(3.0), kept(2.0, 0.3), kept(2.5), kept(4.0)]
    found = audit(keeps, factorial(gains, 40), NOISE)
    assert [round(f.effect) for f in found] == pytest.approx(gains, abs=1)
    assert doubtful(found) == [1]
    assert found[1].doubt > 0.5 > max(found[i].doubt for i in (0, 2, 3))


def test_intervals_cover_what_they_should() -> None:
    covered = total = 0
    for seed in range(120):
        chance = random.Random(seed)
        gains = [chance.gauss(2.0, 0.8) for _ in range(5)]
        keeps = [Kept(0, 0.8, g + chance.gauss(0, 0.8), (0.0, 9.0), 3, 0.01) for g in gains]
        for gain, found in zip(gains, audit(keeps, factorial(gains, 16, seed), NOISE), strict=True):
            covered += found.interval[0] <= gain <= found.interval[1]
            total += 1
    assert 0.92 < covered / total < 0.98


def test_a_judge_that_reckons_no_doubts_leaves_some() -> None:
    greedy = Kept(2.0, None, None, None, 1, None)
    assert audit([greedy], [], NOISE)[0].doubt > 0.2


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(0.1, 5), min_size=1, max_size=6), st.integers(0, 5), st.sampled_from([1e-3, 1.0, 1e3])
)
def test_units_do_not_matter(gains: list[float], seed: int, scale: float) -> None:
    keeps = [kept(g) for g in gains]
    scaled = [kept(scale * g, error=0.8 * scale) for g in gains]
    runs = factorial(gains, 8, seed)
    first = audit(keeps, runs, NOISE)
    second = audit(scaled, [(p, scale * s) for p, s in runs], scale * NOISE)
    assert [f.doubt for f in second] == pytest.approx([f.doubt for f in first], rel=1e-6, abs=1e-9)
    assert [f.effect / scale for f in second] == pytest.approx([f.effect for f in first], rel=1e-6)


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.5))
def test_what_stays_is_rarely_false(doubts: list[float], share: float) -> None:
    found = [Audited(1.0, (0.0, 2.0), d) for d in doubts]
    removed = doubtful(found, share)
    stays = [d for i, d in enumerate(doubts) if i not in removed]
    assert not stays or math.fsum(stays) / len(stays) <= share + 1e-12
    assert len(set(removed)) == len(removed)


def test_a_simplification_that_does_no_harm_stays() -> None:
    """It was not kept for a gain, so that it has none is no reason to take it out."""
    simpler = Kept(0.1, 0.4, 0.1, (-0.7, 0.9), 3, None, simplification=True, margin=1.0)
    gains = [3.0, 0.0]
    found = audit([kept(3.0, 0.02), simpler], factorial(gains, 24), NOISE)
    assert found[1].simplification and found[1].doubt < 0.05 and doubtful(found) == []
    assert false_share(found, []) == found[0].doubt
    harmful = audit([kept(3.0, 0.02), simpler], factorial([3.0, -2.5], 24), NOISE)
    assert harmful[1].doubt > 0.5 and doubtful(harmful) == [1]


def test_no_number_of_runs_takes_away_what_the_validation_set_adds() -> None:
    keeps = [kept(3.0, error=1.5), kept(2.0, error=1.5)]
    runs = factorial([3.0, 2.0], 200)
    plain, knowing = audit(keeps, runs, NOISE), audit(keeps, runs, NOISE, tau=1.0)
    for blind, wide in zip(plain, knowing, strict=True):
        assert (blind.interval[1] - blind.interval[0]) / 3.92 < 0.2
        assert (wide.interval[1] - wide.interval[0]) / 3.92 > 1.0
        assert wide.doubt > blind.doubt
    for without, with_tau in zip(audit(keeps, [], NOISE), audit(keeps, [], NOISE, tau=1.0), strict=True):
        assert with_tau.interval == pytest.approx(without.interval)
        assert with_tau.doubt == pytest.approx(without.doubt)


def test_the_luck_of_the_validation_set_is_in_the_intervals() -> None:
    covered = total = 0
    for seed in range(120):
        chance = random.Random(seed)
        gains = [chance.gauss(2.0, 0.8) for _ in range(5)]
        here = [g + chance.gauss(0, 0.7) for g in gains]
        error = math.hypot(0.8, 0.7)
        keeps = [Kept(0, error, g + chance.gauss(0, 0.8), (0.0, 9.0), 3, 0.01) for g in here]
        for gain, found in zip(gains, audit(keeps, factorial(here, 16, seed), NOISE, 0.7), strict=True):
            covered += found.interval[0] <= gain <= found.interval[1]
            total += 1
    assert 0.92 < covered / total < 0.98


def test_what_can_be_taken_out_is_until_what_stays_is_good_enough() -> None:
    """The worst cannot be taken out: others must go in its place, or it is said that it was not enough."""
    found = [Audited(1.0, (0.0, 2.0), d) for d in (0.10, 0.05, 0.04, 0.0, 0.0, 0.0)]
    assert doubtful(found, 0.03, [False, True, True, True, True, True]) == [1]
    assert false_share(found, [1]) <= 0.03
    stuck = doubtful(found, 0.01, [False] + [True] * 5)
    assert stuck == [1, 2] and false_share(found, stuck) > 0.01


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="noise"):
        audit([kept(1.0)], [], 0.0)
    with pytest.raises(ValueError, match="each run"):
        audit([kept(1.0)], [([True, False], 1.0)], NOISE)
