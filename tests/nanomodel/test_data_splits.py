"""Holding documents out, and finding near-duplicates."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanomodel.data import DataError
from nanomodel.data.duplicates import Sketcher, group
from nanomodel.data.splits import LARGEST_SHARE, content_hash, hold_out

HASH_OF_TEXT = 0x1C1A3828A25FF3D7


def groups_of(texts: list[str]) -> np.ndarray:
    sketcher = Sketcher()
    for text in texts:
        sketcher.add(text.encode())
    return group(sketcher.finish())


def prose(words: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(3000)}" for _ in range(words)]


corpora = (
    st.integers(0, 10**6)
    .map(np.random.default_rng)
    .map(
        lambda rng: (
            rng.integers(0, 1 << 63, size=(n := int(rng.integers(60, 400)))).astype(np.uint64),
            rng.integers(500, 5000, size=n),
            np.unique(rng.integers(0, n, size=n), return_inverse=True)[1].astype(np.int64),
        )
    )
)


@given(corpora, st.floats(0.1, 0.2), st.floats(0.1, 0.2))
def test_held_out_groups_are_whole_disjoint_and_of_the_asked_size(corpus, validation_fraction, test_fraction):
    hashes, sizes, groups = corpus
    taken = hold_out(hashes, sizes, groups, validation_fraction, test_fraction)
    numbers = [n for split in taken for documents in split for n in documents.tolist()]
    assert len(numbers) == len(set(numbers))
    for split in taken:
        for documents in split:
            assert set(documents) == set(np.flatnonzero(groups == groups[documents[0]]))
    weights = np.bincount(groups, sizes)
    for split, fraction in zip(taken, (validation_fraction, test_fraction), strict=True):
        held, target = sizes[np.concatenate(split)].sum(), fraction * sizes.sum()
        assert target <= held < target + max(LARGEST_SHARE * target, np.median(weights))


@given(corpora, st.randoms())
def test_the_order_of_the_corpus_does_not_matter(corpus, rng):
    hashes, sizes, groups = corpus
    order = np.array(rng.sample(range(len(hashes)), len(hashes)))
    first = hold_out(hashes, sizes, groups, 0.1, 0.1)
    second = hold_out(hashes[order], sizes[order], groups[order], 0.1, 0.1)
    for a, b in zip(first, second, strict=True):
        assert [sorted(hashes[d]) for d in a] == [sorted(hashes[order][d]) for d in b]


def test_a_growing_corpus_moves_few_documents():
    rng = np.random.default_rng(0)
    hashes, sizes = rng.integers(0, 1 << 63, 1100).astype(np.uint64), np.full(1100, 1000)
    before = set(np.concatenate(hold_out(hashes[:1000], sizes[:1000], np.arange(1000), 0.1, 0.1)[0]))
    after = set(np.concatenate(hold_out(hashes, sizes, np.arange(1100), 0.1, 0.1)[0]))
    assert len(before - after) <= 10


def test_a_large_document_is_trained_on():
    sizes = np.full(300, 1000)
    sizes[7] = 20_000
    hashes = np.arange(300).astype(np.uint64)  # number 7 would be among the first
    validation, _ = hold_out(hashes, sizes, np.arange(300), 0.1, 0.1)
    assert 7 not in np.concatenate(validation)


def test_a_corpus_of_few_documents_is_split_all_the_same():
    validation, test = hold_out(np.arange(5).astype(np.uint64), np.full(5, 50_000), np.arange(5), 0.1, 0.1)
    assert [len(validation), len(test)] == [1, 1]


@pytest.mark.parametrize(("count", "size"), [(0, 0), (2, 10**6), (100, 100)])
def test_too_small(count: int, size: int):
    with pytest.raises(DataError, match="too small to split"):
        hold_out(np.arange(count).astype(np.uint64), np.full(count, size), np.arange(count), 0.1, 0.1)


def test_a_few_documents_of_very_different_size_cannot_be_split():
    sizes = np.array([100_000, 100_000, 20_000])
    with pytest.raises(DataError, match="too large or too alike"):
        hold_out(np.arange(3).astype(np.uint64), sizes, np.arange(3), 0.1, 0.1)


def test_a_corpus_that_is_one_huge_document_and_a_few_crumbs_cannot_be_split():
    sizes = np.array([10_000, 10_000, 10_000, 1_000_000])
    with pytest.raises(DataError, match="too large or too alike"):
        hold_out(np.arange(4).astype(np.uint64), sizes, np.arange(4), 0.1, 0.1)


def test_hashes_depend_on_contents_alone():
    assert content_hash(b"text") == content_hash(b"text") != content_hash(b"text ")
    assert content_hash(b"text") == HASH_OF_TEXT  # a split must not move between versions and machines


def test_unrelated_documents_are_not_linked():
    groups = groups_of([" ".join(prose(300, seed)) for seed in range(400)])
    assert groups.max() == 399


def test_shared_boilerplate_alone_does_not_link():
    shared = prose(250, 0)
    groups = groups_of([" ".join(shared + prose(300, seed + 1)) for seed in range(100)])
    assert groups.max() > 95


@pytest.mark.parametrize("changed", [0.0, 0.01, 0.02])
def test_nearly_equal_documents_are_linked(changed: float):
    rng, texts = random.Random(0), []
    for seed in range(200):
        words = prose(600, seed)
        texts.append(" ".join(words))
        texts.append(
            "  ".join(f"x{rng.random()}" if rng.random() < changed else word.upper() for word in words)
        )
    groups = groups_of(texts)
    linked = groups[::2] == groups[1::2]
    assert linked.all() and groups.max() == 199


def test_links_are_followed():
    words, texts = prose(500, 0), []
    for step in range(40):  # each differs a little from the one before, and the last is wholly different
        words = [*words[25:], *prose(25, step + 1)]
        texts.append(" ".join(words))
    assert groups_of(texts).max() == 0


def test_short_texts_and_other_scripts():
    texts = [
        "Yes.",
        "No.",
        "Yes.",
        "",
        "",
        "語" * 5,
        "這是一個很長的句子" * 30,
        "這是一個很長的句子" * 30 + "。",
        "另一句話完全不同" * 30,
    ]
    groups = groups_of(texts).tolist()
    assert groups[0] == groups[2] != groups[1]
    assert groups[6] == groups[7] != groups[8]
