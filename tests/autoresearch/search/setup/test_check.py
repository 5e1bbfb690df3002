"""What two trainings say of a night; `check` as a whole is tried in `cli/test_begin.py`."""

from dataclasses import replace

import pytest

from autoresearch.config import load
from autoresearch.search.setup.check import _findings
from autoresearch.types import Direction
from tests.support.toy_task import ToyTask

JUDGE = load([], {}).judge


def said(
    scores: tuple[float, float], seconds: float, direction: Direction = Direction.MAXIMIZE
) -> dict[str, str]:
    task = ToyTask()
    task.deterministic = False
    task.metric = replace(ToyTask.metric, direction=direction)
    found: dict[str, str] = {}
    for heading, text in _findings(task, scores, (seconds, seconds), 1, JUDGE):
        found[heading] = f"{found.get(heading, '')} {text}".strip()
    return found


def test_a_usual_task_has_noise_and_a_least_effect() -> None:
    found = said((0.52, 0.54), 60.0)
    assert "about 213 decisions" in found["a night"] and "0.014" in found["noise"] and "warning" not in found
    assert "shows in three trials" in found["effect"]


def test_a_trial_of_an_hour_is_too_long_for_a_night() -> None:
    assert "Few changes can be tried" in said((0.52, 0.54), 3600.0)["warning"]


def test_the_same_score_twice_is_a_seed_that_is_ignored() -> None:
    found = said((0.52, 0.52), 60.0)
    assert "ignores its seed" in found["warning"] and "effect" not in found


@pytest.mark.parametrize(("score", "direction"), [(0.001, Direction.MINIMIZE), (0.999, Direction.MAXIMIZE)])
def test_a_start_that_is_nearly_perfect_is_doubted(score: float, direction: Direction) -> None:
    assert (
        "is the direction of the metric right?" in said((score, score * 1.0005), 60.0, direction)["warning"]
    )
