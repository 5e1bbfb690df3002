"""Slices of a split that the scorer sums up besides the score: chosen by data, never by code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanomodel.data import open_cache
from nanomodel.scoring.bits_per_byte import entropy
from nanomodel.scoring.slices import LOSSES, PROPERTIES, TOKENS, TRANSFORMS, Slice, transformed
from tests.support.models import Honest

SLICES = {
    "early": {"tokens": "early"},
    "late": {"tokens": "late"},
    "rare": {"tokens": "rare"},
    "common": {"tokens": "common"},
    "whole": {},
    "calibration": {"loss": "overconfidence"},
    "longest": {"documents": "length"},
    "that": {"contains": "that"},
    "upper": {"transform": "upper"},
    "other": {"split": "other"},
}


def test_slices_add_up_and_change_no_score(score_of):
    plain, done = score_of(Honest), score_of(Honest, slices=SLICES, questions=50)
    assert done.bits_per_byte == plain.bits_per_byte
    found = done.slices
    assert set(found) == set(SLICES) - {"other"}, "a split that is not scored has no slices"
    assert np.allclose(found["whole"][:, 0], done.nats[done.bytes > 0])
    assert found["rare"][:, 0].sum() + found["common"][:, 0].sum() == pytest.approx(done.nats.sum())
    assert found["rare"][:, 1].sum() + found["common"][:, 1].sum() == done.bytes.sum()
    assert 0.05 < found["rare"][:, 1].sum() / done.bytes.sum() <= 0.2
    assert found["early"][:, 1].sum() == pytest.approx(done.bytes.sum() / 4, rel=0.1)
    assert found["late"][:, 1].sum() == pytest.approx(done.bytes.sum() / 2, rel=0.1)
    documents = set(found["longest"][:, 2])
    assert 0 < len(documents) < len(set(done.documents)) / 2 + 1
    assert found["upper"][:, 1].sum() > 0 and not np.allclose(found["upper"][:5, 0], found["whole"][:5, 0])


def test_the_stated_uncertainty_is_the_entropy():
    logits = torch.randn(4, 3, 10)
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(entropy(logits), expected, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_split_has_the_same_documents(cache, name):
    prepared = open_cache(cache)
    tokens = prepared.tokens("validation")
    found = transformed(prepared, tokens, name)
    assert (found == 255).sum() == (tokens == 255).sum()
    assert found.dtype == np.uint16 and found.max() < prepared.vocab


TEXTS = st.text(max_size=5)


@given(st.dictionaries(TEXTS | st.sampled_from(["tokens", "documents", "loss"]), TEXTS | st.integers()))
def test_whatever_is_said_is_a_slice_or_is_refused(data):
    try:
        found = Slice.parse(data)
    except ValueError as error:
        assert str(error)
        return
    assert found.tokens in TOKENS and found.documents in ("", *PROPERTIES) and found.loss in LOSSES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"code": "import os"}, "there is no key 'code'"),
        ({"tokens": "__import__('os')"}, "tokens is one of all, rare"),
        ({"contains": "x" * 81}, "at most 80"),
        ({"transform": 3}, "transform is no text"),
        ({"split": "test"}, "split is one of validation, other"),
    ],
)
def test_what_is_no_slice_is_refused(data, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Slice.parse(data)
