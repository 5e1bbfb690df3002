"""Divides documents into training, validation and the sealed test.

Invariants: every document is in exactly one split; near-duplicates are in the same one; the choice
depends on contents alone (a hash of each document), not on names, order or chance. Groups of near-duplicates
are ranked by hash: validation takes from the low end, test from the high end, so that few documents
move when a corpus grows.

A group larger than a quarter of a held-out split stays in training (unless all are that large), so that no
single document decides a score.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from nanomodel.data.documents import Ints
from nanomodel.data.spec import DataError

Hashes = npt.NDArray[np.uint64]
LEAST_BYTES = 4096
"""A held-out split smaller than this is useless."""
LEAST_GROUPS = 3
LARGEST_SHARE = 0.25


def content_hash(raw: bytes) -> int:
    """The 64 bits that decide the split of a document."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def hold_out(
    hashes: Hashes, sizes: Ints, groups: Ints, validation_fraction: float, test_fraction: float
) -> tuple[list[Ints], list[Ints]]:
    """Set documents aside for validation and for test.

    Args:
        hashes: `content_hash` of each document, uint64 [documents].
        sizes: Bytes of each document, int64 [documents].
        groups: Group of near-duplicates of each document, int64 [documents], from 0 without gaps.
        validation_fraction: Share of all bytes.
        test_fraction: Share of all bytes.

    Returns:
        For validation and for test: groups in the order of their hash, each as its documents' numbers.

    Raises:
        DataError: If the corpus is too small.
    """
    total, count = int(sizes.sum()), int(groups.max()) + 1 if len(groups) else 0
    if count < LEAST_GROUPS or total * min(validation_fraction, test_fraction) < LEAST_BYTES:
        raise _too_small(total, len(sizes), count, min(validation_fraction, test_fraction))
    weights = np.bincount(groups, sizes).astype(np.int64)
    first = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, groups, hashes)
    ranked = np.argsort(first, kind="stable")
    validation = _take(ranked, weights, total * validation_fraction)
    rest = ranked[~np.isin(ranked, validation)]
    test = _take(rest[::-1], weights, total * test_fraction)
    held = [int(weights[split].sum()) for split in (validation, test)]
    if min(held) < LEAST_BYTES or total - sum(held) < total // 3:
        raise DataError(
            f"The {count} distinct documents are too large or too alike to be split.",
            "Cut the corpus into more and smaller documents, or lower the fractions.",
        )
    members, ends = np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))
    documents = [[members[ends[g - 1] if g else 0 : ends[g]] for g in split] for split in (validation, test)]
    return documents[0], documents[1]


def _take(ranked: Ints, weights: Ints, target: float) -> list[int]:
    limit = max(LARGEST_SHARE * target, float(np.median(weights)))
    taken, held = [], 0
    for number in ranked.tolist():
        if weights[number] <= limit:
            taken.append(number)
            held += int(weights[number])
            if held >= target:
                break
    return taken


def _too_small(total: int, documents: int, count: int, fraction: float) -> DataError:
    needed = int(LEAST_BYTES / fraction) + 1
    return DataError(
        f"The corpus is too small to split: {total:,} bytes in {documents:,} documents ({count:,} distinct).",
        f"It needs at least {needed:,} bytes in {LEAST_GROUPS} distinct documents"
        f" (a held-out share of {fraction} has to be {LEAST_BYTES:,} bytes).",
    )
