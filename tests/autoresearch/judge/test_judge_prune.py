import math

from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge.prune import Pruner
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
