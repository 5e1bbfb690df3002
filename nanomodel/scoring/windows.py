"""Cuts a split into windows of `context` tokens for scoring, and into pieces with separate sums.

Every token of the split but the first is a target exactly once. Windows do not overlap, except that the last
one is moved back to be full, and only its new targets count. The separator between documents stands for no
text: the model reads it, but its prediction does not count (as in nanochat's bits per byte).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanomodel.data import SEPARATOR

PIECE = 1024
"""Most tokens in a piece. Many pieces are needed, since they give the sampling error of a split."""


@dataclass(frozen=True)
class Windows:
    """The windows of one split.

    Attributes:
        tokens: The split, uint16 [n], usually a memory map; at least two tokens.
        token_bytes: Bytes of text each token stands for, [vocab].
        context: Tokens in a window; fewer if the split is shorter.
    """

    tokens: NDArray[np.uint16]
    token_bytes: NDArray[np.uint16]
    context: int

    @property
    def length(self) -> int:
        """Tokens in a window."""
        return min(self.context, len(self.tokens) - 1)

    @property
    def vocab(self) -> int:
        """Size of the vocabulary."""
        return len(self.token_bytes)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each window begins, [windows]."""
        starts = np.arange(0, len(self.tokens) - 1, self.length)
        return np.minimum(starts, len(self.tokens) - 1 - self.length)

    @cached_property
    def documents(self) -> NDArray[np.int64]:
        """Where each document begins, [documents]."""
        begins = np.flatnonzero(np.asarray(self.tokens) == SEPARATOR)
        return begins if len(begins) and begins[0] == 0 else np.concatenate([[0], begins])

    def __len__(self) -> int:
        return len(self.starts)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the model reads, int64 [indices, length]."""
        return self._gather(indices, 0)

    def targets(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The true next tokens, int64 [indices, length]."""
        return self._gather(indices, 1)

    def counted(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each target counts, bool [indices, length]: it has text, and no earlier window has it."""
        position = self.starts[indices][:, None] + np.arange(self.length)
        return (position >= indices[:, None] * self.length) & (self.token_bytes[self.targets(indices)] > 0)

    def pieces(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the piece that each target belongs to, [indices, length].

        A piece is a document, or a part of a long one: the blocks of a block bootstrap (Künsch 1989).
        """
        sizes = np.diff(np.append(self.documents, len(self.tokens)))
        first = np.concatenate([[0], np.cumsum(-(-sizes // PIECE))])
        position = self.starts[indices][:, None] + 1 + np.arange(self.length)
        document = np.searchsorted(self.documents, position, side="right") - 1
        number: NDArray[np.int64] = first[document] + (position - self.documents[document]) // PIECE
        return number

    def owners(self) -> NDArray[np.int64]:
        """Number of the document that each piece belongs to, [pieces]."""
        sizes = np.diff(np.append(self.documents, len(self.tokens)))
        return np.repeat(np.arange(len(sizes)), -(-sizes // PIECE))

    def _gather(self, indices: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
        position: NDArray[Any] = self.starts[indices][:, None] + offset + np.arange(self.length)
        return np.asarray(self.tokens[position], dtype=np.int64)
