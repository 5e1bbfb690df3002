"""When a screening run is hopeless beside the incumbent's: learned from finished runs, and cautious."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge.limits.early_stopping import (
    CHECKPOINTS,
    LEAST_PAIRS,
    EarlyStop,
    Pair,
    hopeless_gap,
    loss_at,
    pair,
    stop_bars,
)
from autoresearch.types import Progress

NEEDED = 0.5
FLAT = [(i / 20, 4.0) for i in range(1, 21)]


def known(n: int, noise: float, slope: float = 1.0, seed: int = 0) -> list:
    """Gaps of finished runs, most of which lose, and by how much they miss what is needed."""
    draw = Random(seed)
    gaps = [draw.gauss(1.0, 2.0) for _ in range(n)]
    return [(gap, (slope * gap + draw.gauss(0, noise) + NEEDED), 1.0) for gap in gaps]


def pairs_of(found: list) -> list[Pair]:
    return [Pair(dict.fromkeys(CHECKPOINTS, gap), missed - NEEDED) for gap, missed, _ in found]


def stopped_at(stop: EarlyStop, shift: float) -> float | None:
    return next((at for at, loss in FLAT if stop(Progress(at, at, loss=loss + shift))), None)


LOSSES = st.lists(st.floats(0.1, 9.0), min_size=40, max_size=40)


@given(LOSSES, st.integers(1, 3), st.sampled_from(CHECKPOINTS))
def test_the_mean_before_a_checkpoint_hardly_depends_on_where_points_lie(
    losses: list[float], merged: int, at: float
) -> None:
    steps = [((i + 1) / 40, loss) for i, loss in enumerate(losses)]
    groups = [steps[i : i + merged] for i in range(0, 40, merged)]
    coarse = [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
    fine, rough = loss_at(steps, at), loss_at(coarse, at)
    assert fine is not None and rough is not None
    assert abs(fine - rough) <= (max(losses) - min(losses)) * (merged - 1) / 3


def test_a_curve_that_does_not_reach_a_checkpoint_says_nothing() -> None:
    assert loss_at([], 0.3) is None and loss_at(FLAT[:4], 0.3) is None
    assert loss_at(FLAT, 0.3) == pytest.approx(4.0)
    assert set(pair(FLAT[:12], FLAT, 0.1).gaps) == {at for at in CHECKPOINTS if at <= 0.6}


def test_nothing_is_stopped_before_enough_runs_are_known_or_if_the_gap_tells_nothing() -> None:
    assert hopeless_gap(known(LEAST_PAIRS - 1, 0.1), 1.0) is None
    assert hopeless_gap(known(LEAST_PAIRS, 0.1), 2.0) is not None
    wide = [*known(LEAST_PAIRS, 0.1)[1:], (0.0, 0.0, 100.0)]
    assert hopeless_gap(wide, 1.0) is None, "a single run would decide"
    assert hopeless_gap(known(60, 0.1, slope=-1.0), 1.0) is None
    assert hopeless_gap([(1.0, 1.0, 1.0)] * 60, 1.0) is None and hopeless_gap(known(60, 0.1), 0.0) is None
    assert (
        stop_bars([], FLAT, NEEDED, 1.0) == () and stop_bars(pairs_of(known(60, 0.1)), [], NEEDED, 1.0) == ()
    )


def test_a_gap_that_tells_little_stops_nothing() -> None:
    """At a third of a short training, gap and difference of real edits had a correlation below 0.3."""
    found = [hopeless_gap(known(40, 4.0, seed=seed), 1.0) for seed in range(100)]
    assert sum(gap is not None for gap in found) <= 10, "a correlation of 0.45 is not enough"
    clear = [hopeless_gap(known(40, 1.0, seed=seed), 1.0) for seed in range(100)]
    assert sum(gap is not None for gap in clear) >= 95, "one of 0.9 is"


def test_the_bar_is_where_the_line_of_gaps_meets_what_just_passes() -> None:
    """Gaps of three times what is missed, most of it on one side: the line is not that of the other axis."""
    draw = Random(7)
    missed = [draw.gauss(1.0, 1.0) for _ in range(200)]
    bar = hopeless_gap([(3 * x + draw.gauss(0.0, 0.01), x, 1.0) for x in missed], 1.0)
    assert bar == pytest.approx(0.03, abs=0.02)


def test_more_noise_asks_for_a_larger_gap() -> None:
    little, more = (hopeless_gap(known(60, noise), 1.0) for noise in (0.1, 0.6))
    assert little is not None and more is not None and -NEEDED < little < 0.0 < more


@given(st.floats(1e-6, 1e6))
def test_the_unit_does_not_matter(unit: float) -> None:
    found = [(unit * gap, unit * missed, weight) for gap, missed, weight in known(40, 0.5)]
    one, other = hopeless_gap(known(40, 0.5), 1.0), hopeless_gap(found, unit)
    assert one is not None and other == pytest.approx(one * unit, rel=1e-6)


def test_next_to_no_run_that_would_pass_is_stopped() -> None:
    passing = stopped = losing = ended = 0
    for seed in range(300):
        gap = hopeless_gap(known(20, 0.8, seed=seed), 1.0)
        for x, missed, _ in known(20, 0.8, seed=1000 + seed):
            over = gap is not None and x > gap
            passing, stopped = passing + (missed <= 0), stopped + (over and missed <= 0)
            losing, ended = losing + (missed > 0), ended + (over and missed > 0)
    assert passing > 500 and stopped / passing < 0.01, stopped / passing
    assert ended / losing > 0.3, "and many of the others are"


def test_runs_that_were_spared_stand_for_those_that_were_stopped() -> None:
    everything = known(400, 0.8, seed=3)
    bar = hopeless_gap(everything, 1.0)
    assert bar is not None
    left = [row for row in everything if row[0] <= bar]
    gone = [row for row in everything if row[0] > bar]
    spared = [(gap, missed, 10.0) for gap, missed, _ in gone[::10]]
    bent, mended = hopeless_gap(left, 1.0), hopeless_gap([*left, *spared], 1.0)
    assert bent is not None and mended is not None
    assert abs(mended - bar) < 0.25 * bar


def test_a_run_is_stopped_at_the_first_checkpoint_where_it_is_hopeless() -> None:
    bars = stop_bars(pairs_of(known(60, 0.1)), FLAT, NEEDED, 1.0)
    assert [at for at, _ in bars] == list(CHECKPOINTS)
    stop = EarlyStop((), bars)
    assert stopped_at(stop, 3.0) == stop.share == CHECKPOINTS[0]
    assert stopped_at(EarlyStop((), bars), -1.0) is None
    late = EarlyStop((), bars[8:])
    assert stopped_at(late, 3.0) == pytest.approx(0.6)


def test_a_spared_run_is_only_marked() -> None:
    stop = EarlyStop((), stop_bars(pairs_of(known(60, 0.1)), FLAT, NEEDED, 1.0), spare=True)
    assert stopped_at(stop, 3.0) is None and stop.share == CHECKPOINTS[0]


def test_gross_failures_are_still_stopped() -> None:
    stop = EarlyStop((FLAT,))
    assert stop(Progress(0.1, 0.1, loss=math.nan)) and stop.share is None
