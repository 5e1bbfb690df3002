"""Draws the tokens of a token budget: passages from all over the stream, the only data a run gets.

One passage comes from each of equally long parts of the stream (a stratified sample), and passages that
follow each other come from parts far apart. So every run, and every stretch of it, sees all of the corpus
alike, and scores vary less from seed to seed than with passages drawn one by one. The runner draws them
before it hands the data over, so that it need not trust the script's count. Needs only numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PASSAGE = 256
"""Consecutive tokens in a passage: long enough to learn from, short enough to have many."""


GOLDEN = (5**0.5 - 1) / 2
"""The multiples of this number, modulo 1, fill the unit interval the most evenly (Kronecker, Weyl)."""


def spread(first: float, count: int, shift: float) -> NDArray[np.float64]:
    """The points `first` to `first` + `count` of a sequence in [0, 1) of which every stretch is even.

    Args:
        first: Number of the first point.
        count: How many.
        shift: In [0, 1); moves all points alike (Cranley & Patterson 1976).
    """
    return np.asarray((shift + (first + np.arange(count)) * GOLDEN) % 1.0)


def draw_tokens(tokens: NDArray[np.uint16], amount: int, seed: int) -> NDArray[np.uint16]:
    """Draw passages of the stream, evenly spread, for a run that may read `amount` tokens.

    Args:
        tokens: The stream, usually a memory map.
        amount: Number of targets; there is one token more, because the first token is only an input.
        seed: Seed of the run.

    Returns:
        uint16 [amount + 1].
    """
    size = min(PASSAGE, len(tokens))
    count = -(-(amount + 1) // size)
    rng = np.random.default_rng((seed, 0))
    part = spread(0, count, rng.random()).argsort().argsort()  # each part once
    starts = ((part + rng.random(count)) / count * (len(tokens) - size + 1)).astype(np.int64)
    passages = tokens[starts[:, None] + np.arange(size)]
    return np.ascontiguousarray(passages.reshape(-1)[: amount + 1], dtype=np.uint16)
