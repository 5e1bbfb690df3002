"""The formulas against exact values and numerical integrals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoresearch.judge.noise.spread import Z95, Pool, compare, excess_variance, phi, t_from_z, z_from_t


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


def test_phi_is_accurate_in_the_tail():
    assert phi(-20) == pytest.approx(stats.norm.cdf(-20), rel=1e-9)


class TestPool:
    def test_it_pools_within_configurations_only(self):
        pool = Pool().with_runs({0: 1.0, 1: 3.0}).with_runs({0: 10.0, 1: 12.0, 2: 14.0}).with_runs({5: 99.0})
        noise = pool.noise(1.0)
        assert noise.df == 3 and noise.variance == pytest.approx((2 + 8) / 3)

    def test_with_no_common_luck_it_is_the_plain_comparison(self):
        incumbent, runs = {0: 10.0, 1: 12.0, 2: 11.0}, {0: 8.0, 7: 8.5}
        noise = Pool(ss=4.0, df=8).noise(10.0)
        view = compare(noise, incumbent, runs, tau=0.2)
        assert view.gain == pytest.approx(11.0 - 8.25)
        assert view.error == pytest.approx(math.sqrt(0.5 / 2 + 0.5 / 3 + 0.04))
        assert view.sampling_share == pytest.approx(0.04 / view.error**2)
        assert view.plus(-1.0).gain == pytest.approx(view.gain - 1) and view.plus(0.0) is view

    def test_a_candidate_that_scatters_more_gets_a_wider_error_and_one_that_scatters_less_no_credit(self):
        noise = Pool(ss=10.0, df=10).noise(1.0)
        assert excess_variance({0: 0.0, 1: 10.0}, noise) == pytest.approx((50 + 4) / 5)
        assert excess_variance({0: 0.0, 1: 0.01}, noise) == 1.0
        assert excess_variance({0: 3.0}, noise) == 1.0
