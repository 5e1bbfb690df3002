"""The prepared folder: its format, and how to open it.

Owns the format:

    meta.json                          what this is, what made it, and the size of everything below
    train.bin validation.bin test.bin  little-endian uint16 token ids; every document after a separator
    held.bin other.bin                 the same, if they exist: see `GUARDS`
    token_bytes.npy                    uint16 [vocab]: bytes of text that each token stands for
    tokenizer.json                     pattern and merges

Ids 0..254 are raw bytes, and ids from 256 are merges. 255 separates documents in every vocabulary, since the
byte 0xFF never occurs in UTF-8. Train is in corpus order; validation and test are in the order of a hash, so
that the first part of each is a fair sample.

Needs only numpy. Not covered: writing (`build`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanomodel.data.spec import DataError

FORMAT = 1
SEPARATOR = 255
SPLITS = ("train", "validation", "test")
GUARDS = ("held", "other")
"""Splits that only some data has: a slice held back besides the validation split, and text of another kind.
They show whether a gain on the validation data carries over; no decision rests on them."""
TOKEN = np.dtype("<u2")
_AGAIN = "Delete that folder and prepare the data again, or copy it again from where it is whole."


@dataclass(frozen=True)
class Prepared:
    """Prepared data on disk.

    Attributes:
        path: The folder.
        meta: The contents of its meta.json.
    """

    path: Path
    meta: dict[str, Any]

    @property
    def key(self) -> str:
        """Hash of everything that produced this data."""
        return str(self.meta["key"])

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return str(self.meta["corpus"])

    @property
    def vocab(self) -> int:
        """Size of the vocabulary, the separator included."""
        return int(self.meta["vocab"])

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits in this data."""
        return tuple(split for split in (*SPLITS, *GUARDS) if split in self.meta["splits"])

    def tokens(self, split: str) -> np.memmap[Any, np.dtype[np.uint16]]:
        """The ids of a split, uint16 [tokens], read-only and mapped from disk."""
        return np.memmap(self.file(split), TOKEN, "r")

    def file(self, split: str) -> Path:
        """Where the ids of a split lie."""
        if split not in self.splits:
            raise DataError(f"There is no split {split!r}.", f"Splits are {', '.join(self.splits)}.")
        return self.path / f"{split}.bin"

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """Bytes of text that each token stands for, uint16 [vocab]; 0 for the separator."""
        sizes: npt.NDArray[np.uint16] = np.load(self.path / "token_bytes.npy", allow_pickle=False)
        return sizes

    @cached_property
    def vocabulary(self) -> tuple[bytes, ...]:
        """The text of each token; empty for the separator."""
        merges = json.loads((self.path / "tokenizer.json").read_text("utf-8"))["merges"]
        raw = [bytes([i]) for i in range(SEPARATOR)]
        return (*raw, b"", *(base64.b64decode(merge) for merge in merges))

    def decode(self, tokens: npt.ArrayLike) -> str:
        """Text of token ids; characters cut in two become U+FFFD, separators vanish."""
        words = self.vocabulary
        return b"".join(words[int(t)] for t in np.asarray(tokens).ravel()).decode("utf-8", "replace")

    def verify(self) -> None:
        """Read every file and compare it with the hashes from the preparation.

        Raises:
            DataError: If a file has changed.
        """
        for split in self.splits:
            with self.file(split).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.meta["splits"][split]["sha256"]:
                    raise DataError(f"{self.file(split)} is not what was prepared.", _AGAIN)


def open_cache(path: Path) -> Prepared:
    """Open prepared data, after a check of the sizes of its files.

    Raises:
        DataError: If the data is missing or damaged, or if a newer version made it.
    """
    path = Path(path)
    if not (path / "meta.json").is_file():
        raise DataError(
            f"There is no prepared data in {path}.",
            "Prepare some: python -m nanomodel.data prepare --cache DIR --corpus sotu --vocab 2048",
        )
    try:
        meta = json.loads((path / "meta.json").read_text("utf-8"))
        if meta["format"] != FORMAT:
            raise DataError(
                f"{path} has format {meta['format']}; this version reads {FORMAT}.", "Prepare the data again."
            )
        data = Prepared(path, meta)
        for split in dict.fromkeys((*SPLITS, *data.splits)):
            expected = TOKEN.itemsize * int(meta["splits"][split]["tokens"])
            if (size := data.file(split).stat().st_size) != expected:
                found = f"{data.file(split)} has {size} bytes, not {expected}"
                raise DataError(f"{found}: it is damaged.", _AGAIN)
        if data.token_bytes.shape != (data.vocab,) or len(data.vocabulary) != data.vocab:
            raise DataError(f"The tokenizer in {path} does not fit its data: it is damaged.", _AGAIN)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The prepared data in {path} cannot be read: {error}.", _AGAIN) from error
    return data
