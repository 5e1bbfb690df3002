"""Keeps all documents of a corpus in one scratch file, so that the corpus is fetched and read only once.

Later steps take any documents from it, in any order, whatever the format of the corpus. The file is read, not
mapped, because mapped pages would count as memory of this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class DocumentFile:
    """A scratch file of documents; removed at the end of the block that it is used in."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w+b", buffering=1 << 20)
        self._sizes: list[int] = []
        self._starts: Ints | None = None

    def __enter__(self) -> DocumentFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, raw: bytes) -> None:
        """Append a document."""
        self._file.write(raw)
        self._sizes.append(len(raw))

    def finish(self) -> Ints:
        """End the writing; returns the size of each document in bytes, int64 [documents]."""
        self._file.flush()
        sizes = np.array(self._sizes, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._sizes = []
        return sizes

    def batches(self, documents: Ints, limit: int) -> Iterator[list[bytes]]:
        """The documents of these numbers, in this order, in batches of about `limit` bytes."""
        assert self._starts is not None
        batch: list[bytes] = []
        held = 0
        for number in documents.tolist():
            start, end = int(self._starts[number]), int(self._starts[number + 1])
            batch.append(os.pread(self._file.fileno(), end - start, start))
            held += end - start
            if held >= limit:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch
