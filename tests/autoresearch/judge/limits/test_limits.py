"""When a trial is stopped early, and what resources it may use."""

import math

from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge.limits.gross_failures import Pruner
from autoresearch.judge.limits.resources import GUARDS, broken_guard, guarded
from autoresearch.types import Progress

POINTS = [i / 40 for i in range(41)]


def curve(start: float, end: float, speed: float = 4.0) -> list[tuple[float, float]]:
    return [(x, end + (start - end) * math.exp(-speed * x)) for x in POINTS]


BASELINES = [curve(7.6, 5.0), curve(7.6, 5.05), curve(7.6, 5.1)]


def stopped_at(path: list[tuple[float, float]]) -> float | None:
    pruner = Pruner(BASELINES)
    return next((x for x, loss in path if pruner(Progress(x, 0.0, loss=loss))), None)


def test_a_hopeless_trial_is_stopped_early() -> None:
    at = stopped_at(curve(7.6, 7.4))
    assert at is not None and 0.3 <= at < 0.6


def test_divergence_is_stopped_at_once() -> None:
    assert Pruner(BASELINES)(Progress(0.01, 0.0, loss=math.nan))


def test_a_slow_starter_that_may_still_win_is_left_alone() -> None:
    assert stopped_at(curve(7.6, 4.0, speed=2.2)) is None


def test_a_spike_does_not_end_a_trial() -> None:
    path = curve(7.6, 5.0)
    path[20] = (path[20][0], 30.0)
    assert stopped_at(path) is None


@given(st.floats(0.001, 1000))
def test_scale_does_not_matter(scale: float) -> None:
    pruner = Pruner([[(x, scale * y) for x, y in c] for c in BASELINES])
    path = [(x, scale * y) for x, y in curve(7.6, 7.4)]
    assert next((x for x, loss in path if pruner(Progress(x, 0.0, loss=loss))), None) == stopped_at(
        curve(7.6, 7.4)
    )


@given(st.integers(0, 2), st.floats(-0.05, 0.05))
def test_a_copy_of_the_baseline_is_never_stopped(index: int, shift: float) -> None:
    assert stopped_at([(x, y + shift) for x, y in BASELINES[index]]) is None


def test_without_a_baseline_nothing_is_stopped() -> None:
    assert not Pruner([])(Progress(0.9, 0.0, loss=99.0))


BASE = [{"memory_mb": 500.0, "weights_mb": 40.0, "score_seconds": 10.0}, {"memory_mb": 520.0}]


def test_a_broken_guard_is_named_with_both_numbers() -> None:
    said = broken_guard({"weights_mb": 130.0}, BASE, {"weights_mb": 3.0})
    assert "submitted weights" in said and "130" in said and "40" in said


def test_a_guard_that_is_off_or_unknown_is_never_broken() -> None:
    assert broken_guard({"weights_mb": 1e6}, BASE, {"weights_mb": None}) == ""
    assert broken_guard({"weights_mb": 1e6}, [{}], {"weights_mb": 2.0}) == ""
    assert broken_guard({}, BASE, {"weights_mb": 2.0}) == ""


def test_a_small_excess_is_always_allowed() -> None:
    # Scoring of a tenth of a second may well take three times as long on a busy machine.
    assert broken_guard({"score_seconds": 3.0}, [{"score_seconds": 0.1}], {"score_seconds": 2.0}) == ""


@given(st.sampled_from(sorted(GUARDS)), st.floats(1.0, 10.0), st.floats(0.0, 1e6))
def test_guards_compare_with_the_worst_baseline(name: str, factor: float, value: float) -> None:
    baseline = [{name: 100.0}, {name: 200.0}]
    slack = GUARDS[name].slack
    assert bool(broken_guard({name: value}, baseline, {name: factor})) == (
        value > max(factor * 200.0, 200.0 + slack)
    )


@given(st.sampled_from(sorted(GUARDS)), st.floats(1.0, 10.0), st.floats(0.0, 1e4))
def test_what_is_told_of_a_guard_is_what_breaks_it(name: str, factor: float, known: float) -> None:
    baseline = [{name: known}, {name: known / 2}]
    most = guarded(baseline, {name: factor})[name]
    assert not broken_guard({name: most}, baseline, {name: factor})
    assert broken_guard({name: most * 1.01 + 1e-6}, baseline, {name: factor})
    assert guarded(baseline, {name: None}) == {} == guarded([{}], {name: factor})


def test_scoring_is_guarded_by_cpu_time_where_it_is_known() -> None:
    """The clock on the wall also counts what other programs take."""
    factors = {"score_seconds": 3.0}
    baseline = [{"score_seconds": 2.0, "score_cpu_seconds": 1.5}]
    for seconds, broken in ((1.6, False), (4.4, False), (4.6, True)):  # 3 x 1.5 s
        used = {"score_seconds": 60.0, "score_cpu_seconds": seconds}
        assert ("time of scoring" in broken_guard(used, baseline, factors)) is broken
    twice = {"score_seconds": 2.0}
    for seconds, broken in ((3.4, False), (3.6, True)):  # 2 s more than 1.5 s
        assert bool(broken_guard({"score_cpu_seconds": seconds}, baseline, twice)) is broken
    assert "time of scoring" in broken_guard({"score_seconds": 60.0}, baseline, factors)
    assert not broken_guard({"score_cpu_seconds": 60.0}, [{}], factors)
