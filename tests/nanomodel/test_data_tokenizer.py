"""Text to ids and back, whatever the text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanomodel.data import SEPARATOR, DataError
from nanomodel.data.tokenizer import Encoder, train

TEXTS = [
    "The quick brown fox, in 1984, jumped over the lazy dog's 12345 fences.\n\n  Twice! ",
    "Ωραία! naïve café 語",
] * 9
MERGES = train(TEXTS, 320)
ENCODERS = {256: Encoder([]), 320: Encoder(MERGES)}


def decode(ids: np.ndarray) -> bytes:
    words = [bytes([i]) for i in range(256)] + MERGES
    return b"".join(words[i] for i in ids.tolist())


@pytest.mark.parametrize("vocab", [256, 320])
@given(text=st.text())
def test_any_text_comes_back(vocab: int, text: str):
    (ids,) = ENCODERS[vocab].encode([text.encode()])
    assert ids.dtype == np.uint16 and ids[0] == SEPARATOR
    assert decode(ids[1:]) == text.encode()
    assert SEPARATOR not in ids[1:]
    assert ENCODERS[vocab].token_bytes[ids].sum() == len(text.encode())


@pytest.mark.slow
@pytest.mark.parametrize("unit", [" ", "\n", "\t ", "a", "1", "-", "語", "\u3000", "<|endoftext|>"])
def test_monotonous_text_overflows_nothing(unit: str):
    text = unit * (3_000_000 if unit == " " else 200_000)
    train([text, *TEXTS], 262)
    (ids,) = ENCODERS[320].encode([text.encode()])
    assert decode(ids[1:]) == text.encode()


def test_merges_shorten_text_and_are_distinct():
    raw = TEXTS[0].encode()
    (ids,) = ENCODERS[320].encode([raw])
    assert len(ids) < 0.6 * len(raw)
    assert len(MERGES) == len(set(MERGES)) == 320 - 256
    assert all(len(merge) > 1 and 255 not in merge for merge in MERGES)


def test_training_depends_on_counts_alone():
    assert train(reversed(TEXTS), 320) == MERGES


def test_a_vocabulary_beyond_the_text():
    with pytest.raises(DataError, match=r"vocabulary of 500: it supports (\d+)") as caught:
        train(["abc abd"], 500)
    assert "Lower" in caught.value.hint


def test_documents_keep_their_order():
    documents = [f"document {n}".encode() for n in range(500)]
    assert [decode(ids[1:]) for ids in ENCODERS[320].encode(documents)] == documents


def test_a_tokenizer_that_loses_text_is_not_used():
    encoder = Encoder(MERGES)
    encoder.token_bytes[ord("q")] = 2
    with pytest.raises(RuntimeError, match="cover"):
        encoder.encode([b"quick"])
