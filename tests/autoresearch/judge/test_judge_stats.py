"""The formulas against exact values and numerical integrals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from autoresearch.judge.noise import Pool, compare, restless
from autoresearch.judge.stats import Z95, log_evidence, log_pass, phi, shrink, t_from_z, z_from_t


@pytest.mark.parametrize("df", [3, 5, 10, 30, 200])
def test_quantiles_of_t_are_those_of_student(df):
    assert t_from_z(Z95, df) == pytest.approx(stats.t.ppf(0.975, df), rel=0.013)


@pytest.mark.parametrize("df", [1, 2])
def test_with_one_or_two_degrees_of_freedom_they_err_on_the_wide_side(df):
    assert stats.t.ppf(0.975, df) < t_from_z(Z95, df) < 1.5 * stats.t.ppf(0.975, df)


@given(st.floats(-30, 30), st.integers(1, 100))
def test_z_and_t_are_inverse(t, df):
    assert t_from_z(z_from_t(t, df), df) == pytest.approx(t, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("t", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("df", [2, 4, 12])
def test_z_has_the_tail_of_t(t, df):
    assert z_from_t(t, df) == pytest.approx(stats.norm.isf(stats.t.sf(t, df)), rel=0.03)
    assert z_from_t(t, df) < stats.norm.isf(stats.t.sf(t, df)) * 1.001, "never more believing than exact"


@pytest.mark.parametrize("z", [-1.0, 0.8, 2.0, 5.0])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_evidence_is_the_ratio_of_the_two_likelihoods(z, ratio):
    real, _ = integrate.quad(
        lambda x: stats.norm.pdf(z - x) * stats.expon.pdf(x, scale=ratio), 0, 60, points=[max(z, 0.0)]
    )
    assert log_evidence(z, ratio) == pytest.approx(math.log(real / stats.norm.pdf(z)), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_the_chance_to_pass_is_taken_back(ratio):
    real, _ = integrate.quad(lambda x: stats.norm.sf(0.8 - x) * stats.expon.pdf(x, scale=ratio), 0, 200)
    assert log_pass(0.8, ratio) == pytest.approx(math.log(stats.norm.sf(0.8) / real), rel=1e-6)


def test_tiny_gains_leave_the_odds_alone_and_extremes_do_not_break():
    assert log_evidence(1.0, 1e-9) == pytest.approx(log_evidence(1.0, 0.05))
    assert log_evidence(-40.0, 0.05) == -math.inf
    assert log_evidence(60.0, 5.0) > 1000


@pytest.mark.parametrize(
    ("gain", "error", "scale"), [(2.0, 1.0, 1.0), (0.3, 1.0, 2.0), (8.0, 0.5, 3.0), (-1.0, 1.0, 1.0)]
)
def test_shrinking_is_the_posterior_mean_with_its_quantiles(gain, error, scale):
    x = np.linspace(0, 30, 300_001)
    density = stats.norm.pdf((gain - x) / error) * np.exp(-x / scale)
    density /= density.sum()
    mean, (low, high) = shrink(gain, error, scale)
    assert mean == pytest.approx((x * density).sum(), rel=1e-3)
    cumulative = np.cumsum(density)
    assert low == pytest.approx(x[np.searchsorted(cumulative, 0.025)], abs=1e-3)
    assert high == pytest.approx(x[np.searchsorted(cumulative, 0.975)], abs=1e-3)


def test_doubt_pulls_the_interval_down_to_nothing():
    sure, (low, high) = shrink(3.0, 1.0, 2.0)
    doubtful, (zero, upper) = shrink(3.0, 1.0, 2.0, doubt=0.1)
    assert low > 0 and zero == pytest.approx(0, abs=1e-9)
    assert doubtful == pytest.approx(0.9 * sure) and upper < high


def test_phi_is_accurate_in_the_tail():
    assert phi(-20) == pytest.approx(stats.norm.cdf(-20), rel=1e-9)


class TestPool:
    def test_it_pools_within_configurations_only(self):
        pool = Pool().with_runs({0: 1.0, 1: 3.0}).with_runs({0: 10.0, 1: 12.0, 2: 14.0}).with_runs({5: 99.0})
        noise = pool.noise(1.0)
        assert noise.df == 3 and noise.variance == pytest.approx((2 + 8) / 3)
        assert noise.beta == 0 and noise.residual == noise.variance

    def test_common_luck_is_found_and_shrunk(self):
        rng = np.random.default_rng(0)
        pool = Pool()
        for _ in range(200):
            luck = rng.normal(size=4)
            incumbent = dict(enumerate(luck + 0.5 * rng.normal(size=4)))
            runs = dict(enumerate(luck + 0.5 * rng.normal(size=4) - 3))
            pool = pool.with_runs(runs).with_pairs(runs, incumbent)
        noise = pool.noise(1.0)
        assert noise.beta == pytest.approx(0.8, abs=0.06)
        assert noise.residual == pytest.approx(1.25 * (1 - 0.64), rel=0.12)
        one = (
            Pool()
            .with_runs({0: 0.0, 1: 1.0, 2: 2.0})
            .with_pairs({0: 0.0, 1: 1.0, 2: 2.0}, {0: 0.0, 1: 1.0, 2: 2.0})
        )
        assert 0 < one.noise(1.0).beta < 0.5, "three pairs in step are little evidence"

    def test_with_no_common_luck_it_is_the_plain_comparison(self):
        incumbent, runs = {0: 10.0, 1: 12.0, 2: 11.0}, {0: 8.0, 7: 8.5}
        noise = Pool(ss=4.0, df=8).noise(10.0)
        view = compare(noise, incumbent, runs, tau=0.2)
        assert view.gain == pytest.approx(11.0 - 8.25)
        assert view.error == pytest.approx(math.sqrt(0.5 / 2 + 0.5 / 3 + 0.04))
        assert view.luck == pytest.approx(0.04 / view.error**2)
        assert view.plus(-1.0).gain == pytest.approx(view.gain - 1) and view.plus(0.0) is view

    def test_a_restless_candidate_gets_a_wider_error_and_a_calm_one_no_credit(self):
        noise = Pool(ss=10.0, df=10).noise(1.0)
        assert restless({0: 0.0, 1: 10.0}, noise) == pytest.approx((50 + 4) / 5)
        assert restless({0: 0.0, 1: 0.01}, noise) == 1.0
        assert restless({0: 3.0}, noise) == 1.0
