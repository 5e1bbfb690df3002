"""The picture of where the time went: for each experiment the seconds of every phase, one upon the other.

Training is drawn at the bottom, so that what lies above it is what an experiment costs besides. Colours are
those of Okabe & Ito (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.report.plot import DPI, FAINT, INK, save
from autoresearch.report.timeline import TRAIN, Use
from autoresearch.text import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {
    TRAIN: "#009E73",
    "score": "#56B4E9",
    "warmup": "#E69F00",
    "startup": "#D55E00",
    "propose": "#CC79A7",
    "judge": "#0072B2",
    "record": "#999999",
}
OTHER = "#c8c8c8"


def write_timeline(use: Use, name: str, folder: Path) -> tuple[Path, Path] | None:
    """Draw `timeline.svg` and `timeline.png` in a folder; None if there is nothing to draw, or no tool."""
    return save(lambda: draw(use, name), folder / "timeline") if use.experiments else None


def draw(use: Use, name: str) -> Figure:
    """The picture as a figure of 10 by 3.2 inches."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    numbers = sorted(use.experiments)
    # One shape a phase, at any number of experiments: it goes along the bars, and to the ground between them.
    corners = [x for n in numbers for x in (n - 0.4, n - 0.4, n + 0.4, n + 0.4)]
    base = [0.0] * len(numbers)
    for phase in _drawing_order(use):
        top = [b + use.experiments[n].get(phase, 0.0) for n, b in zip(numbers, base, strict=True)]
        low, high = _outline(base, base), _outline(base, top)
        color = COLORS.get(phase, OTHER)
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5, labelcolor=INK)
    return figure


def _drawing_order(use: Use) -> list[str]:
    rank = {phase: i for i, phase in enumerate(COLORS)}
    return sorted(use.phases, key=lambda phase: (rank.get(phase, len(rank)), phase))


def _outline(base: Sequence[float], top: Sequence[float]) -> list[float]:
    """Heights at the four corners of every bar: up at its left edge, down at its right one."""
    return [y for b, t in zip(base, top, strict=True) for y in (b, t, t, b)]
