"""Attacks from inside the training script: false claims, patched libraries, stolen time, odd submissions.

What the clock and the count of tokens refuse is tried by default in `tasks/gpt/test_training.py`, with a
training process alone; the whole trials of the same attacks are soak tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.execute.sandbox import Sandbox
from autoresearch.tasks.gpt.settings import TrainingBudget
from autoresearch.types import Outcome
from tests.red_team.arena import Arena, honest
from tests.support.candidates import HELLO, OPENING, READY

pytestmark = pytest.mark.slow

SUBMIT = "    run.submit(model)\n"
LOG = "        run.log(step, loss=loss)\n"
BUILD = "    return Model(vocab, context)"

CLAIMS = (
    (LOG, "        run.log(step, loss=1e-9, val_bpb=0.0, score=0.0)\n"),
    (
        SUBMIT,
        "    print('val_bpb: 0.000001\\n{\"score\": 0.0}')\n    run.submit(model, score=0.0, val_bpb=0.0)\n",
    ),
)

PATCHES = """
    import math, numpy
    from nanomodel import score
    from nanomodel.scoring import bits_per_byte, client, probes, server, windows
    zero = lambda *arguments, **options: torch.zeros(())
    bits_per_byte.cross_entropy = bits_per_byte.summed = bits_per_byte.score = zero
    score.score = probes.check = zero
    client.ModelClient.answer = windows.Windows.targets = zero
    torch.logsumexp = torch.nn.functional.nll_loss = torch.log_softmax = zero
    numpy.log = numpy.sum = numpy.bincount = lambda *arguments, **options: 0.0
    harness.Budget = harness.Diverged = None
"""


def test_claims_and_patched_libraries_change_no_score(
    arena: Arena, either: Sandbox, honest_score: float
) -> None:
    """Claims are only log lines. Libraries are patched where the model is served, too, by `build_model`."""
    done = arena.fight(honest(*CLAIMS, (BUILD, PATCHES + BUILD)), either)
    assert (done.outcome, done.score) == (Outcome.OK, honest_score), done


def test_there_is_nothing_to_train_on_before_the_clock(arena: Arena, sandbox: Sandbox) -> None:
    early = """
from pathlib import Path
found = [str(p) for top in ("/work", "/tmp", "/home", "/root", "/data") for p in Path(top).rglob("train.bin")]
found += [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2
          and os.path.isfile(f"/proc/self/fd/{fd}")]
print(f"to train on: {found}", flush=True)
raise SystemExit(3)
"""
    done = arena.fight(OPENING + HELLO + early, sandbox)
    assert (done.outcome, done.log.strip()) == (Outcome.CRASH, "to train on: []"), done


SUBMITS = 'open("weights.pt", "wb").write(b"x")\nwire.send({"type": "submit", "metrics": {"tokens": %d}})\n'
LATE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(2.5)\n" + SUBMITS % 100 + "time.sleep(60)\n"


@pytest.mark.soak
def test_after_the_deadline_is_invalid(arena: Arena, either: Sandbox) -> None:
    done = arena.fight(OPENING + HELLO + READY + LATE, either, kind="seconds", amount=0.5)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "nothing submitted within 0.5 s" in done.reason


LONGER = """    run = harness.connect()
    run.budget = harness.Budget("seconds", 1.8 * run.budget.amount)
"""


@pytest.mark.soak
def test_a_harness_with_a_longer_budget_is_late(arena: Arena, either: Sandbox) -> None:
    """It trains on happily, by a clock of its own; what it hands in is late by the runner's."""
    source = honest(("    run = harness.connect()\n", LONGER))
    done = arena.fight(source, either, kind="seconds", amount=1.0)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "nothing submitted within 1 s" in done.reason
    assert done.curve, "it trained"


@pytest.mark.soak
def test_without_the_runner_s_clock_it_would_be_taken(
    arena: Arena, bwrap: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingBudget, "late_after", property(lambda self: 30.0))
    late = GUARD + LATE.replace("\n", "\n    ")
    done = arena.fight(late, bwrap, kind="seconds", amount=0.5)
    assert "do not load" in done.reason, "it got as far as its weights"
    assert done.metrics["train_seconds"] > 2.0


@pytest.mark.soak
def test_more_tokens_than_the_budget_are_invalid(arena: Arena, either: Sandbox) -> None:
    done = arena.fight(OPENING + HELLO + READY + SUBMITS % 20_001 + "time.sleep(60)\n", either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "more than 20000 tokens" in done.reason


@pytest.mark.soak
def test_a_false_count_of_tokens_ends_at_the_wall_clock(arena: Arena, either: Sandbox) -> None:
    message = "{'type': 'log', 'tokens': 1, 'loss': 2.0, 'step': 1}"
    counts = f"while True:\n    wire.send({message})\n    time.sleep(0.1)\n"
    done = arena.fight(OPENING + HELLO + READY + counts, either, max_seconds=1.0)
    assert (done.outcome, done.score) == (Outcome.CRASH, None), done
    assert "not done after 1 s" in done.reason


@pytest.mark.soak
def test_a_budget_of_tokens_is_all_there_is_to_read(arena: Arena, sandbox: Sandbox) -> None:
    """Whoever counts falsely may read the same tokens again, until the clock's cap, but no others."""
    counts = 'print(f"tokens at hand: {os.fstat(data).st_size // 2}", flush=True)\n'
    source = OPENING + HELLO + READY + counts + SUBMITS % 20_000 + "time.sleep(60)\n"
    done = arena.fight(source, sandbox, score_seconds=2.0)
    assert "tokens at hand: 20001" in done.log, done


def test_the_ration_cannot_be_changed_for_the_next_trial(arena: Arena, sandbox: Sandbox) -> None:
    tries = """
for attempt in (lambda: os.ftruncate(data, 1 << 20), lambda: os.pwrite(data, b"xx", 0)):
    try:
        attempt()
        print("changed it", flush=True)
    except OSError as error:
        print("refused:", error.strerror, flush=True)
"""
    done = arena.fight(OPENING + HELLO + READY + tries + "raise SystemExit(3)\n", sandbox)
    assert "changed it" not in done.log and done.log.count("refused:") == 2, done


@pytest.mark.soak
def test_more_than_the_device_can_compute_is_invalid(arena: Arena, either: Sandbox) -> None:
    claims = SUBMITS.replace('"tokens": %d', '"mfu": 1.4')
    done = arena.fight(OPENING + HELLO + READY + claims + "time.sleep(60)\n", either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "140% of what the device" in done.reason


def test_a_descriptor_does_not_give_the_owner_s_rights(arena: Arena, sandbox: Sandbox) -> None:
    """The owner of a file may change its mode by any descriptor: it is noticed and mended, or did nothing."""
    before = (arena.cache / "train.bin").stat()
    meddles = "os.fchmod(data, 0o777)\nos.utime(data, (1, 1))\n"
    source = OPENING + HELLO + READY + meddles + "raise SystemExit(3)\n"
    done = arena.fight(source, sandbox, kind="seconds", amount=20.0)  # tokens come as a copy
    bare = getattr(sandbox, "namespaces", True) is False
    reason = "ended with status 3" if bare else "it changed the file of the training data"
    assert done.outcome is (Outcome.CRASH if bare else Outcome.INVALID) and reason in done.reason, done
    after = (arena.cache / "train.bin").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


GUARD = """
def build_model(vocab, context):
    import torch
    return torch.nn.Embedding(vocab, vocab)

if __name__ == "__main__":
    import os, signal, time
    from nanomodel.wire import Wire
    wire = Wire.from_fd(int(os.environ["HARNESS_FD"]))
    wire.send({"type": "hello", "protocol": 1})
    wire.recv()
    wire.send({"type": "ready"})
    wire.recv()
    """
SUBMIT_NOW = """
    wire.send({"type": "submit", "metrics": {}})
    time.sleep(60)
"""
PICKLE = """
    import pickle
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch pwned; touch /tmp/pwned",)
    open("weights.pt", "wb").write(pickle.dumps(Bomb()))
"""
LINK = """
    os.symlink("/etc/hostname", "weights.pt")
"""
HARD_LINK = """
    open("other.pt", "w").write("x")
    os.link("other.pt", "weights.pt")
"""


@pytest.mark.parametrize(
    ("submission", "reason"),
    [
        pytest.param(PICKLE, "do not load", id="pickle"),
        pytest.param(LINK, "no plain file", id="link", marks=pytest.mark.soak),
        pytest.param(HARD_LINK, "not a plain file of its own", id="hard link", marks=pytest.mark.soak),
    ],
)
def test_odd_submissions_are_invalid(submission: str, reason: str, arena: Arena, either: Sandbox) -> None:
    done = arena.fight(GUARD + submission + SUBMIT_NOW, either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert reason in done.reason
    assert not list(arena.root.rglob("pwned")), "nobody ran what the weights asked for"


CARELESS = """
    torch.load, load = lambda file, **options: load(file, weights_only=False), torch.load
"""
POISON = """
    import os
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch pwned; touch /tmp/pwned",)
    torch.save(Bomb(), "weights.pt")
    run._runner.submit(None, {})
"""


def test_poisoned_weights_run_nowhere(arena: Arena, either: Sandbox) -> None:
    """A candidate can patch the safe loading away in its own server, but by then they have been read."""
    done = arena.fight(honest((BUILD, CARELESS + BUILD), (SUBMIT, POISON)), either)
    assert done.outcome is Outcome.INVALID, done
    assert not list(arena.root.rglob("pwned")) and not Path("/tmp/pwned").exists()
