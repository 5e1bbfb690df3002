"""The final claim."""

import json
import math
import random
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from autoresearch.judge.finished.claim import Claim, whole_gain
from autoresearch.judge.finished.claim import claim as claim_of
from autoresearch.judge.noise.documents import Variance
from autoresearch.judge.noise.spread import Z95, t_from_z
from autoresearch.types import Estimate, Levels


def claim(before: list[float], after: list[float], sampling: float = 0.0, **rest: float) -> Claim:
    """A claim of runs on seeds that are all different, with an exact sampling error."""
    tip = dict(enumerate(after, len(before)))
    return claim_of(dict(enumerate(before)), tip, sampling=Variance(sampling**2, math.inf), **rest)


class TestClaim:
    def test_it_is_welchs_interval(self):
        before, after = [1.02, 1.00, 1.05, 0.98, 1.01, 1.03, 0.99, 1.00], [0.90, 0.93, 0.88, 0.95, 0.91]
        expected = stats.ttest_ind(before, after, equal_var=False).confidence_interval(0.95)
        result = claim(before, after)
        assert result.interval == pytest.approx((expected.low, expected.high), rel=1e-2)
        assert result.effect == pytest.approx(np.mean(before) - np.mean(after))
        assert result.seeds == (8, 5) and result.overfit is None

    def test_the_splits_own_error_widens_it(self):
        before, after = [1.0, 1.1, 1.2], [0.8, 0.9, 1.0]
        plain, honest = claim(before, after), claim(before, after, sampling=0.2)
        assert honest.error == pytest.approx(math.hypot(plain.error, 0.2))
        assert honest.df > plain.df and honest.interval[0] < plain.interval[0]

    def test_scores_without_spread_leave_the_splits_error_alone(self):
        result = claim([1.0, 1.0], [0.9, 0.9], sampling=0.01)
        assert result.interval == pytest.approx((0.1 - 0.0196, 0.1 + 0.0196), abs=1e-4)
        assert json.loads(json.dumps(asdict(result), allow_nan=False))["df"] is None

    def test_the_gap_to_the_validation_gain_is_the_overfit(self):
        assert claim([1.0, 1.1], [0.9, 1.0], validation_gain=0.15).overfit == pytest.approx(0.05)

    def test_it_covers_the_truth(self):
        rng, hits = random.Random(0), 0
        for _ in range(2000):
            shift = rng.gauss(0, 0.3)
            before = [rng.gauss(5, 1) for _ in range(8)]
            after = [rng.gauss(3 + shift, 1.5) for _ in range(8)]
            low, high = claim(before, after, sampling=0.3).interval
            hits += low <= 2 <= high
        assert 0.93 <= hits / 2000 <= 0.97

    @pytest.mark.parametrize(
        ("before", "after"), [([1.0], [0.9, 0.8]), ([1.0, math.nan], [0.9, 0.8]), ([1.0, 1.1], [0.9])]
    )
    def test_it_is_refused_without_enough_scores(self, before, after):
        with pytest.raises(ValueError):
            claim(before, after)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_the_whole_gain_uses_every_run_and_what_common_seeds_share(shared: float) -> None:
    """13 runs of the start, 6 of the tip on some of their seeds; the judge's level rests on the first 3."""
    rng, hits, errors = random.Random(1), 0, []
    for _ in range(800):
        luck = [rng.gauss(0, 1) for _ in range(13)]
        start, tip = (
            {
                seed: level + math.sqrt(shared) * luck[seed] + math.sqrt(1 - shared) * rng.gauss(0, 1)
                for seed in range(count)
            }
            for level, count in ((50.0, 13), (48.0, 6))
        )
        first, end = np.mean([start[seed] for seed in range(3)]), np.mean(list(tip.values()))
        levels = Levels(around(first, 3), around(end, 6), noise=1.0, freedom=40)
        before, after, half = whole_gain(start, tip, levels)
        gain = before.mean - after.mean
        hits += abs(gain - 2.0) <= half
        errors.append(((gain - 2.0) ** 2, (first - end - 2.0) ** 2))
    ours, judges = np.mean(errors, axis=0)
    assert hits / 800 >= 0.92, "too wide rather than too narrow: six pairs tell little about what is shared"
    assert ours < (0.55 if shared else 0.75) * judges
    assert before.trials == 13 and after.interval and before.interval


def around(mean: float, runs: int) -> Estimate:
    half = t_from_z(Z95, 40) / math.sqrt(runs)
    return Estimate(float(mean), (float(mean) - half, float(mean) + half), runs)
