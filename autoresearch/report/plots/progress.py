"""The pictures of the report: the progress of the search, and where its time went.

The progress plot hides nothing: scores too bad for the axis are drawn at its edge and counted in words, and
experiments without a score (crashed, invalid, stopped early) have a strip of their own. The running best goes
through the incumbents' re-estimated means, not through the lucky scores that won. The timeline plot stacks
the seconds of every phase for each experiment, training at the bottom. Colours are those of Okabe & Ito
(2008), told apart by shape as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from autoresearch.report.estimates import Estimates, estimate
from autoresearch.report.markdown import direction
from autoresearch.report.plots.labels import Labels
from autoresearch.report.timeline import TRAIN, TimeUse
from autoresearch.text import count, one_line, scrub
from autoresearch.types import Experiment, Metric, VerdictKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN, GREY, INK, FAINT = "#009E73", "#8c8c8c", "#333333", "#d9d9d9"
UNSCORED = {
    VerdictKind.CRASH: ("x", "#D55E00", "crashed"),
    VerdictKind.INVALID: ("P", "#CC79A7", "invalid"),
    VerdictKind.PRUNE: ("v", "#0072B2", "stopped early"),
}
PHASES = {
    TRAIN: "#009E73",
    "score": "#56B4E9",
    "warmup": "#E69F00",
    "startup": "#D55E00",
    "propose": "#CC79A7",
    "judge": "#0072B2",
    "record": "#999999",
}
"""Phase -> colour, from the bottom of a bar to its top; other phases are light grey and come last."""
DPI = 160
"""Labels are placed at the resolution that is saved: at 100, small text is hinted a tenth narrower."""
LABELS = 16
"""At most this many kept experiments get a text; the report's table has them all."""
Corner = Literal["upper right", "lower right", "upper left", "lower left"]
CORNERS: Mapping[Corner, tuple[int, int]] = {
    "upper right": (1, 1),
    "lower right": (1, 0),
    "upper left": (0, 1),
    "lower left": (0, 0),
}
LEGEND = 0.24, 0.34
"""Width and height of the corner that a legend may fill, as shares of the axes."""


@dataclass(frozen=True)
class _Points:
    """What is drawn: (place in the order of verdicts, score), places without score, the ends of the axis."""

    kept: list[tuple[int, float]]
    discarded: list[tuple[int, float]]
    unscored: dict[VerdictKind, list[int]]
    best: float
    worst: float


def write_progress_plot(
    experiments: Sequence[Experiment], name: str, metric: Metric, folder: Path
) -> tuple[Path, Path] | None:
    """Draw the progress of a search as `progress.svg` and `progress.png` in a folder.

    Returns:
        The paths of the two pictures, SVG first; None without matplotlib, as on a machine that only trains.
    """
    return save(lambda: draw_progress(experiments, name, metric), folder / "progress")


def write_timeline_plot(use: TimeUse, name: str, folder: Path) -> tuple[Path, Path] | None:
    """Draw `timeline.svg` and `timeline.png` in a folder; None without anything to draw, or matplotlib."""
    return save(lambda: draw_timeline(use, name), folder / "timeline") if use.experiments else None


def save(draw: Callable[[], Figure], path: Path) -> tuple[Path, Path] | None:
    """Draw something and save it as `path.svg` and `path.png`; None without matplotlib."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_svg import FigureCanvasSVG
    except ImportError:
        return None
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    # Text stays text (searchable, small); fixed salt and no date make the file a function of the data.
    style = {"svg.fonttype": "none", "svg.hashsalt": "autoresearch", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(cast("Any", style)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = draw()
        # Its own `savefig` would draw each of the two twice.
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(svg, metadata={"Date": None, "Creator": None})
        # Verdana has the same widths, for readers without DejaVu.
        text = svg.read_text(encoding="utf-8").replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
        svg.write_text(text, encoding="utf-8")
        figure.set_layout_engine("none")  # it is done, and slow
        figure.set_dpi(DPI)  # an SVG has 72
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(png)
    return svg, png


def draw_progress(experiments: Sequence[Experiment], name: str, metric: Metric) -> Figure:
    """The progress plot as a figure of 10 by 5.4 inches."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    now = estimate(experiments)
    points = _points(experiments, now, metric)
    figure = Figure(figsize=(10, 5.4), dpi=DPI, layout="constrained")
    rows = [14, 1] if any(points.unscored.values()) else [14]
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
    axes = figure.add_subplot(grid[0])
    last = max((e.order for e in experiments), default=0)
    axes.set_xlim(-0.6 - 0.01 * last, last + 0.6 + 0.03 * last)
    _dress(axes, now, name, metric, sum(e.number > 0 for e in experiments))
    if not now.incumbents:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing has been scored yet", transform=axes.transAxes, ha="center", color=GREY)
    else:
        axes.set_ylim(*sorted((points.best, points.worst)))
        _running_best(axes, now, last)
        _scatter(axes, points, now, metric)
    bottom = axes
    if len(rows) > 1:
        bottom = figure.add_subplot(grid[1], sharex=axes)
        _strip(bottom, points)
        axes.tick_params(labelbottom=False)
    in_turn = all(e.order == e.number for e in experiments)
    bottom.set_xlabel("experiment" if in_turn else "experiments in the order of their verdicts")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind, (marker, color, label) in UNSCORED.items():
        if points.unscored[kind]:
            axes.scatter([], [], s=24, marker=marker, color=color, linewidth=1.2, label=label)
    if now.incumbents:
        steps = [(found.experiment.order, found.estimate.mean) for found in now.incumbents]
        marks = [*points.discarded, *points.kept, *steps, (last, steps[-1][1])]
        axes.legend(loc=_corner(axes, marks), frameon=False, fontsize=8.5, labelcolor=INK)
        _label(axes, experiments, points, steps, metric)
    return figure


def _points(experiments: Iterable[Experiment], now: Estimates, metric: Metric) -> _Points:
    kept: list[tuple[int, float]] = []
    discarded: list[tuple[int, float]] = []
    unscored: dict[VerdictKind, list[int]] = {kind: [] for kind in UNSCORED}
    for e in experiments:
        if e.number == 0 or e.verdict is None:
            continue
        if e.verdict.kind in UNSCORED:
            unscored[e.verdict.kind].append(e.order)
        elif e.score is not None:
            (kept if e.kept else discarded).append((e.order, e.score))
    # The axis is found as for a metric to be minimised, and turned round at the end if need be.
    core = [metric.loss(found.estimate.mean) for found in now.incumbents]
    core += [metric.loss(y) for _, y in kept]
    if not core:
        return _Points(kept, discarded, unscored, 0.0, 1.0)
    noise = now.noise or 0.0
    low, high = min(core) - noise, max(core) + noise
    tried = sorted(metric.loss(y) for _, y in discarded)
    low = min([low, *tried[:1]])
    if tried:
        # Nine tenths of what was tried, unless those alone would flatten everything else.
        usual = tried[max(0, int(0.9 * len(tried)) - 1)]
        high = max(high, min(usual, low + 4 * (high - low)))
        if tried[-1] <= low + 1.5 * (high - low):
            high = max(high, tried[-1])
    span = (high - low) or 0.01 * abs(high) or 1.0
    best, worst = metric.loss(low - 0.12 * span), metric.loss(high + 0.06 * span)
    return _Points(kept, discarded, unscored, best, worst)


def _dress(axes: Axes, now: Estimates, name: str, metric: Metric, tried: int) -> None:
    best, base, gain = now.best, now.baseline, now.gain(metric)
    headline = one_line(f"autoresearch/{name}", 60)
    if best and base and gain is not None:
        scores = f"{metric.text(base.mean)} → {metric.text(best.estimate.mean)} {metric.unit}"
        share = metric.share(metric.change(gain), base.mean)
        change = "" if share is None else f"  ({100 * share:+.2f}%)"
        headline += f":  {scores}{change.replace('-', '−')}"
    noise = "noise not measured"
    if now.noise is not None:
        noise = f"noise ±{metric.text(now.noise)} (1 sd between seeds)"
    kept = max(0, len(now.incumbents) - 1)
    text = f"{tried} tried, {kept} kept;  {noise}"
    axes.set_title(headline, loc="left", fontsize=12, color=INK, pad=22, parse_math=False)
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=9, color="#666666")
    axes.set_ylabel(f"validation {metric.unit}  ({direction(metric)} is better)", parse_math=False)
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _running_best(axes: Axes, now: Estimates, last: int) -> None:
    x = [found.experiment.order for found in now.incumbents] + [last + 0.6]
    y = [found.estimate.mean for found in now.incumbents] + [now.incumbents[-1].estimate.mean]
    if now.noise:
        low, high = [v - now.noise for v in y], [v + now.noise for v in y]
        axes.fill_between(x, low, high, step="post", color=GREEN, alpha=0.13, linewidth=0, label="± 1 sd")
    axes.step(x, y, where="post", color=GREEN, linewidth=1.6, label="incumbent, re-estimated")


def _scatter(axes: Axes, points: _Points, now: Estimates, metric: Metric) -> None:
    outside = [p for p in points.discarded if metric.better(points.worst, p[1])]
    inside = [p for p in points.discarded if p not in outside]
    if inside:
        x, y = zip(*inside, strict=True)
        axes.scatter(x, y, s=16, color=GREY, alpha=0.75, linewidth=0, label="discarded")
    if outside:
        up = points.worst > points.best
        sign, marker, where = ("▲", "^", "above, up") if up else ("▼", "v", "below, down")
        edge = [points.worst - 0.012 * (points.worst - points.best)] * len(outside)
        axes.scatter([n for n, _ in outside], edge, s=26, marker=marker, color=GREY, clip_on=False)
        worst = max((y for _, y in outside), key=metric.loss)
        text = f"{sign} {count(len(outside), 'point')} {where} to {worst:.4g}"
        axes.text(1, 1.03, text, transform=axes.transAxes, ha="right", fontsize=8.5, color="#666666")
    if now.baseline:
        first = now.incumbents[0].estimate.mean
        axes.scatter([0], [first], s=42, marker="D", color=INK, zorder=4, label="baseline")
    if points.kept:
        x, y = zip(*points.kept, strict=True)
        style: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8, "zorder": 5}
        axes.scatter(x, y, s=52, color=GREEN, label="kept, as measured", **style)


def _strip(axes: Axes, points: _Points) -> None:
    """Marks for what ended without a score, below the plot."""
    for kind, (marker, color, _) in UNSCORED.items():
        if numbers := points.unscored[kind]:
            axes.scatter(numbers, [0] * len(numbers), s=24, marker=marker, color=color, linewidth=1.2)
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_ylabel("no\nscore", rotation=0, ha="right", va="center", fontsize=8.5)


def _corner(axes: Axes, marks: Sequence[tuple[float, float]]) -> Corner:
    """The corner in which a legend covers the fewest marks."""
    x, y = (axes.transData + axes.transAxes.inverted()).transform(marks).clip(0.0, 1.0).T

    def covered(corner: Corner) -> int:
        right, top = CORNERS[corner]
        return int(((abs(x - right) < LEGEND[0]) & (abs(y - top) < LEGEND[1])).sum())

    return min(CORNERS, key=covered)


def _label(
    axes: Axes,
    experiments: Sequence[Experiment],
    points: _Points,
    steps: Sequence[tuple[float, float]],
    metric: Metric,
) -> None:
    """Write the hypotheses of the largest gains beside their marks, where there is room."""
    corners: list[tuple[float, float]] = []
    for x, y in steps:
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    dots = [p for p in points.discarded if not metric.better(points.worst, p[1])]
    labels = Labels(axes, points.kept, dots, corners, INK, above=points.best > points.worst)
    kept = [e for e in experiments if e.kept and e.proposal and e.score is not None]
    kept.sort(key=lambda e: -e.gain)
    for e in kept[:LABELS]:
        if e.proposal is not None and e.score is not None:
            labels.add((e.order, e.score), one_line(scrub(f"{e.number} {e.proposal.hypothesis}"), 46))


def draw_timeline(use: TimeUse, name: str) -> Figure:
    """The timeline plot as a figure of 10 by 3.2 inches."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    numbers = sorted(use.experiments)
    # One shape for each phase, whatever the number of experiments: along the bars, and to 0 between them.
    corners = [x for n in numbers for x in (n - 0.4, n - 0.4, n + 0.4, n + 0.4)]
    base = [0.0] * len(numbers)
    rank = {phase: i for i, phase in enumerate(PHASES)}
    for phase in sorted(use.phases, key=lambda phase: (rank.get(phase, len(rank)), phase)):
        top = [b + use.experiments[n].get(phase, 0.0) for n, b in zip(numbers, base, strict=True)]
        low, high = _outline(base, base), _outline(base, top)
        color = PHASES.get(phase, "#c8c8c8")
        axes.fill_between(corners, low, high, linewidth=0, color=color, label=phase)
        base = top
    busy = "" if use.busy is None else f":  training {use.busy:.0%} of the time"
    title = one_line(f"autoresearch/{name}", 60) + busy
    axes.set_title(title, loc="left", fontsize=12, color=INK, parse_math=False)
    axes.set_xlabel("experiment")
    axes.set_ylabel("seconds")
    axes.set_xlim(numbers[0] - 0.8, numbers[-1] + 0.8)
    axes.set_ylim(0, 1.05 * max([*base, 1e-9]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5, labelcolor=INK)
    _frame(axes)
    return figure


def _outline(base: Sequence[float], top: Sequence[float]) -> list[float]:
    """Heights at the four corners of every bar: up at its left edge, down at its right one."""
    return [y for b, t in zip(base, top, strict=True) for y in (b, t, t, b)]
