"""A scored model writes text: a jailed server gives logits, and the tokens are chosen outside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoresearch.tasks.gpt.sampling import choose
from autoresearch.types import Outcome, TextRequest
from tests.support import toy
from tests.support.gpt import make_measurer, measure


@pytest.mark.slow
def test_a_trained_model_writes_and_its_kept_weights_are_used_again(tmp_path: Path) -> None:
    fails_for_three = "        assert len(tokens) != 3\n        x = self.embed(tokens)"
    script = toy.TRAIN.replace("        x = self.embed(tokens)", fails_for_three)
    code, kept = toy.write_code(tmp_path / "code", script), tmp_path / "kept"
    measurer = make_measurer(toy.write_cache(tmp_path / "cache"))
    request = TextRequest("the of", tokens=60, count=2)
    try:
        done = measure(measurer, code, tmp_path / "1", text=request, submission=str(kept))
        assert done.outcome is Outcome.OK, done.reason
        assert len(done.texts) == 2 and done.texts[0] != done.texts[1]
        assert all(text.startswith("the of") and len(text) > 8 for text in done.texts)
        asked = replace(request, count=3)
        failed = measure(measurer, code, tmp_path / "2", text=asked, submission=str(kept))
        assert failed.outcome is Outcome.CRASH and "cannot write text: the model failed" in failed.reason
        assert "train_seconds" not in failed.metrics and failed.texts == ()
    finally:
        measurer.close()


def test_the_likeliest_token_is_chosen_when_it_is_cold() -> None:
    rng = np.random.default_rng(0)
    logits = np.linspace(0, 3, 200)
    assert choose(logits, 0.0, rng) == 199
    found = [choose(logits, 1.0, rng) for _ in range(500)]
    assert min(found) >= 150 and len(set(found)) > 20 and np.mean(found) > 175
