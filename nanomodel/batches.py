"""Training batches: windows of a token stream, spread evenly over it, or one after the other.

Invariant: batch number i of a run depends only on (seed, i, its shape, its share of aligned windows) and on
how much was read before, never on the random numbers that the script draws. Neither prefetching nor the
device changes the batches. The stream is memory-mapped; only the pages of drawn windows are read.

Each window is uniform over all starts, but windows of one run are not independent: any stretch of a run
covers the stream evenly, so that runs vary less from seed to seed.

A window begins anywhere, mostly inside a document, as in scoring. The script can choose a share of windows
that begin at a document instead, with its separator. Every window may continue into the next document; a
separator marks the border. Not covered: epochs, attention that stops at a separator.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nanomodel.data import SEPARATOR
from nanomodel.data.token_budget import spread

Shape = tuple[int, int, float]
"""Rows, tokens in a row, share of aligned rows."""


def draw_windows(
    tokens: NDArray[Any],
    rows: int,
    width: int,
    seed: int,
    index: int,
    aligned: float = 0.0,
    read: int = 0,
    in_order: bool = False,
) -> NDArray[np.int64]:
    """Draw `rows` windows of `width` consecutive tokens.

    Args:
        tokens: The stream, of any integer type, usually a memory map.
        rows: Windows in the batch.
        width: Tokens in a window.
        seed: Seed of the run.
        index: Number of the batch within the run.
        aligned: Share of the windows that are moved on to the next separator, if one is near.
        read: Tokens that were read before this batch.
        in_order: Whether windows follow each other from there on, instead of being drawn.

    Returns:
        int64 [rows, width].
    """
    rng = np.random.default_rng((seed, index))
    last = len(tokens) - width
    if in_order:
        starts = (read + np.arange(rows) * (width - 1)) % (last + 1)  # a target is the next window's input
    else:
        shift = np.random.default_rng(seed).random()
        starts = (spread(read / max(1, width - 1), rows, shift) * (last + 1)).astype(np.int64)
    if aligned > 0:
        chosen = np.flatnonzero(rng.random(rows) < aligned)
        # The search stops after one window; windows inside longer documents stay where they are.
        separators = tokens[starts[chosen, None] + np.arange(width)] == SEPARATOR
        moved = starts[chosen] + separators.argmax(axis=1)
        starts[chosen] = np.where(separators.any(axis=1) & (moved <= last), moved, starts[chosen])
    return np.asarray(tokens[starts[:, None] + np.arange(width)], dtype=np.int64)


class Batches:
    """Serves (x, y) pairs on a device, one batch ahead in a background thread where that helps.

    Args:
        tokens: The stream.
        seed: Seed of the run.
        device: Where batches go.
        prefetch: Whether to work ahead; by default on CUDA only. On a CPU the gather takes microseconds, and
            a thread would only compete with the model.
        in_order: Whether `tokens` are a token budget, read once from beginning to end.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        seed: int,
        device: torch.device,
        prefetch: bool | None = None,
        in_order: bool = False,
    ) -> None:
        self._tokens, self._seed, self._device, self._in_order = tokens, seed, device, in_order
        self._index = self._read = 0
        self._ahead: tuple[Shape, Future[torch.Tensor]] | None = None
        wanted = device.type == "cuda" if prefetch is None else prefetch
        self._pool = ThreadPoolExecutor(1, "batches") if wanted else None

    def next(self, rows: int, length: int, aligned: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64 [rows, length] each; the targets are the inputs one token later."""
        shape = (rows, length, aligned)
        if self._ahead is not None and self._ahead[0] == shape:
            window = self._ahead[1].result()
        else:
            window = self._load(shape, self._index, self._read)
        self._index += 1
        self._read += rows * length
        if self._pool is not None:
            self._ahead = shape, self._pool.submit(self._load, shape, self._index, self._read)
        window = window.to(self._device, non_blocking=True)
        return window[:, :-1], window[:, 1:]

    def _load(self, shape: Shape, index: int, read: int) -> torch.Tensor:
        rows, length, aligned = shape
        drawn = draw_windows(self._tokens, rows, length + 1, self._seed, index, aligned, read, self._in_order)
        window = torch.from_numpy(drawn)
        # A copy from pinned memory to the device does not delay the loop.
        return window.pin_memory() if self._device.type == "cuda" else window
