"""The picture of a transfer: the gain of each kept change on each rung, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.judge.finished.transfer import Mark
from autoresearch.report.plots.progress import FAINT, GREEN, GREY, INK, save
from autoresearch.store.records.transfers import TransferRecord
from autoresearch.types import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {
    Mark.HOLDS: ("o", GREEN),
    Mark.FADES: ("v", "#E69F00"),
    Mark.REVERSES: ("X", "#D55E00"),
    Mark.UNKNOWN: ("s", GREY),
}
"""Mark -> the shape and the colour of its points."""


def write_transfer_plot(record: TransferRecord, metric: Metric, folder: Path) -> tuple[Path, Path] | None:
    """Draw a transfer as `transfer-TIP.svg` and `.png`; None without matplotlib."""
    return save(lambda: draw_transfer(record, metric), folder / f"transfer-{record.tip[:10]}")


def draw_transfer(record: TransferRecord, metric: Metric) -> Figure:
    """One column for each rung, and in it one point for each change; last, all of them together."""
    from matplotlib.figure import Figure

    names = [f"#{number}" for number in record.keeps] + ["all"]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=FAINT)
    shown = dict[Mark, object]()
    for place, gains in enumerate(record.gains(metric)):
        for i, gain in enumerate(gains):
            if gain.effect is None:
                continue
            x, (shape, color) = place + 0.7 * (i + 0.5) / len(gains) - 0.35, STYLES[gain.mark]
            low, high = gain.interval or (gain.effect, gain.effect)
            axes.plot([x, x], [low, high], color=color, linewidth=1)
            (shown[gain.mark],) = axes.plot(x, gain.effect, shape, color=color, label=str(gain.mark))
            axes.annotate(
                names[i], (x, high), (0, 3), textcoords="offset points", ha="center", fontsize=7, color=INK
            )
    axes.set_xticks(range(len(record.rungs)), [rung.name for rung in record.rungs])
    axes.set_ylabel(f"gain, {metric.unit}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if shown:
        axes.legend(list(shown.values()), [str(mark) for mark in shown], frameon=False, fontsize=8)  # type: ignore[arg-type]
    return figure
