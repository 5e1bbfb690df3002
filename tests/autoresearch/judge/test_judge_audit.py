import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.judge.audit import Audited, audit, doubtful
from autoresearch.judge.report import Kept

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


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="noise"):
        audit([kept(1.0)], [], 0.0)
    with pytest.raises(ValueError, match="each run"):
        audit([kept(1.0)], [([True, False], 1.0)], NOISE)
