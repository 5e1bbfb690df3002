"""The strict judge: e-values that are e-values, weights that sum to one, and what it costs."""

import math
import random

import pytest

from autoresearch.judge import create_judge
from autoresearch.judge.noise.spread import Noise, Pool, compare
from autoresearch.judge.strict import log_e, weight
from autoresearch.testing.judges import Simulation, serial
from autoresearch.types import VerdictKind


@pytest.mark.parametrize("horizon", [1, 10, 300])
def test_the_weights_sum_to_one_at_most(horizon):
    assert sum(weight(t, horizon) for t in range(1, 100_000)) <= 1.0


def view_of(incumbent, runs):
    pool = Pool().with_runs(incumbent).with_runs(runs)
    noise = pool.noise(1.0)
    plain = Noise(noise.variance, noise.df)
    return compare(plain, incumbent, runs), noise.variance


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, -0.5])
def test_its_expectation_without_a_gain_is_at_most_one_even_with_optional_stopping(gain):
    """Stop at the best of up to eight looks that a rule may choose: here, as soon as it exceeds 3."""
    rng, total, count = random.Random(5), 0.0, 6000
    for _ in range(count):
        incumbent = {s: rng.gauss(0, 1) for s in range(4)}
        runs: dict[int, float] = {}
        value = 0.0
        for seed in range(8):
            runs[seed] = rng.gauss(-gain, 1)
            if seed < 1:
                continue
            view, variance = view_of(incumbent, runs)
            value = math.exp(log_e(view, variance))
            if value > 3:
                break
        total += value
    assert total / count < 1.1


def test_it_grows_with_the_evidence():
    incumbent = {s: 0.1 * (-1) ** s for s in range(4)}
    values = []
    for gain in (-1.0, 0.1, 0.5, 1.0, 3.0):
        view, variance = view_of(incumbent, {s: -gain + 0.1 * (-1) ** s for s in range(4)})
        values.append(log_e(view, variance))
    assert values == sorted(values) and values[0] == -math.inf


def test_clear_gains_are_kept_and_nothing_else():
    real = false = 0
    for seed in range(10):
        lab = Simulation([4.0, 0.0, -2.0] * 30, seed=seed)
        verdicts = serial(create_judge("strict", lab.baseline()), lab)
        keeps = [i for i, v in enumerate(verdicts) if v.kind is VerdictKind.KEEP]
        real += sum(i % 3 == 0 for i in keeps)
        false += sum(i % 3 != 0 for i in keeps)
    assert real >= 240
    assert false <= 3


def test_the_reason_names_the_bar():
    lab = Simulation([6.0] * 3, seed=1)
    verdict = serial(create_judge("strict", lab.baseline()), lab)[0]
    assert verdict.kind is VerdictKind.KEEP
    assert "e-value" in verdict.reason and "needs" in verdict.reason
    assert verdict.evidence >= 300 / (0.9 * 0.05)
