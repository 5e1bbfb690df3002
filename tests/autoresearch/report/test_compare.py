from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.report.compare import By, _mean_progress, as_text, compare, write_comparison
from autoresearch.report.summary import Gain, Summary, summarize
from tests.support.searches import INFO, Recorded, night


def search(name: str, gain: float, half: float | None = 0.01, **changes: object) -> Summary:
    """A search that gained so much, give or take `half` (95%)."""
    interval = None if half is None else (gain - half, gain + half)
    found = summarize(Recorded(night(), replace(INFO, name=name, **changes)))
    return replace(found, gain=Gain(gain, None, interval, judged=True))


def test_the_best_comes_first_and_a_difference_beyond_the_error_is_established() -> None:
    found = compare([search("a", 0.01), search("b", 0.05)])
    assert [group.label for group in found.groups] == ["b", "a"]
    assert found.statements == ("b gained 0.0400 more than a (95% interval 0.0259 to 0.0541): established.",)
    assert "b gained 0.0400 more" in as_text(found)


def test_what_is_not_sure_is_said_to_be_so() -> None:
    assert "not established" in compare([search("a", 0.01), search("b", 0.02)]).statements[0]
    assert "was not measured" in compare([search("a", 0.01), search("b", 0.02, None)]).statements[0]


def test_gains_under_other_conditions_do_not_compare() -> None:
    other = search("b", 0.9, data={"key": "other"}, config={"budget": {"kind": "seconds"}})
    assert compare([search("a", 0.01), other]).statements == (
        "These searches had different data and budgets: their gains do not compare.",
    )


@given(gains=st.lists(st.floats(-1, 1), min_size=2, max_size=4))
def test_searches_of_a_brief_are_pooled_and_their_spread_counts(gains: list[float]) -> None:
    (group,) = compare([search(str(i), gain) for i, gain in enumerate(gains)], By.BRIEF).groups
    assert group.label == "default" and len(group.searches) == len(gains)
    assert group.gain == pytest.approx(sum(gains) / len(gains)) and group.tried == 8 * len(gains)
    assert group.error is not None and group.error >= 0.005 / len(gains) ** 0.5


def test_two_equal_briefs_are_rarely_told_apart() -> None:
    import random

    draw, wrong = random.Random(1), 0
    for _ in range(200):
        runs = [search(str(i), draw.gauss(0.03, 0.0051), brief=f"brief{i}") for i in range(4)]
        wrong += any(": established" in text for text in compare(runs, By.BRIEF).statements)
    assert wrong <= 20  # 5% are allowed; 10 of 200 expected at most


def test_the_page_has_the_table_and_the_figure_and_no_markup_of_others(tmp_path: Path) -> None:
    searches = [search("a", 0.01), search("b", 0.05, brief="<script>x</script>")]
    write_comparison(searches, compare(searches, By.BRIEF), By.BRIEF, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page and "established" in page and "<script>" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_several_searches_are_drawn_as_their_mean_and_one_that_has_ended_keeps_its_gain() -> None:
    places, mean, half = _mean_progress(
        [([0.0, 1.0], [0.0, 2.0], [0.0, 0.1]), ([0.0, 3.0], [0.0, 4.0], [0.0, 0.1])]
    )
    assert places == [0.0, 1.0, 3.0] and mean == [0.0, 1.0, 3.0]
    assert half[0] == 0 < half[1] == pytest.approx(half[2])
