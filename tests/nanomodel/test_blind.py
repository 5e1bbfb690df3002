"""Blind questions: what they show and when, what an honest model loses by them, and what they find."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanomodel.scoring import blind, probes
from nanomodel.scoring.bits_per_byte import share
from nanomodel.scoring.client import Failure
from nanomodel.scoring.windows import Windows
from tests.support import toy
from tests.support.models import Honest, LooksAhead, Tells


def windows_of(tokens, context):
    return Windows(toy.prose(tokens, tokens), toy.SIZES, context)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 400), st.integers(1, 64), st.integers(1, 500), st.integers(1, 9), st.integers(0, 99))
def test_nothing_is_shown_before_it_was_asked(tokens, context, count, rows, seed):
    windows = windows_of(tokens, context)
    asked = blind.choose(windows, count, np.random.default_rng(seed))
    counted = windows.counted(np.arange(len(windows)))
    assert len(asked) == min(count, counted.sum())
    assert counted[asked.windows, asked.positions].all() and (np.diff(asked.target) > 0).all()
    shown, done = np.zeros(tokens, bool), []
    for batch in asked.batches(rows):
        assert 0 < len(batch) <= rows
        for question in batch:  # what the request shows, its targets included in no part of it
            shown[asked.first[question] : asked.target[question]] = True
        assert not shown[asked.target[batch]].any()
        done += batch.tolist()
    assert sorted(done) == list(range(len(asked)))


@settings(deadline=None, max_examples=30)
@given(st.integers(40, 400), st.integers(2, 64), st.integers(0, 99))
def test_a_question_holds_the_true_beginning_and_noise_after_it(tokens, context, seed):
    windows, rng = windows_of(tokens, context), np.random.default_rng(seed)
    asked = blind.choose(windows, 50, rng)
    inputs, true = blind.hidden(windows, asked, rng), windows.inputs(asked.windows)
    for row, (position, target) in enumerate(zip(asked.positions, asked.target, strict=True)):
        assert (inputs[row, : position + 1] == true[row, : position + 1]).all()
        assert windows.tokens[target] == windows.targets(asked.windows)[row, position]


def test_positions_are_uniform_over_the_targets_that_count():
    windows = windows_of(101, 16)
    hits = np.zeros(101)
    for seed in range(2000):
        hits[blind.choose(windows, 10, np.random.default_rng(seed)).target] += 1
    counts = toy.SIZES[windows.tokens] > 0
    counts[0] = False
    assert (hits[~counts] == 0).all()
    expected = 2000 * 10 / counts.sum()
    assert (np.abs(hits[counts] - expected) < 5 * math.sqrt(expected)).all()


SMALL = {"splits": ["test"], "share": (0, 4)}
"""Few enough targets to ask for each of them."""


@pytest.mark.parametrize(("count", "what"), [(3, {}), (500, {}), (10**6, SMALL)])
def test_an_honest_model_scores_exactly_the_same(score_of, count, what):
    plain, corrected = score_of(Honest, **what), score_of(Honest, questions=count, **what)
    assert corrected.bits_per_byte == plain.bits_per_byte
    assert (corrected.nats == plain.nats).all() and corrected.tokens == plain.tokens
    if count > plain.tokens:  # all positions were asked for
        assert corrected.blind.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-6)


class Wobbles(Honest):
    """Gives the true next token a little less if nothing follows, as rounding might."""

    def forward(self, tokens):
        logits = super().forward(tokens)
        later = torch.nn.functional.one_hot(torch.roll(tokens, -1, 1), 256) * 5e-5
        later[:, -1] = 0
        return logits + later


def test_a_difference_within_rounding_is_taken_out_of_the_score_and_of_every_piece(score_of):
    plain, flattered = score_of(Honest, **SMALL), score_of(Wobbles, **SMALL)
    corrected = score_of(Wobbles, questions=10**6, **SMALL)
    assert flattered.bits_per_byte < plain.bits_per_byte - 5e-5
    assert corrected.bits_per_byte == pytest.approx(plain.bits_per_byte, abs=1e-5)
    assert corrected.nats.sum() / (math.log(2) * corrected.bytes.sum()) == corrected.bits_per_byte
    assert ((corrected.nats - flattered.nats) / corrected.counts).std() < 1e-9


@pytest.mark.parametrize("make", [LooksAhead, lambda: LooksAhead(share=0.1)])
def test_a_model_that_looks_ahead_is_found_even_without_a_witness(score_of, monkeypatch, make):
    monkeypatch.setattr(probes, "check", lambda *_: 0.0)
    assert score_of(make).bits_per_byte < score_of(Honest).bits_per_byte - 0.02
    with pytest.raises(Failure, match="asked blind") as caught:
        score_of(make, questions=300)
    assert caught.value.outcome == "invalid"


def test_a_model_that_tells_the_witness_the_future_is_found(score_of):
    """Both servers agree, so the witness is no help; the channel is open, and does not help the model."""
    board = {}
    paid = score_of(lambda: Tells(board))
    assert paid.bits_per_byte < score_of(Honest).bits_per_byte - 1
    board = {}
    with pytest.raises(Failure, match="asked blind"):
        score_of(lambda: Tells(board, deaf=1), questions=300)


def test_the_blind_answers_alone_hold_whatever_servers_tell_each_other(score_of):
    """A server that tells the next one what it was asked: the two agree. But it knew nothing."""
    board = {}
    cheat = score_of(lambda: Tells(board), questions=600, question_seed=7)
    honest = score_of(Honest, questions=600, question_seed=7)
    assert cheat.bits_per_byte < honest.bits_per_byte - 0.5
    assert cheat.blind.bits_per_byte >= honest.blind.bits_per_byte - 1e-6
    assert (cheat.blind.questions.target == honest.blind.questions.target).all()


def test_the_chance_to_escape_is_what_the_docs_say():
    """(1 - s) ** n for a peek at a share s of the positions."""
    windows, share = windows_of(4_001, 64), 0.01
    rng = np.random.default_rng(0)
    escaped = 0
    for _ in range(400):
        peeks = rng.random((len(windows), windows.length)) < share
        asked = blind.choose(windows, 100, rng)
        nats = np.where(peeks, 1.0, 3.0).astype(np.float32)
        answers = blind.Answers(asked, np.full(len(asked), 3.0, np.float32), np.ones(len(asked), int))
        try:
            assert answers.correction(nats, probes.EXACT) == 0.0
            escaped += 1
        except Failure:
            pass
    expected = (1 - share) ** 100
    assert abs(escaped / 400 - expected) < 4 * math.sqrt(expected * (1 - expected) / 400)


@settings(deadline=None, max_examples=50)
@given(st.integers(300, 3000), st.integers(1, 6))
def test_shares_are_whole_documents_and_share_nothing(tokens, count):
    split = toy.prose(tokens, tokens)
    try:
        parts = [share(split, i, count) for i in range(count)]
    except ValueError:
        assert (split == 255).sum() < count or split[-1] == 255
        return
    assert np.concatenate(parts).tolist() == split.tolist()
    assert all(part[0] == 255 for part in parts)


def test_a_share_of_a_split_is_scored_alone(score_of):
    whole = score_of(Honest, splits=["validation", "test"])
    parts = [score_of(Honest, splits=["validation", "test"], share=(i, 3), questions=40) for i in range(3)]
    assert sum(part[0].bytes.sum() for part in parts) == whole[0].bytes.sum()
    assert all(part[1].bits_per_byte == pytest.approx(whole[1].bits_per_byte, rel=1e-6) for part in parts)
    assert len({part[0].bits_per_byte for part in parts}) == 3
