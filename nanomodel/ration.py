"""What a run with a budget of tokens is given to read: so many tokens, in passages from all over the stream.

Whoever hands the data over draws it, so that nobody has to trust a count. Needs numpy alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PASSAGE = 256
"""Tokens that follow each other in the stream: long enough to learn from, short enough to be many."""


def draw_ration(tokens: NDArray[np.uint16], amount: int, seed: int) -> NDArray[np.uint16]:
    """What a run that may read `amount` tokens is given: random passages of the stream, one after the other.

    Args:
        tokens: The stream, usually a memory map.
        amount: Of targets; there is one token more, because the first one is only read.
        seed: Seed of the run.

    Returns:
        uint16 [amount + 1].
    """
    size = min(PASSAGE, len(tokens))
    count = -(-(amount + 1) // size)
    starts = np.random.default_rng((seed, 0)).integers(0, len(tokens) - size + 1, size=count)
    passages = tokens[starts[:, None] + np.arange(size)]
    return np.ascontiguousarray(passages.reshape(-1)[: amount + 1], dtype=np.uint16)
