from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge.guards import GUARDED, breached

BASE = [{"memory_mb": 500.0, "weights_mb": 40.0, "score_seconds": 10.0}, {"memory_mb": 520.0}]


def test_a_breach_names_the_guard_and_both_numbers() -> None:
    said = breached({"weights_mb": 130.0}, BASE, {"weights_mb": 3.0})
    assert "submitted weights" in said and "130" in said and "40" in said


def test_what_is_off_or_unknown_holds_nobody_back() -> None:
    assert breached({"weights_mb": 1e6}, BASE, {"weights_mb": None}) == ""
    assert breached({"weights_mb": 1e6}, [{}], {"weights_mb": 2.0}) == ""
    assert breached({}, BASE, {"weights_mb": 2.0}) == ""


def test_chance_is_not_held_against_anybody() -> None:
    # Scoring of a tenth of a second may well take three times as long on a busy machine.
    assert breached({"score_seconds": 3.0}, [{"score_seconds": 0.1}], {"score_seconds": 2.0}) == ""


@given(st.sampled_from(sorted(GUARDED)), st.floats(1.0, 10.0), st.floats(0.0, 1e6))
def test_the_worst_baseline_is_the_measure(name: str, factor: float, value: float) -> None:
    baseline = [{name: 100.0}, {name: 200.0}]
    slack = GUARDED[name][2]
    assert bool(breached({name: value}, baseline, {name: factor})) == (
        value > max(factor * 200.0, 200.0 + slack)
    )
