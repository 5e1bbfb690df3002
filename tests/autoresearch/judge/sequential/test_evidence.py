"""What the sequential judges ask of a candidate, and what is left of a selected gain."""

import numpy as np
import pytest
from scipy import stats

from autoresearch.judge.noise.spread import Comparison
from autoresearch.judge.sequential.evidence import (
    BARS,
    LOST,
    SizeTerms,
    bar,
    log_evidence,
    log_stays,
    shrink,
    why_stop,
)


@pytest.mark.parametrize(
    ("z", "runs", "limit", "stops"), [(0.8, 1, 12, True), (1.0, 1, 12, False), (1.7, 12, 12, True)]
)
def test_a_candidate_is_stopped_below_the_bar_and_at_the_limit_and_is_told_the_numbers(z, runs, limit, stops):
    view = Comparison(z, 1.0, z, 10**6, 0.5, 0.0)
    why = why_stop(view, runs, limit, SizeTerms(), 0.0)
    assert bool(why) == stops
    assert not why or (f"{z:.2f}" in why and f"after {runs} run" in why)


def test_the_bar_rises_with_every_run():
    assert [bar(runs) for runs in range(1, 7)] == list(BARS)
    assert all(bar(runs) < bar(runs + 1) for runs in range(1, 30))


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


def test_a_gain_remains_by_the_odds_of_its_runs_on_top_of_what_was_kept_since():
    """A gain of 3 was seen with error 0.5; a run on top finds it again, half of it, or none."""
    prior, before = np.log((1 - LOST) / LOST), log_evidence(3.0 / 0.5, 1.0 / 0.5)
    error = 0.5 / np.sqrt(2)

    def stays(found: float, moves: int = 1) -> float:
        after = log_evidence(found / 0.5, 1.0 / 0.5)
        return log_stays(moves, log_evidence((3.0 + found) / 2 / error, 1.0 / error), before, after)

    assert stays(3.0) > prior > stays(0.0) and stays(0.0) < np.log(0.01)
    assert stays(3.0) > stays(1.5) > stays(0.0)
    assert stays(1.5, moves=3) < stays(1.5) == stays(1.5, moves=0)


def test_a_gain_far_beyond_the_noise_remains_though_it_was_measured_more_exactly_before():
    before, together, after = (log_evidence(40 / error, 1 / error) for error in (0.1, 0.2, 0.4))
    assert log_stays(1, together, before, after) > np.log(20)
