"""Candidates of the benchmark that compares two judges by what they gain for each training."""

from autoresearch.edit.knobs import read_knobs, read_values
from benchmarks.before_after import Searched
from benchmarks.judge_gain import Keep, candidates, kept_table, moved
from benchmarks.no_change import SCRIPT
from benchmarks.trainings import ROOT

SOURCE = (ROOT / SCRIPT).read_text(encoding="utf-8")


def test_all_judges_see_the_same_moves_of_one_or_two_knobs() -> None:
    first, again = (candidates(SOURCE, seed=1, count=6) for _ in range(2))
    texts = [c.change(SOURCE) for c in first]
    assert texts == [c.change(SOURCE) for c in again] and len({*texts, SOURCE}) == 7
    before = read_values(SOURCE, 0)
    for candidate, text in zip(first, texts, strict=True):
        changed = {name for name, value in read_values(text, 0).items() if value != before[name]}
        assert changed and changed <= set(candidate.name.split(", "))


def test_a_move_ends_at_the_end_of_the_range_and_starts_where_the_incumbent_is() -> None:
    space = next(knob.space for knob in read_knobs(SOURCE, 0) if knob.name == "MOMENTUM")
    assert read_values(moved(SOURCE, {"MOMENTUM": 9.0}), 0)["MOMENTUM"] == space.value(1.0)
    up = moved(SOURCE, {"MOMENTUM": 0.1})
    assert read_values(moved(up, {"MOMENTUM": -0.1}), 0)["MOMENTUM"] == read_values(SOURCE, 0)["MOMENTUM"]


def test_the_table_names_what_was_kept_with_its_gain_on_fresh_seeds() -> None:
    keep = Keep(4, "MOMENTUM", 3, 0.01, (0.005, 0.015))
    text = kept_table(
        {(1, "new"): (Searched(24, 1, 0.01), [keep], 9), (1, "old"): (Searched(24, 0, 0.0), [], 8)}
    )
    assert "| 1 | new | 9 | 4 (MOMENTUM, 3) | 0.0100 [0.0050, 0.0150] |" in text
    assert "| 1 | old | 8 | none | |" in text
