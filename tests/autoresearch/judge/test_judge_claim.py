"""The final claim and the sampling error of the data."""

import json
import math
import random
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from autoresearch.judge.claim import claim
from autoresearch.judge.tau import paired_tau, replicate_tau


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
        ("before", "after", "sampling"),
        [([1.0], [0.9, 0.8], 0.0), ([1.0, math.nan], [0.9, 0.8], 0.0), ([1.0, 1.1], [0.9, 0.8], -1.0)],
    )
    def test_it_is_refused_without_enough_scores(self, before, after, sampling):
        with pytest.raises(ValueError):
            claim(before, after, sampling=sampling)


class TestTau:
    def losses(self, documents: int = 400, seed: int = 0):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(50, 500, documents).astype(float)
        base = sizes * rng.normal(1.0, 0.3, documents)
        return [base + sizes * rng.normal(0, 0.05, documents) for _ in range(3)], sizes

    def test_it_is_the_spread_over_samples_of_documents(self):
        """Against the standard error of a ratio of sums by the delta method."""
        (a, b, _), sizes = self.losses()
        gap = a - b
        score = gap.sum() / sizes.sum()
        exact = np.sqrt(((gap - score * sizes) ** 2).sum()) / sizes.sum()
        assert paired_tau(a, b, sizes) == pytest.approx(exact, rel=0.08)

    def test_pairing_takes_out_what_both_find_hard(self):
        (a, b, _), sizes = self.losses()
        shuffled = np.random.default_rng(1).permutation(b)
        assert paired_tau(a, b, sizes) < 0.5 * paired_tau(a, shuffled, sizes)

    def test_it_shrinks_with_the_root_of_the_documents(self):
        (a, b, _), sizes = self.losses(400)
        (c, d, _), more = self.losses(6400)
        assert paired_tau(c, d, more) == pytest.approx(paired_tau(a, b, sizes) / 4, rel=0.3)

    def test_the_same_seed_gives_the_same_answer(self):
        (a, b, _), sizes = self.losses()
        assert paired_tau(a, b, sizes, seed=3) == paired_tau(a, b, sizes, seed=3)
        assert paired_tau(a, a, sizes) == 0.0

    def test_replicates_of_the_baseline_give_one_before_there_is_a_candidate(self):
        losses, sizes = self.losses()
        assert replicate_tau(losses, sizes) == pytest.approx(paired_tau(*losses[:2], sizes), rel=0.2)
        with pytest.raises(ValueError, match="two replicates"):
            replicate_tau(losses[:1], sizes)

    @pytest.mark.parametrize(
        ("a", "b", "sizes"),
        [
            ([1.0], [1.0], [1.0]),
            ([1, 2], [1, 2, 3], [1, 1]),
            ([1, 2], [1, math.nan], [1, 1]),
            ([1, 2], [1, 2], [1, 0]),
        ],
    )
    def test_lists_that_do_not_match_are_refused(self, a, b, sizes):
        with pytest.raises(ValueError):
            paired_tau(a, b, sizes)
