"""How sure a loss on a further metric is: right at its stated confidence, in simulation."""

from dataclasses import replace

import numpy as np
import pytest

from autoresearch.judge.guards import SPREAD, GuardRun, weigh
from autoresearch.types import Direction, GuardMetric

DOCUMENTS = 40
SLICE = GuardMetric("slice", "a slice", "guard_slice", "guard-slice", {"tokens": "rare"})
SPEED = GuardMetric("speed", "speed", "speed", direction=Direction.MAXIMIZE, margin=0.1)


def runs(rng: np.random.Generator, hard: np.ndarray, shift: np.ndarray, seeds: list[int]) -> list[GuardRun]:
    found = []
    for seed in seeds:
        luck = np.random.default_rng(seed).normal(0, 0.01) + rng.normal(0, 0.005)
        losses = hard + shift + luck + rng.normal(0, 0.02, DOCUMENTS)
        table = np.stack([losses * 10, np.full(DOCUMENTS, 10.0), np.arange(DOCUMENTS)], axis=1)
        value = float(table[:, 0].sum() / table[:, 1].sum())
        found.append(GuardRun(seed, value, {"guard_slice": value, "speed": 100.0}, {"slice": table}))
    return found


def test_a_harmless_change_is_rarely_a_loser_and_a_harmful_one_is_found() -> None:
    rng, lost, found, trials = np.random.default_rng(0), 0, 0, 400
    for trial in range(trials):
        hard = rng.normal(2, 0.3, DOCUMENTS)
        own = rng.normal(0, 0.03, DOCUMENTS)  # documents differ in what they gain, none on average
        seeds = [1000 * trial + i for i in range(4)]
        before = runs(rng, hard, np.zeros(DOCUMENTS), seeds)
        lost += weigh([SLICE], before, runs(rng, hard, own, seeds))[0].lost
        found += weigh([SLICE], before, runs(rng, hard, own + 0.06, seeds))[0].lost
    assert lost / trials <= 0.025 + 2.5 * (0.025 * 0.975 / trials) ** 0.5
    assert found / trials > 0.9


def test_a_slower_program_loses_only_beyond_the_margin() -> None:
    def timed(speed: float) -> list[GuardRun]:
        return [GuardRun(seed, 1.0, {"speed": speed + seed / 1e3}) for seed in range(3)]

    [near], [far] = weigh([SPEED], timed(100), timed(92)), weigh([SPEED], timed(100), timed(80))
    assert near.gain == pytest.approx(-8) and not near.lost and far.lost


def test_the_spread_over_seeds_is_compared() -> None:
    def spread(width: float, count: int) -> list[GuardRun]:
        rng = np.random.default_rng(1)
        return [GuardRun(seed, float(rng.normal(1, width)), {}) for seed in range(count)]

    [wider], [allowed], [few] = (
        weigh([SPREAD], spread(0.01, 12), spread(0.1, 12)),
        weigh([replace(SPREAD, margin=9.0)], spread(0.01, 12), spread(0.1, 12)),
        weigh([SPREAD], spread(1, 2), spread(9, 2)),
    )
    assert wider.lost and wider.gain == pytest.approx(-np.log(10), abs=0.01)
    assert allowed.gain == wider.gain and not allowed.lost, "its margin is in logarithms"
    assert few.gain is None and not few.lost, "two seeds say nothing of a spread"


def test_what_was_not_measured_is_no_loss() -> None:
    [gain] = weigh([SLICE], [GuardRun(0, 1.0, {})], [GuardRun(0, 1.0, {})])
    assert (gain.gain, gain.lost) == (None, False)


def test_several_guards_have_wider_intervals() -> None:
    rng, hard = np.random.default_rng(2), np.full(DOCUMENTS, 2.0)
    before, after = (runs(rng, hard, np.zeros(DOCUMENTS), [1, 2, 3]) for _ in range(2))
    [one], [many, *_] = weigh([SLICE], before, after), weigh([SLICE] * 5, before, after)
    assert (
        one.interval
        and many.interval
        and many.interval[0] < one.interval[0] < one.interval[1] < many.interval[1]
    )
