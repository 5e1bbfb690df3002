"""Pictures of what was found after a search: what each kept change gains on each rung, which knobs matter."""

from __future__ import annotations

from collections.abc import Mapping
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

SHOWN = 20
"""At most so many knobs are drawn."""


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
