"""Byte-level BPE (Sennrich et al., 2016): trained with rustbpe, applied with tiktoken.

Invariants: ids 0..254 are the raw bytes, ids from 256 are merges, no text encodes to 255, and
exactly one token covers each byte of text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from nanomodel.data.cache import SEPARATOR, TOKEN
from nanomodel.data.spec import DataError

RAW = 256

PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # a word with the space before it
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s{0,256}[\r\n]",
        r"\s{1,256}(?!\S)",
        r"\s{1,256}",
    )
)
"""Cuts text before merging, as GPT-4 does, but takes two digits at once, since vocabularies are small, and
limits runs of whitespace, since an unlimited run overflows the regex engine's stack."""

Tokens = npt.NDArray[np.uint16]


def train(texts: Iterable[str], vocab: int) -> list[bytes]:
    """The text of each merge, in order of rank; none for a vocabulary of raw bytes.

    Args:
        texts: Training text.
        vocab: Size of the vocabulary, with bytes and separator.

    Raises:
        DataError: If the text does not give that many merges.
    """
    if vocab == RAW:
        return []
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab, pattern=PATTERN)
    merges = [bytes(text) for text, rank in tokenizer.get_mergeable_ranks() if rank >= RAW]
    if len(merges) != vocab - RAW or len(set(merges)) != len(merges):
        raise DataError(
            f"The corpus is too small for a vocabulary of {vocab}: it supports {RAW + len(set(merges))}.",
            "Lower the vocabulary (budget.vocab) or take a larger corpus.",
        )
    return merges


class Encoder:
    """Turns documents into ids, on all cores."""

    def __init__(self, merges: Sequence[bytes]) -> None:
        self.token_bytes = np.array([1] * SEPARATOR + [0] + [len(m) for m in merges], np.uint16)
        self._encode = _bpe(merges) if merges else _raw_bytes
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def encode(self, documents: Sequence[bytes]) -> list[Tokens]:
        """The ids of each document, uint16 [tokens], separator first.

        Raises:
            RuntimeError: If the tokens do not cover the text, which would falsify every score.
        """
        encoded = list(self._pool.map(self._encode, documents))
        for raw, ids in zip(documents, encoded, strict=True):
            if int(self.token_bytes[ids].sum(dtype=np.int64)) != len(raw):
                raise RuntimeError(f"tokens cover not exactly the {len(raw)} bytes of a document")
        return encoded


def _raw_bytes(raw: bytes) -> Tokens:
    return np.frombuffer(bytes([SEPARATOR]) + raw, np.uint8).astype(TOKEN)


def _bpe(merges: Sequence[bytes]) -> Callable[[bytes], Tokens]:
    import tiktoken

    ranks = {bytes([i]): i for i in range(RAW)} | {merge: RAW + i for i, merge in enumerate(merges)}
    encoding = tiktoken.Encoding("nanomodel", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})

    def encode(raw: bytes) -> Tokens:
        ids = encoding.encode_to_numpy(raw.decode(), disallowed_special=())
        return np.concatenate([[SEPARATOR], ids]).astype(TOKEN)

    return encode
