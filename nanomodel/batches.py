"""Training batches: random windows of a token stream on disk.

Owns the promise that batch number i of a run depends on (seed, i, its shape) alone: neither prefetching nor
the device changes what is drawn. The stream is memory-mapped; only the pages of drawn windows are read.
Not covered: epochs, document borders (a window may cross them; the separator token says where).
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def draw_windows(tokens: NDArray[Any], rows: int, width: int, seed: int, index: int) -> NDArray[np.int64]:
    """Draw `rows` windows of `width` consecutive tokens, uniformly over all starts.

    Args:
        tokens: The stream, of any integer type, usually a memory map.
        rows: Windows in the batch.
        width: Tokens in a window.
        seed: Seed of the run.
        index: Number of the batch within the run.

    Returns:
        int64 [rows, width].
    """
    starts = np.random.default_rng((seed, index)).integers(0, len(tokens) - width + 1, size=rows)
    return np.asarray(tokens[starts[:, None] + np.arange(width)], dtype=np.int64)


class Batches:
    """Serves (x, y) pairs on a device, on CUDA one batch ahead in a background thread."""

    def __init__(self, tokens: NDArray[Any], seed: int, device: torch.device) -> None:
        self._tokens = tokens
        self._seed = seed
        self._device = device
        self._index = 0
        self._ahead: tuple[tuple[int, int], Future[torch.Tensor]] | None = None
        # On CPU the gather takes microseconds, and a thread would only compete with the model.
        self._pool = ThreadPoolExecutor(1, "batches") if device.type == "cuda" else None

    def next(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64 [rows, length] each; the targets are the inputs one token later."""
        if self._pool is None:
            window = self._load(rows, length, self._index)
        else:
            ready = self._ahead is not None and self._ahead[0] == (rows, length)
            window = (
                self._ahead[1].result() if self._ahead and ready else self._load(rows, length, self._index)
            )
            self._ahead = (rows, length), self._pool.submit(self._load, rows, length, self._index + 1)
        self._index += 1
        window = window.to(self._device, non_blocking=True)
        return window[:, :-1], window[:, 1:]

    def _load(self, rows: int, length: int, index: int) -> torch.Tensor:
        window = torch.from_numpy(draw_windows(self._tokens, rows, length + 1, self._seed, index))
        return window.pin_memory() if self._pool else window
