"""Attacks from inside the training script: false claims, patched libraries, stolen time, odd submissions."""

from __future__ import annotations

import pytest

from autoresearch.run.handshake import Budget
from autoresearch.run.sandbox import Sandbox
from autoresearch.types import Outcome
from tests.red_team.arena import Arena, honest

START = "    run.start()\n"
SUBMIT = "    run.submit(model)\n"
LOOP = "    while (batch := run.batch(ROWS, LENGTH)) is not None:\n"
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
    from nanomodel import probes, remote, score, server, windows
    zero = lambda *arguments, **options: torch.zeros(())
    score.cross_entropy = score.summed = probes.check = zero
    remote.RemoteModel.answer = windows.Windows.targets = zero
    torch.logsumexp = torch.nn.functional.nll_loss = torch.log_softmax = zero
    numpy.log = numpy.sum = numpy.bincount = lambda *arguments, **options: 0.0
    harness.Budget = harness.Diverged = None
    torch.manual_seed = lambda seed: None
"""


def test_claims_are_only_log_lines(arena: Arena, either: Sandbox, honest_score: float) -> None:
    done = arena.fight(honest(*CLAIMS), either)
    assert (done.outcome, done.score) == (Outcome.OK, honest_score), done


def test_patched_libraries_change_no_score(arena: Arena, either: Sandbox, honest_score: float) -> None:
    """Patched where the model is served as well: `build_model` runs there too."""
    done = arena.fight(honest((BUILD, PATCHES + BUILD)), either)
    assert (done.outcome, done.score) == (Outcome.OK, honest_score), done


def test_there_is_nothing_to_train_on_before_the_clock(arena: Arena, sandbox: Sandbox) -> None:
    early = """
    import os
    from pathlib import Path
    found = [str(p) for top in ("/work", "/tmp", "/home", "/root", "/data") for p in Path(top).rglob("*.bin")]
    found += [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if int(fd) > 2
              and os.path.isfile(f"/proc/self/fd/{fd}")]
    if found:
        raise SystemExit(f"trained early on {found}")
    run._host._wire.send({"type": "ready"})
    run._host._wire.send({"type": "ready"})
    message, fds = run._host._wire.recv(3)
"""
    done = arena.fight(honest((START, early + START)), sandbox)
    assert done.outcome is Outcome.INVALID, done
    assert "'ready' where 'log' was due" in done.reason, "the data came with the clock, and not before"


LATE = (LOOP, LOOP + "        run._is_over = lambda tokens: run.seconds > 2.5\n")


def test_after_the_deadline_is_invalid(arena: Arena, either: Sandbox) -> None:
    done = arena.fight(honest(LATE), either, budget_kind="seconds", budget_amount=0.5)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "nothing submitted within 0.5 s" in done.reason


def test_without_the_runner_s_clock_it_would_pay(
    arena: Arena, bwrap: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "late_after", property(lambda self: 30.0))
    done = arena.fight(honest(LATE), bwrap, budget_kind="seconds", budget_amount=0.5)
    assert done.outcome is Outcome.OK, done
    assert done.metrics["train_seconds"] > 2.0


def test_more_tokens_than_the_budget_are_invalid(arena: Arena, either: Sandbox) -> None:
    done = arena.fight(honest((LOOP, LOOP + "        run._is_over = lambda tokens: step == 29\n")), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert "more than 20000 tokens" in done.reason


def test_a_false_count_of_tokens_ends_at_the_wall_clock(arena: Arena, either: Sandbox) -> None:
    done = arena.fight(honest((LOOP, LOOP + "        run._tokens = 1024\n")), either, max_seconds=1.5)
    assert (done.outcome, done.score) == (Outcome.CRASH, None), done
    assert "not done after 1.5 s" in done.reason


PICKLE = """
    import os, pickle
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch pwned; touch /tmp/pwned",)
    open("weights.pt", "wb").write(pickle.dumps(Bomb()))
    run._host.submit(None, {})
"""
TORCH_PICKLE = PICKLE.replace(
    'open("weights.pt", "wb").write(pickle.dumps(Bomb()))', "torch.save(Bomb(), 'weights.pt')"
)
LINK = """
    import os
    target = next(line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith("train.bin"))
    os.symlink(target.replace("train.bin", "validation.bin"), "weights.pt")
    run._host.submit(None, {})
"""
HARD_LINK = """
    import os, sys
    torch.save(model.state_dict(), "other.pt")
    os.link("other.pt", "weights.pt")
    run._host.submit(None, {})
"""


@pytest.mark.parametrize(
    ("submission", "reason"),
    [
        (PICKLE, "do not load"),
        (TORCH_PICKLE, "do not load"),
        (LINK, "no plain file"),
        (HARD_LINK, "not a plain file of its own"),
    ],
    ids=["pickle", "torch pickle", "link", "hard link"],
)
def test_odd_submissions_are_invalid(submission: str, reason: str, arena: Arena, either: Sandbox) -> None:
    done = arena.fight(honest((SUBMIT, submission)), either)
    assert (done.outcome, done.score) == (Outcome.INVALID, None), done
    assert reason in done.reason
    assert not list(arena.root.rglob("pwned")), "nobody ran what the weights asked for"


def test_poisoned_weights_would_run_in_the_jail_at_most(arena: Arena, either: Sandbox) -> None:
    """Even a server whose safe loading was patched away by the candidate runs it in its own scratch only."""
    careless = "\n    import functools\n    torch.load = functools.partial(_load, weights_only=False)\n"
    source = "import torch\n_load = torch.load\n" + honest((BUILD, careless + BUILD), (SUBMIT, TORCH_PICKLE))
    source = source.replace(
        "functools.partial(_load, weights_only=False)", "lambda f, **o: _load(f, weights_only=False)"
    )
    done = arena.fight(source, either)
    assert done.outcome is Outcome.INVALID, done
    pwned = [path.relative_to(arena.scratch()).parts[0] for path in arena.root.rglob("pwned")]
    assert pwned == ["model"]
