"""Finds documents that are near-duplicates of one another.

MinHash (Broder, 1997) over runs of five words, banded for locality-sensitive hashing (Indyk & Motwani, 1998);
pairs that share a band are linked if their sketches agree enough, and links are followed to groups. With 16
bands of 4 rows a pair of similarity 0.8 is found with probability 0.9998, of 0.7 with 0.99; below 0.4 a link
is rare. Similarity is Jaccard's, of the two sets of runs: about 3% of words changed at random leave 0.75.

Not covered: a small document inside a large one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import rensa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nanomodel.data.documents import Ints

BANDS, ROWS = 16, 4
WORDS = 5
SIMILAR = 0.5
"""Estimated similarity from which two documents that share a band are near-duplicates."""
SEED = 1
BATCH_BYTES = 4 << 20

Sketches = npt.NDArray[np.uint16]


class Sketcher:
    """Collects a sketch of every document: 64 16-bit halves of minima (b-bit MinHash, Li & König, 2010)."""

    def __init__(self) -> None:
        self._runs: list[list[str]] = []
        self._held = 0
        self._done: list[Sketches] = []

    def add(self, raw: bytes) -> None:
        """Sketch a document."""
        self._runs.append(_word_runs(raw.decode()))
        self._held += len(raw)
        if self._held >= BATCH_BYTES:
            self._flush()

    def finish(self) -> Sketches:
        """The sketches, uint16 [documents, 64]."""
        self._flush()
        return np.concatenate(self._done)

    def _flush(self) -> None:
        if self._runs:
            matrix = rensa.RMinHash.digest_matrix_from_token_sets(self._runs, BANDS * ROWS, SEED)
            self._done.append(np.array(matrix.to_rows(), np.uint32).astype(np.uint16))
            self._runs, self._held = [], 0


def group(sketches: Sketches) -> Ints:
    """The group of each document, int64 [documents], from 0 without gaps; near-duplicates share a group."""
    count = len(sketches)
    bands = np.ascontiguousarray(sketches).view(np.uint64).reshape(count, BANDS)
    links = [_links(np.ascontiguousarray(bands[:, band]), sketches) for band in range(BANDS)]
    left, right = np.concatenate([a for a, _ in links]), np.concatenate([b for _, b in links])
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _links(keys: npt.NDArray[np.uint64], sketches: Sketches) -> tuple[Ints, Ints]:
    """Pairs of similar documents with equal keys: each with the first and the previous of its bucket."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1]) + 1
    first = np.searchsorted(ranked, ranked[same])
    left = order[np.concatenate([same, same])]
    right = order[np.concatenate([same - 1, first])]
    close = np.zeros(len(left), np.bool_)
    for at in range(0, len(left), 1 << 16):
        part = slice(at, at + (1 << 16))
        close[part] = (sketches[left[part]] == sketches[right[part]]).mean(axis=1) >= SIMILAR
    return left[close], right[close]


def _word_runs(text: str) -> list[str]:
    words = text.lower().split()
    if len(text) > 20 * len(words):  # a script without spaces between words
        return [text[at : at + 10] for at in range(max(1, len(text) - 9))]
    if len(words) < WORDS:
        return [" ".join(words)]
    return list(map(" ".join, zip(*(words[skip:] for skip in range(WORDS)), strict=False)))
