"""Takes over the losses of single items that a scorer left."""

from __future__ import annotations

import io
import math
from pathlib import Path

from autoresearch.tasks.command.metrics import MetricError, read_plain

MOST_BYTES = 1 << 30
TOLERANCE = 1e-4
"""Largest difference between the metric and the mean of its items, as a share of it."""


def check_items(file: Path, score: float, target: Path) -> None:
    """Check losses of items, and write them as `execute.base.Measurer.measure` wants them.

    Args:
        file: Float array: [n] losses, [n, 2] losses times weights and weights, or [n, 3] also documents.
        score: The metric, which must be their weighted mean.
        target: File to write.

    Raises:
        MetricError: If they are missing, of another shape, not finite, or have another mean.
    """
    import numpy as np

    try:
        table = np.load(io.BytesIO(read_plain(file, file.parent, MOST_BYTES)), allow_pickle=False)
    except FileNotFoundError:
        raise MetricError(f"it wrote no losses of items to {file.name} (AUTORESEARCH_ITEMS)") from None
    except (OSError, ValueError, EOFError) as error:
        raise MetricError(f"its losses of items cannot be read: {error}") from None
    if table.ndim not in (1, 2) or not len(table) or table.dtype.kind not in "fiu":
        raise MetricError(f"its losses of items have the shape {table.shape}, type {table.dtype}")
    losses = table.astype(np.float64).reshape(len(table), -1)
    weights = losses[:, 1] if losses.shape[1] > 1 else np.ones(len(losses))
    if losses.shape[1] > 3 or not np.isfinite(losses).all() or (weights < 0).any() or not weights.sum():
        raise MetricError(
            "its losses of items must be finite: [n], or [n, 2] with weights, or [n, 3] with documents"
        )
    sums = losses[:, 0] if losses.shape[1] > 1 else losses[:, 0] * weights
    mean = float(sums.sum() / weights.sum())
    if not math.isclose(mean, score, rel_tol=TOLERANCE, abs_tol=1e-9):
        raise MetricError(f"its metric is {score:.6g}, but the losses of items have the mean {mean:.6g}")
    documents = losses[:, 2] if losses.shape[1] == 3 else np.arange(len(losses))
    np.save(target, np.column_stack([sums, weights, documents]))
