"""Tryouts: what would fail early in a trial, or at its end, fails here; and nothing held out is read."""

import pytest

from autoresearch.tasks.gpt import scoring
from autoresearch.types import Outcome
from tests.autoresearch.tasks.gpt.test_measurer import HEAD, altered
from tests.support import toy
from tests.support.gpt import make_measurer

pytestmark = pytest.mark.slow


@pytest.fixture
def tryout(runner, tmp_path):
    def tryout(source):
        return runner.tryout(toy.write_code(tmp_path / "code", source), tmp_path / "scratch")

    return tryout


STEP = "        loss = loss_of(*batch)\n"


@pytest.mark.parametrize(
    ("old", "new", "outcome", "reason"),
    [
        ("nn.Linear(2 * WIDTH, vocab)", "nn.Linear(3 * WIDTH, vocab)", "crash", "shape error"),
        pytest.param(
            STEP,
            STEP + "        x = [bytearray(10**9) for _ in range(9)]\n",
            "crash",
            "out of memory",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            STEP, STEP + "        loss = loss * float('nan')\n", "crash", "diverged", marks=pytest.mark.soak
        ),
        pytest.param("is_causal=True", "is_causal=False", "invalid", "looks ahead", marks=pytest.mark.soak),
        pytest.param(
            HEAD,
            "        if not self.training: tokens = tokens[:, 1:]; x = x[:, 1:]\n" + HEAD,
            "invalid",
            "did not return logits",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            "    run.submit(model)",
            "    torch.nn.init.constant_(model.head.bias, float('nan'))\n    run.submit(model)",
            "invalid",
            "not finite",
            marks=pytest.mark.soak,
        ),
    ],
    ids=["shape", "memory", "nan loss", "not causal", "shape when served", "nan weights"],
)
def test_what_would_fail_fails_at_once(tryout, old, new, outcome, reason):
    done = tryout(altered(old, new))
    assert (done.outcome.value, done.score) == (outcome, None), done
    assert reason in done.reason, done


def test_an_honest_candidate_passes_in_a_few_steps_without_a_score_or_held_out_data(
    tryout, cache, tmp_path, monkeypatch
):
    """A model that tells what it is asked, asked about the training split alone."""
    monkeypatch.setattr(scoring, "remove_tree", lambda folder: None)  # so that what it tells stays
    note = "open('asked', 'ab').write(bytes(tokens.flatten()[:40].tolist()))"
    done = tryout(altered(HEAD, f"        if not self.training: {note}\n{HEAD}"))
    told = b"".join(path.read_bytes() for path in sorted((tmp_path / "scratch").rglob("asked")))
    asked = [told[i : i + 40] for i in range(0, len(told), 40)]
    splits = {split: (cache / f"{split}.bin").read_bytes()[::2] for split in ("train", "validation", "test")}
    assert (done.outcome, done.score, done.reason) == (Outcome.OK, None, ""), done
    assert done.metrics["steps"] == 4 and asked
    # The first window of each request, up to where a probe may have changed it.
    assert sum(words[:32] in splits["train"] for words in asked) >= 8
    assert not any(words[:32] in splits[split] for words in asked for split in ("validation", "test"))


@pytest.mark.soak
def test_out_of_memory_is_tried_again_as_a_trial_would_be(cache, tmp_path):
    """What fits when it is compiled is not refused, and what does not is."""
    grab = "        x = [bytearray(10**9) for _ in range(9)] if not run.compile or GREED else 0\n"
    runner = make_measurer(cache, compile=True)
    try:
        for greed, outcome in ((False, Outcome.OK), (True, Outcome.CRASH)):
            source = altered(STEP, STEP + grab.replace("GREED", str(greed)))
            place = tmp_path / str(greed)
            done = runner.tryout(toy.write_code(place / "code", source), place / "scratch")
            assert done.outcome is outcome, done
        assert done.reason.startswith("out of memory")
    finally:
        runner.close()
