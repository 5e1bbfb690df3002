"""The progress plot: every experiment, the running best, and how much of it could be noise.

Owns the invariant that nothing is hidden: what lies above the axis is drawn at its edge and counted in
words, and what has no score (crashed, invalid, stopped early) has a strip of its own. The running best goes
through the incumbents' re-estimated means, not through the lucky scores that won. Colours are those of
Okabe & Ito (2008), told apart by shape as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from autoresearch.report.labels import Labels
from autoresearch.report.levels import Standing
from autoresearch.report.standing import standing
from autoresearch.text import one_line, scrub
from autoresearch.types import Experiment, VerdictKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREEN, GREY, INK, FAINT = "#009E73", "#8c8c8c", "#333333", "#d9d9d9"
UNSCORED = {
    VerdictKind.CRASH: ("x", "#D55E00", "crashed"),
    VerdictKind.INVALID: ("P", "#CC79A7", "invalid"),
    VerdictKind.PRUNE: ("v", "#0072B2", "stopped early"),
}
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
    """What is drawn: experiment numbers and scores by fate, and the top of the axis."""

    kept: list[tuple[int, float]]
    discarded: list[tuple[int, float]]
    unscored: dict[VerdictKind, list[int]]
    low: float
    high: float

    def above(self) -> list[tuple[int, float]]:
        return [p for p in self.discarded if p[1] > self.high]


def write_plot(experiments: Sequence[Experiment], name: str, folder: Path) -> tuple[Path, Path] | None:
    """Draw the progress of a search as `progress.svg` and `progress.png` in a folder.

    Returns:
        The paths of the two pictures, SVG first; None without matplotlib, as on a box that only trains.
    """
    return save(lambda: draw(experiments, name), folder / "progress")


def save(draw: Callable[[], Figure], path: Path) -> tuple[Path, Path] | None:
    """Draw something, and save it as `path.svg` and `path.png`; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    # Text stays text (searchable, small); fixed salt and no date make the file a function of the data.
    style = {"svg.fonttype": "none", "svg.hashsalt": "autoresearch", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(cast("Any", style)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = draw()
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
        # Verdana has the same widths, for readers without DejaVu.
        text = svg.read_text(encoding="utf-8").replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
        svg.write_text(text, encoding="utf-8")
        figure.savefig(png, dpi=DPI)
    return svg, png


def draw(experiments: Sequence[Experiment], name: str) -> Figure:
    """The progress plot as a figure of 10 by 5.4 inches."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    now = standing(experiments)
    points = _points(experiments, now)
    figure = Figure(figsize=(10, 5.4), dpi=DPI, layout="constrained")
    rows = [14, 1] if any(points.unscored.values()) else [14]
    grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
    axes = figure.add_subplot(grid[0])
    last = max((e.number for e in experiments), default=0)
    axes.set_xlim(-0.6 - 0.01 * last, last + 0.6 + 0.03 * last)
    _dress(axes, now, name, sum(e.number > 0 for e in experiments))
    if not now.steps:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "nothing has been scored yet", transform=axes.transAxes, ha="center", color=GREY)
    else:
        axes.set_ylim(points.low, points.high)
        _running_best(axes, now, last)
        _scatter(axes, points, now)
    bottom = axes
    if len(rows) > 1:
        bottom = figure.add_subplot(grid[1], sharex=axes)
        _strip(bottom, points)
        axes.tick_params(labelbottom=False)
    bottom.set_xlabel("experiment")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind, (marker, color, label) in UNSCORED.items():
        if points.unscored[kind]:
            axes.scatter([], [], s=24, marker=marker, color=color, linewidth=1.2, label=label)
    if now.steps:
        marks = [*points.discarded, *points.kept, *((s.experiment.number, s.level.mean) for s in now.steps)]
        corner = _corner(axes, [*marks, (last, now.steps[-1].level.mean)])
        axes.legend(loc=corner, frameon=False, fontsize=8.5, labelcolor=INK)
        _label(axes, experiments, points, now)
    return figure


def _points(experiments: Iterable[Experiment], now: Standing) -> _Points:
    kept: list[tuple[int, float]] = []
    discarded: list[tuple[int, float]] = []
    unscored: dict[VerdictKind, list[int]] = {kind: [] for kind in UNSCORED}
    for e in experiments:
        if e.number == 0 or e.verdict is None:
            continue
        if e.verdict.kind in UNSCORED:
            unscored[e.verdict.kind].append(e.number)
        elif e.score is not None:
            (kept if e.kept else discarded).append((e.number, e.score))
    levels = [s.level.mean for s in now.steps]
    core = levels + [y for _, y in kept]
    if not core:
        return _Points(kept, discarded, unscored, 0.0, 1.0)
    noise = now.noise or 0.0
    low, high = min(core) - noise, max(core) + noise
    tried = sorted(y for _, y in discarded)
    low = min([low, *tried[:1]])
    if tried:
        # Nine tenths of what was tried, unless those alone would flatten everything else.
        usual = tried[max(0, int(0.9 * len(tried)) - 1)]
        high = max(high, min(usual, low + 4 * (high - low)))
        if tried[-1] <= low + 1.5 * (high - low):
            high = max(high, tried[-1])
    span = (high - low) or 0.01 * abs(high) or 1.0
    return _Points(kept, discarded, unscored, low - 0.12 * span, high + 0.06 * span)


def _dress(axes: Axes, now: Standing, name: str, tried: int) -> None:
    best, base = now.best, now.baseline
    headline = one_line(f"autoresearch/{name}", 60)
    if best and base and now.gain is not None:
        change = 100 * now.gain / base.mean
        headline += f":  {base.mean:.4f} → {best.level.mean:.4f} bits per byte  (−{change:.2f}%)"
    noise = "noise not measured" if now.noise is None else f"noise ±{now.noise:.4f} (1 sd between seeds)"
    kept = max(0, len(now.steps) - 1)
    axes.set_title(headline, loc="left", fontsize=12, color=INK, pad=22, parse_math=False)
    axes.text(
        0,
        1.03,
        f"{tried} tried, {kept} kept;  {noise}",
        transform=axes.transAxes,
        fontsize=9,
        color="#666666",
    )
    axes.set_ylabel("validation bits per byte  (lower is better)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _running_best(axes: Axes, now: Standing, last: int) -> None:
    x = [s.experiment.number for s in now.steps] + [last + 0.6]
    y = [s.level.mean for s in now.steps] + [now.steps[-1].level.mean]
    if now.noise:
        low, high = [v - now.noise for v in y], [v + now.noise for v in y]
        axes.fill_between(x, low, high, step="post", color=GREEN, alpha=0.13, linewidth=0, label="± 1 sd")
    axes.step(x, y, where="post", color=GREEN, linewidth=1.6, label="incumbent, re-estimated")


def _scatter(axes: Axes, points: _Points, now: Standing) -> None:
    inside = [p for p in points.discarded if p[1] <= points.high]
    above = points.above()
    if inside:
        x, y = zip(*inside, strict=True)
        axes.scatter(x, y, s=16, color=GREY, alpha=0.75, linewidth=0, label="discarded")
    if above:
        edge = points.high - 0.012 * (points.high - points.low)
        axes.scatter([n for n, _ in above], [edge] * len(above), s=26, marker="^", color=GREY, clip_on=False)
        worst = max(y for _, y in above)
        text = f"▲ {len(above)} {'point' if len(above) == 1 else 'points'} above, up to {worst:.4g}"
        axes.text(1, 1.03, text, transform=axes.transAxes, ha="right", fontsize=8.5, color="#666666")
    if now.baseline:
        axes.scatter([0], [now.steps[0].level.mean], s=42, marker="D", color=INK, zorder=4, label="baseline")
    if points.kept:
        x, y = zip(*points.kept, strict=True)
        axes.scatter(
            x, y, s=52, color=GREEN, edgecolor="white", linewidth=0.8, zorder=5, label="kept, as measured"
        )


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
    """Where the legend covers the fewest marks."""
    x, y = (axes.transData + axes.transAxes.inverted()).transform(marks).clip(0.0, 1.0).T

    def covered(corner: Corner) -> int:
        right, top = CORNERS[corner]
        return int(((abs(x - right) < LEGEND[0]) & (abs(y - top) < LEGEND[1])).sum())

    return min(CORNERS, key=covered)


def _label(axes: Axes, experiments: Sequence[Experiment], points: _Points, now: Standing) -> None:
    """Write beside the largest gains what was done, where there is room."""
    corners: list[tuple[float, float]] = []
    for step in now.steps:
        x = step.experiment.number
        corners += [(x, corners[-1][1]), (x, step.level.mean)] if corners else [(x, step.level.mean)]
    dots = [p for p in points.discarded if p[1] <= points.high]
    labels = Labels(axes, points.kept, dots, corners, INK)
    kept = [e for e in experiments if e.kept and e.proposal and e.score is not None]
    kept.sort(key=lambda e: -(e.verdict.effect or 0.0) if e.verdict else 0.0)
    for e in kept[:LABELS]:
        if e.proposal is not None and e.score is not None:
            labels.add((e.number, e.score), one_line(scrub(f"{e.number} {e.proposal.hypothesis}"), 46))
