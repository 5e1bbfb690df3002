"""The sampling error of a data split."""

import math

import numpy as np
import pytest

from autoresearch.judge.noise import paired_tau, replicate_tau


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
