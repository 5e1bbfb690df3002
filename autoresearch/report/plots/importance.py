"""Which knobs matter, as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.report.plots.progress import GREEN, INK, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20
"""At most so many knobs are drawn."""


def write_importance_plot(shares: Mapping[str, float], name: str, folder: Path) -> tuple[Path, Path] | None:
    """Draw `importance.svg` and `importance.png` in a folder; None without matplotlib."""
    return save(lambda: draw_importance(shares, name), folder / "importance")


def draw_importance(shares: Mapping[str, float], name: str) -> Figure:
    """A bar for each knob, the longest on top."""
    from matplotlib.figure import Figure

    shown = dict(sorted(shares.items(), key=lambda item: item[1])[-SHOWN:])
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(shown), list(shown.values()), color=GREEN)
    axes.bar_label(bars, labels=[f"{share:.0%}" for share in shown.values()], padding=3, color=INK)
    axes.set_xlim(0, 1.12 * max(shown.values(), default=1.0))
    axes.set_xlabel("share of the variance of the score near the best points")
    axes.set_title(f"Which knobs matter in {name}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
