import itertools
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from autoresearch.report.plots.labels import Labels
from autoresearch.report.plots.progress import draw_progress, write_progress_plot
from autoresearch.types import Experiment, VerdictKind
from tests.support.searches import (
    ACCURACY,
    EVIL,
    METRIC,
    baseline,
    by_accuracy,
    night,
    tried,
)


def texts(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*found, *(axes.get_title(loc="left") for axes in figure.axes)])


def marks(figure: Figure) -> int:
    return sum(
        len(c.get_offsets()) for axes in figure.axes for c in axes.collections if c.get_label() != "± 1 sd"
    )


def test_every_experiment_is_drawn() -> None:
    figure = draw_progress(night(), "night1", METRIC)
    # Nine experiments, the baseline among them; three empty marks are there for the legend alone.
    assert marks(figure) == 9
    legend = figure.axes[0].get_legend()
    assert legend is not None
    shown = {text.get_text() for text in legend.get_texts()}
    assert {"baseline", "discarded", "crashed", "invalid", "stopped early", "± 1 sd"} <= shown
    assert "8 tried, 2 kept" in texts(figure)


def test_what_lies_above_the_axis_is_counted_and_drawn_at_its_edge() -> None:
    far = [tried(9, VerdictKind.DISCARD, ("screen", 50.0)), tried(10, VerdictKind.DISCARD, ("screen", 9.0))]
    figure = draw_progress([*night(), *far], "night1", METRIC)
    assert "2 points above, up to 50" in texts(figure)
    assert marks(figure) == 11
    assert figure.axes[0].get_ylim()[1] < 3


def test_better_than_everything_is_never_cut_off() -> None:
    lucky = tried(9, VerdictKind.DISCARD, ("screen", 0.2))
    assert draw_progress([*night(), lucky], "night1", METRIC).axes[0].get_ylim()[0] < 0.2


def test_the_line_goes_through_the_reestimated_means() -> None:
    (line,) = draw_progress(night(), "night1", METRIC).axes[0].lines
    assert [round(float(y), 3) for y in line.get_ydata()] == [1.70, 1.657, 1.605, 1.605]


def test_nothing_scored_says_so() -> None:
    assert "nothing has been scored yet" in texts(draw_progress([], "x", METRIC))
    assert "nothing has been scored yet" in texts(
        draw_progress([baseline(), tried(1, VerdictKind.CRASH)], "x", METRIC)
    )
    assert marks(draw_progress([baseline(), tried(1, VerdictKind.CRASH)], "x", METRIC)) == 1


def test_one_score_alone_has_an_axis() -> None:
    low, high = draw_progress([baseline(1.5)], "x", METRIC).axes[0].get_ylim()
    assert low < 1.5 < high


def test_foreign_text_is_only_text(tmp_path: Path) -> None:
    evil = [
        tried(i, VerdictKind.KEEP, ("confirm", 1.6 - i / 10), hypothesis=text, effect=0.1)
        for i, text in enumerate([EVIL, "$\\frac{$", "\ud800 漢字 \x00", "a" * 5000], start=1)
    ]
    svg, png = write_progress_plot([baseline(1.7, 1.71), *evil], "$x^2 <b>", METRIC, tmp_path)
    tree = ElementTree.parse(svg)  # it is well-formed
    assert not [e for e in tree.iter() if e.tag.endswith(("script", "image", "foreignObject"))]
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_picture_is_a_function_of_the_search(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = (
        write_progress_plot(night(), "n", METRIC, tmp_path)[0],
        write_progress_plot(night(), "n", METRIC, tmp_path / "b")[0],
    )
    assert first.read_bytes() == second.read_bytes()


def many(kept: int, seed: int) -> list[Experiment]:
    rng = random.Random(seed)
    level, experiments = 2.0, [baseline(2.0, 2.01, 1.99)]
    for n in range(1, 4 * kept):
        keep = rng.random() < 0.25
        level -= rng.expovariate(40) * keep
        kind = VerdictKind.KEEP if keep else VerdictKind.DISCARD
        words = "raise the learning rate of the embedding by half"[: rng.randrange(8, 48)]
        score = level if keep else level + rng.expovariate(30)
        experiments.append(tried(n, kind, ("confirm", score), hypothesis=words, effect=rng.random()))
    return experiments


@pytest.mark.slow
def test_labels_lie_on_nothing_that_matters() -> None:
    for seed in range(2):
        figure = draw_progress(many(20, seed), "many", METRIC)
        axes = figure.axes[0]
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        labels = [t for t in axes.texts if isinstance(t, Annotation)]
        assert len(labels) >= 5
        boxes = [_text_box(label, renderer) for label in labels]
        assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
        legend = axes.get_legend()
        assert legend and not any(box.overlaps(legend.get_window_extent(renderer)) for box in boxes)
        frame = axes.get_window_extent(renderer).padded(3)
        assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


@pytest.mark.parametrize("seed", range(4))
def test_the_legend_covers_no_point_where_another_corner_is_free(seed: int) -> None:
    chance = random.Random(seed)
    corner = (seed // 2, seed % 2)  # where many points are
    search = [baseline(1.7, 1.71, 1.69)]
    for n in range(1, 31):
        inside = n > 20 if corner[0] else n < 10
        score = (1.8 if corner[1] else 1.6) if inside else 1.7
        search.append(tried(n, VerdictKind.DISCARD, ("screen", score + chance.gauss(0, 0.004))))
    figure = draw_progress(search, "corner", METRIC)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent(canvas.get_renderer())
    points = [p for c in axes.collections if c.get_label() == "discarded" for p in c.get_offsets()]
    assert len(points) > 20 and not any(box.contains(*axes.transData.transform(p)) for p in points)


def test_a_label_near_the_edge_stays_inside_when_saved() -> None:
    words = "a change whose description is quite long, as they are"
    search = [
        baseline(1.7, 1.71, 1.69),
        *[tried(n, VerdictKind.DISCARD, ("screen", 1.72)) for n in range(1, 13)],
    ]
    search.append(tried(13, VerdictKind.KEEP, ("confirm", 1.6), hypothesis=words, effect=0.1))
    figure = draw_progress([*search, tried(14, VerdictKind.DISCARD, ("screen", 1.65))], "edge", METRIC)
    for dpi in (72, 160, 300):
        figure.dpi = dpi
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        (label,) = [t for t in figure.axes[0].texts if isinstance(t, Annotation)]
        box = _text_box(label, canvas.get_renderer())
        assert box.x1 <= figure.axes[0].get_window_extent().x1 + 0.01 * figure.bbox.width


def _text_box(label: Annotation, renderer: object):  # without its leader
    from matplotlib.text import Text

    return Text.get_window_extent(label, renderer)


def test_a_label_without_room_is_left_out() -> None:
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    labels = Labels(axes, [(0.5, 0.5)], [], [], "#000000")
    assert labels.add((0.5, 0.5), "fits")
    assert not labels.add((0.5, 0.5), "far too long for a figure as small as this one is")
    assert [t.get_text() for t in axes.texts] == ["fits"]


@pytest.mark.slow
def test_a_thousand_experiments_can_be_drawn(tmp_path: Path) -> None:
    svg, _ = write_progress_plot(many(250, 0), "long", METRIC, tmp_path)
    assert svg.stat().st_size < 1_000_000


def test_a_maximised_metric_rises_from_the_bottom_left() -> None:
    far = tried(9, VerdictKind.DISCARD, ("screen", 50.0))
    figure = draw_progress(by_accuracy([*night(), far]), "night1", ACCURACY)
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    (line,) = axes.lines
    steps = [float(y) for y in line.get_ydata()]
    assert low < steps[0] < steps[1] < steps[-1] < high
    assert "accuracy" in axes.get_ylabel() and "higher is better" in axes.get_ylabel()
    assert "1 point below, down to -47" in texts(figure) and "(+7.31%)" in texts(figure)
    assert "bits" not in texts(figure) + axes.get_ylabel()
