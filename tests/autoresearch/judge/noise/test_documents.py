"""The variance of a mean difference, by seeds and by whole documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoresearch.judge.noise.documents import Items, Variance, document_variance, seed_variance, total
from benchmarks.coverage import GAIN, RUNS, World

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_covers_whatever_documents_gain(runs: int, paired: bool) -> None:
    """A quick look with a fixed seed; benchmarks/coverage.py is exact."""
    worlds = (World(24, 0.0, 0.005), World(24, 0.008, 0.002), World(24, 0.03, 0.005))
    rng, hits, draws = np.random.default_rng(runs), 0, 0
    for world in worlds:
        for _ in range(80):
            before, after, items = world.draw(rng, runs, paired)
            size = items.weights.sum()
            first, second = ({seed: x.sum() / size for seed, x in side.items()} for side in (before, after))
            found = total([seed_variance(first, second), document_variance(before, after, items)])
            gain = np.mean(list(first.values())) - np.mean(list(second.values()))
            hits, draws = hits + bool(abs(gain - GAIN) <= found.half_width), draws + 1
    assert 0.92 <= hits / draws <= 0.99


def test_pieces_of_documents_that_gain_alike_are_not_independent() -> None:
    before, after, items = World(24, 0.02, 0.001, both=0.0).draw(RNG, 8, False)
    pieces = Items(items.weights, np.arange(len(items.weights)))
    whole = document_variance(before, after, items)
    assert whole.error > 1.7 * document_variance(before, after, pieces).error
    assert whole.df < 23 and whole.half_width > 2.0 * whole.error


def test_what_differs_by_seed_and_document_counts_once() -> None:
    """Programs that differ in nothing but seeds: all of the difference is the seeds'."""
    before, after, items = World(24, 0.0, 0.0, both=0.1).draw(RNG, 6, False)
    single = document_variance({0: before[0]}, {6: after[6]}, items)
    assert document_variance(before, after, items).value < 0.5 * single.value / 6


def test_without_common_seeds_the_seeds_variance_is_welchs() -> None:
    before, after = RNG.normal(1, 0.1, 5), RNG.normal(1, 0.3, 4)
    found = seed_variance(dict(enumerate(before)), dict(enumerate(after, 5)))
    expected = stats.ttest_ind(before, after, equal_var=False)
    assert found.df == pytest.approx(expected.df)
    assert found.value == pytest.approx(np.var(before, ddof=1) / 5 + np.var(after, ddof=1) / 4)


def test_on_common_seeds_it_is_that_of_the_pairs() -> None:
    before, change = RNG.normal(1, 0.1, 6), RNG.normal(0, 0.01, 6)
    found = seed_variance(dict(enumerate(before)), dict(enumerate(before + change)))
    assert found.value == pytest.approx(np.var(change, ddof=1) / 6) and found.df == 5


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=20), st.integers(0, 2**32 - 1))
def test_one_piece_a_document_of_equal_gain_variance_is_unbiased_and_has_the_right_freedom(
    sizes: list[float], seed: int
) -> None:
    """Against the definition: the quadratic form's trace, and trace squared over trace of the square."""
    weights = np.array(sizes)
    share = weights / weights.sum()
    square = (share**2).sum()
    found = document_variance(
        {0: weights * np.random.default_rng(seed).normal(size=len(weights))},
        {0: np.zeros(len(weights))},
        Items(weights, np.arange(len(weights))),
    )
    form = np.diag(share / np.sqrt(1 - 2 * share + square)) @ (np.eye(len(share)) - share)
    covariance = form @ form.T
    assert np.trace(covariance) == pytest.approx(square)
    assert found.df == pytest.approx(max(1.0, square**2 / (covariance**2).sum()), rel=1e-6)


def test_scores_in_another_unit_give_the_same_freedom() -> None:
    before, after, items = World(24, 0.01, 0.01).draw(RNG, 3, True)
    one = document_variance(before, after, items)
    two = document_variance(*({s: 7 * x for s, x in runs.items()} for runs in (before, after)), items)
    assert two.error == pytest.approx(7 * one.error) and two.df == pytest.approx(one.df)


def test_a_sum_of_nothing_is_exact() -> None:
    assert total([]) == total([Variance(0.0, 1.0)]) == Variance(0.0, math.inf)
    assert (
        document_variance({0: np.ones(1)}, {0: np.zeros(1)}, Items(np.ones(1), np.zeros(1, int))).value == 0
    )


@pytest.mark.parametrize(
    ("losses", "weights"),
    [([1.0, 2.0, 3.0], [1.0, 1.0]), ([1.0, math.nan], [1.0, 1.0]), ([1.0, 2.0], [1.0, 0.0])],
)
def test_losses_that_do_not_fit_are_refused(losses: list[float], weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"losses must be|each run needs"):
        document_variance(
            {0: np.array(losses)}, {0: np.array(losses)}, Items(np.array(weights), np.arange(2))
        )
