"""Draws the tokens of a token budget: passages from all over the stream, the only data a run gets.

The runner draws them before it hands the data over, so that it need not trust the script's count. Needs only
numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PASSAGE = 256
"""Consecutive tokens in a passage: long enough to learn from, short enough to have many."""


def draw_tokens(tokens: NDArray[np.uint16], amount: int, seed: int) -> NDArray[np.uint16]:
    """Draw random passages of the stream, one after the other, for a run that may read `amount` tokens.

    Args:
        tokens: The stream, usually a memory map.
        amount: Number of targets; there is one token more, because the first token is only an input.
        seed: Seed of the run.

    Returns:
        uint16 [amount + 1].
    """
    size = min(PASSAGE, len(tokens))
    count = -(-(amount + 1) // size)
    starts = np.random.default_rng((seed, 0)).integers(0, len(tokens) - size + 1, size=count)
    passages = tokens[starts[:, None] + np.arange(size)]
    return np.ascontiguousarray(passages.reshape(-1)[: amount + 1], dtype=np.uint16)
