"""Marks of changes that hold, fade or reverse on another rung are right at their stated confidence."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge.finished.transfer import Extrapolated, Gain, Mark, extrapolate, gains

NOISE = 0.002
"""Standard deviation of a training from seed to seed; pairs on a common seed share four fifths of it."""


def rung(draw: random.Random, effects: list[float], seeds: int) -> list[dict[int, float]]:
    """Losses of the start and after each change on a rung, where the changes have these true effects."""
    common = [draw.gauss(0, NOISE) for _ in range(seeds)]
    level, found = 1.7, []
    for effect in [0.0, *effects]:
        level -= effect
        found.append({seed: level + luck + draw.gauss(0, NOISE / 3) for seed, luck in enumerate(common)})
    return found


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_marks_are_right_at_their_confidence(seeds: int) -> None:
    """Of changes that hold, fade and reverse in known shares."""
    draw, told = random.Random(seeds), Counter[tuple[str, Mark]]()
    truth = {"holds": 0.006, "fades": 0.0, "reverses": -0.006}
    for _ in range(400):
        kinds = [draw.choice(list(truth)) for _ in range(5)]
        base = gains(rung(draw, [0.006] * 5, seeds))
        there = gains(rung(draw, [truth[kind] for kind in kinds], seeds), base)
        told.update(zip(kinds, (gain.mark for gain in there), strict=False))
    shares = {kind: sum(n for (k, _), n in told.items() if k == kind) for kind in truth}
    false_gain = told["fades", Mark.HOLDS] / shares["fades"]
    false_loss = told["fades", Mark.REVERSES] / shares["fades"]
    assert max(false_gain, false_loss) < 0.04 and false_gain + false_loss > 0.01  # 2.5% each are stated
    assert told["holds", Mark.REVERSES] == 0 == told["reverses", Mark.HOLDS]
    assert told["holds", Mark.FADES] / shares["holds"] < 0.03
    found = {"holds": Mark.HOLDS, "reverses": Mark.REVERSES, "fades": Mark.FADES}
    least = {2: 0.5, 3: 0.9, 5: 0.9}[seeds]
    assert all(told[kind, mark] / shares[kind] > least for kind, mark in found.items()), told


@pytest.mark.parametrize("seeds", [2, 3])
def test_intervals_of_all_changes_and_of_a_scale_that_was_not_run_cover_what_is_true(seeds: int) -> None:
    draw, covered, beyond, said = random.Random(seeds), 0, 0, 0
    scales, truth = [1.0, 2.0, 4.0], [0.02, 0.017, 0.014]
    for _ in range(1000):
        found = [gains(rung(draw, [effect / 5] * 5, seeds))[-1] for effect in truth]
        for gain, effect in zip(found, truth, strict=True):
            assert gain.interval is not None
            covered += gain.interval[0] <= effect <= gain.interval[1]
        there = extrapolate(scales, found)
        if isinstance(there, Extrapolated):
            said += 1
            beyond += there.interval[0] <= 0.011 <= there.interval[1]
    assert 0.94 < covered / 3000 < 0.96 and said > 800
    assert beyond / said > 0.94


def test_what_failed_somewhere_says_nothing_of_the_noise() -> None:
    whole = [{1: 1.0, 2: 1.1}, {1: 0.9, 2: 1.02}]
    [first, second, _] = gains([*whole, {1: 0.8}])
    assert first == gains(whole)[0] and second.error == pytest.approx(first.error * math.sqrt(2))
    assert gains([{1: 1.0, 2: 1.1}, {1: 0.9}])[0].interval is None


def test_without_a_score_or_noise_nothing_is_established() -> None:
    [step, whole] = gains([{1: 1.0}, {1: 0.9}])
    assert step == whole == Gain(pytest.approx(0.1), None, None, 1, Mark.UNKNOWN)
    assert gains([{1: 1.0}, {2: 0.9}])[0] == Gain(None, None, None, 0, Mark.UNKNOWN)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_a_change_is_the_mean_of_its_pairs(pairs: list[float]) -> None:
    [step, _] = gains([dict.fromkeys(range(len(pairs)), 0.0), {i: -gain for i, gain in enumerate(pairs)}])
    assert step.effect == pytest.approx(sum(pairs) / len(pairs)) and step.pairs == len(pairs)
    assert step.interval is not None and step.interval[0] <= step.effect <= step.interval[1]


def known(effect: float, error: float) -> Gain:
    return Gain(effect, (effect - 2 * error, effect + 2 * error), error, 3, Mark.UNKNOWN)


def test_a_gain_beyond_the_largest_scale_is_covered_by_its_interval() -> None:
    draw, covered, refused = random.Random(3), 0, 0
    for _ in range(1000):
        scales = [1.0, 2.0, 4.0, 8.0]
        seen = [known(0.02 - 0.003 * math.log(scale) + draw.gauss(0, 0.001), 0.001) for scale in scales]
        found = extrapolate(scales, seen)
        if isinstance(found, str):
            refused += 1
            continue
        assert found.scale == pytest.approx(16.0)
        covered += found.interval[0] <= 0.02 - 0.003 * math.log(16) <= found.interval[1]
    assert refused < 90 and covered / (1000 - refused) > 0.92


def test_where_the_rungs_do_not_support_it_nothing_is_said() -> None:
    two = extrapolate([1.0, 2.0], [known(0.01, 0.001)] * 2)
    assert isinstance(two, str) and "3 are needed" in two
    bent = extrapolate([1.0, 2.0, 4.0], [known(0.01, 0.0005), known(0.02, 0.0005), known(0.0, 0.0005)])
    assert isinstance(bent, str) and "do not lie on a line" in bent
    straight = extrapolate([1.0, 2.0, 4.0], [known(0.01, 0.001), known(0.009, 0.001), known(0.008, 0.001)])
    assert isinstance(straight, Extrapolated) and straight.effect == pytest.approx(0.007)
