"""Whole trials: a real candidate, the real sandbox, real model servers, the real scorer."""

import math
import os
import signal
import socket
import subprocess
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from autoresearch.errors import UserError
from autoresearch.execute import retry
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.load import LoadMeter
from autoresearch.tasks.gpt.guards import guard_metrics
from autoresearch.tasks.gpt.program import JailedProgram
from autoresearch.tasks.gpt.training import OWN_TIMEOUT
from autoresearch.types import WAITING, Fidelity, Measurement, Outcome, Split
from tests.support import toy
from tests.support.candidates import HELLO, OPENING, READY
from tests.support.gpt import CONTEXT, make_measurer, measure

pytestmark = pytest.mark.slow


@pytest.fixture
def run(runner, tmp_path):
    def run(source, runner=runner, **options):
        code = toy.write_code(tmp_path / "code", source)
        return measure(runner, code, tmp_path / "scratch", **options)

    return run


def altered(old, new):
    assert old in toy.TRAIN
    return toy.TRAIN.replace(old, new)


def submitting(expression):
    """A candidate that trains nothing and submits what the expression says."""
    return altered("    loss_of(*run.fake", f"    run.start(); {expression}; return\n    loss_of(*run.fake")


def reference(weights, cache):
    """Bits per byte of the toy model by a plain computation."""
    namespace = {"__name__": "toy_train"}
    exec(toy.TRAIN, namespace)
    model = namespace["build_model"](256, CONTEXT)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    tokens = np.fromfile(cache / "validation.bin", "<u2").astype(np.int64)
    torch.set_num_threads(1)
    nats, size = 0.0, 0
    with torch.no_grad():
        for target in range(1, len(tokens)):
            start = min((target - 1) // CONTEXT * CONTEXT, len(tokens) - 1 - CONTEXT)
            if tokens[target] != 255:
                logits = model(torch.from_numpy(tokens[None, start:target]))[0, -1].double()
                nats -= float(torch.log_softmax(logits, -1)[tokens[target]])
                size += 1
    return nats / (math.log(2) * size)


LATE = altered("    run.submit(model)", "    import time; time.sleep(1.2); run.submit(model)")


class Shared(LoadMeter):
    """A machine on which others begin to compute unseen; from `told` on it has no room, but for a moment."""

    answers = iter(())
    told = False
    mark = (0.0, 0.0)

    @property
    def full(self):
        return next(self.answers, self.told)

    def blame(self, since):
        if self.told:
            return ""
        self.told, self.answers = True, iter([True, True, False])
        return "other programs used 2.0 of 2 cores for 9 s"


@pytest.mark.soak
def test_a_trial_that_is_late_on_a_busy_machine_is_repeated_not_judged(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "SIGN", 0.01)
    monkeypatch.setattr(JailedProgram, "waited_seconds", None)  # a kernel that does not tell
    load, said, signs = Shared(), [], []
    runner = make_measurer(cache, max_seconds=0.6, load=load, say=said.append)
    try:
        code = toy.write_code(tmp_path / "code", LATE)
        done = measure(runner, code, tmp_path / "scratch", progress=signs.append)
    finally:
        runner.close()
    assert done.outcome is Outcome.OK and done.metrics["repeated"] == 1, done.reason
    assert "other programs used 2.0 of 2 cores for 9 s. The search pauses until" in said[0] and len(said) == 2
    assert WAITING in [sign.phase for sign in signs]


def test_a_whole_trial(honest, cache):
    done = honest.done
    assert done.outcome is Outcome.OK and done.reason == "", done
    weights = honest.place / "scratch/train/weights.pt"
    assert done.score == pytest.approx(reference(weights, cache), rel=1e-5)
    assert done.metrics["tokens"] == 19 * 1024 and done.metrics["steps"] == 19
    expected = {"startup_seconds", "train_seconds", "score_seconds", "tokens_per_second", "train_loss"}
    assert expected | {"parameters", "peak_memory_mb"} <= set(done.metrics)
    assert done.curve[-1][0] == pytest.approx(19 * 1024 / 20_000)
    assert {p.phase for p in honest.seen} >= {"train", "score"}
    assert (done.provenance.fraction, done.provenance.fidelity) == (1.0, Fidelity.FULL)
    assert done.provenance.worker == socket.gethostname()
    table = np.load(honest.place / "scratch/validation.npy")
    assert done.score == pytest.approx(table[:, 0].sum() / table[:, 1].sum())


def test_weights_that_were_kept_are_scored_later_without_training_blind_questions_included(
    runner, honest, tmp_path
):
    """Blind questions change nothing for an honest model."""
    done = measure(
        runner,
        honest.place / "code",
        tmp_path / "scratch",
        splits=(Split.TEST, Split.VALIDATION),
        submission=honest.submission,
        blind=True,
        blind_seed=3,
        share=(0, 2),
    )
    assert done.outcome is Outcome.OK, done
    assert [name for name, _, _ in done.phases] == ["startup", "score"], done
    assert done.metrics["validation_bpb"] == honest.done.score and 0 < done.score != honest.done.score
    assert not list((honest.place / "claims").glob("*.part"))
    assert done.metrics["blind_seconds"] > 0
    answers = np.load(tmp_path / "scratch/blind.npy")
    assert len(answers) == 500
    assert done.metrics["blind_bpb"] == pytest.approx(answers[:, 0].sum() / answers[:, 1].sum())
    whole = np.load(tmp_path / "scratch/test.npy")
    assert done.score == pytest.approx(whole[:, 0].sum() / whole[:, 1].sum())
    assert 1000 < whole[:, 1].sum() / np.log(2) < 2000  # half of it


@pytest.mark.soak
def test_guards_are_measured_from_the_same_answers(honest, runner, run, tmp_path):
    guards = tuple(g for g in guard_metrics("tokens") if g.name in ("rare", "calibration", "capitals"))
    result = run(toy.TRAIN, guards=guards)
    assert result.score == honest.done.score, "guards change no score"
    scratch = tmp_path / "scratch"
    for guard in guards:
        table = np.load(scratch / f"{guard.items}.npy")
        assert result.metrics[guard.metric] == table[:, 0].sum() / table[:, 1].sum() >= 0
        assert len(np.unique(table[:, 2])) > 3


def test_another_seed_and_a_seconds_budget(run, cache):
    runner = make_measurer(cache, kind="seconds", amount=1.0)
    try:
        done = run(toy.TRAIN, runner=runner, seed=2, splits=(Split.TEST, Split.VALIDATION))
    finally:
        runner.close()
    assert done.outcome is Outcome.OK, done
    assert done.metrics["train_seconds"] > 0.5  # a later end would be another outcome
    assert done.score is not None
    assert done.metrics["validation_bpb"] == pytest.approx(done.score, rel=0.2)  # of the same model


HEAD = "        return self.head(F.relu(self.up(x)))\n"


@pytest.mark.parametrize(
    ("old", "new", "outcome", "reason"),
    [
        pytest.param("is_causal=True", "is_causal=False", "invalid", "looks ahead", marks=pytest.mark.soak),
        pytest.param(
            HEAD,
            "        self.asked = getattr(self, 'asked', 0) + 1; x = x + 1e-2 * self.asked\n" + HEAD,
            "invalid",
            "other answers",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            HEAD,
            "        self.up.bias.data += 1e-2\n" + HEAD,
            "invalid",
            "changed its weights",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            HEAD,
            "        if not self.training: exit(7)\n" + HEAD,
            "crash",
            "the model server died",
            marks=pytest.mark.soak,
        ),
    ],
    ids=["looks ahead", "keeps state", "changes weights", "dies"],
)
def test_a_trained_model_that_breaks_the_rules(run, old, new, outcome, reason):
    done = run(altered(old, new))
    assert (done.outcome.value, done.score) == (outcome, None), done
    assert reason in done.reason
    assert done.metrics["train_loss"] < 3.0 and done.curve


LOGS = 'wire.send({"type": "log", "step": 9, "loss": 4.5, "tokens": 9000, "progress": 0.5})\n'


def test_training_that_breaks_down_tells_why_and_how_far_it_came(run):
    done = run(OPENING + HELLO + READY + LOGS + "[][9]\n")
    assert done.outcome is Outcome.CRASH and "IndexError" in done.reason, done
    assert 0 < done.provenance.fraction < 1
    assert done.score is None and done.curve and "startup_seconds" in done.metrics
    assert "Traceback" in done.log


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        pytest.param(
            "open('weights.pt', 'wb').write(b'garbage'); run._runner.submit(None, {})",
            "do not load",
            marks=pytest.mark.soak,
        ),
        pytest.param(
            "import os; os.symlink('/etc/hostname', 'weights.pt'); run._runner.submit(None, {})",
            "no plain file",
            marks=pytest.mark.soak,
        ),
    ],
    ids=["garbage", "link"],
)
def test_files_that_are_no_weights_are_invalid(run, expression, reason):
    done = run(submitting(expression))
    assert done.outcome is Outcome.INVALID and reason in done.reason, done


def test_a_trial_again_is_the_same_though_the_scorer_was_killed(run, runner, honest):
    runner._resources.scorer.wait()
    runner._resources.scorer._process.kill()
    runner._resources.scorer._process.wait()
    assert run(toy.TRAIN).score == honest.done.score


def test_an_interrupt_leaves_nothing_alive(run, runner):
    def interrupt(progress):
        if progress.phase == "train":
            raise KeyboardInterrupt

    before = set(psutil.Process().children(recursive=True))  # of other tests
    with pytest.raises(KeyboardInterrupt):
        run(OPENING + HELLO + READY + LOGS + "time.sleep(60)\n", progress=interrupt)
    left = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    assert {p.pid for p in set(left) - before} <= {runner._resources.scorer._process.pid}


def test_missing_data_is_one_clear_message(tmp_path):
    with pytest.raises(UserError, match="no prepared data"):
        make_measurer(tmp_path)


def test_a_scorer_that_does_not_start_is_the_host_s_fault(cache, run):
    runner = make_measurer(cache, score="nanomodel.nothing")
    with pytest.raises(UserError, match="scorer does not start"):
        run(OPENING + HELLO + READY + "time.sleep(60)\n", runner=runner)
    runner.close()


def test_a_suspect_s_witness_is_asked_about_more_windows(runner, tmp_path, monkeypatch):
    """How long that takes is our doing, so it is not held against the candidate."""
    plans = []

    def run_trial(resources, plan, *arguments):
        plans.append(plan)
        return Measurement(Outcome.OK, 1.0, metrics={"score_seconds": 9.0, "memory_mb": 5.0})

    monkeypatch.setattr("autoresearch.tasks.gpt.measurer.run_trial", run_trial)
    assert "score_seconds" in measure(runner, tmp_path, tmp_path).metrics
    assert measure(runner, tmp_path, tmp_path, thorough=True).metrics == {"memory_mb": 5.0}
    assert [plan.probes for plan in plans] == [32, 256]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_trial_beside_spinning_processes_is_not_blamed_for_them(cache, tmp_path):
    """The limits of a quiet machine are kept on one whose cores are all taken twice over."""
    work = "import time; begun = time.process_time()\n    while time.process_time() < begun + 3: pass\n"
    code = toy.write_code(
        tmp_path / "code", altered("    run.submit(model)", f"    {work}    run.submit(model)")
    )
    said = []
    runner = make_measurer(cache, max_seconds=300.0, slowdown=1.1, say=said.append, load=LoadMeter())
    spin = "for i in $(seq $((2 * $(nproc)))); do timeout --foreground 120 yes > /dev/null & done; wait"
    try:
        quiet = measure(runner, code, tmp_path / "quiet").metrics
        others = foreign(spin)
        try:
            spec = TrialSpec("test", 2, "", 1, baseline=quiet)
            busy = runner.measure(code, spec, tmp_path / "busy", lambda sign: None)
            half = replace(spec, baseline={"train_seconds": 1.0, "cpu_seconds": 1.0})
            slow = runner.measure(code, half, tmp_path / "slow", lambda sign: None)
        finally:
            os.killpg(others, signal.SIGKILL)
    finally:
        runner.close()
    assert busy.outcome is Outcome.OK and not said, busy.reason
    assert slow.outcome is Outcome.CRASH and OWN_TIMEOUT.match(slow.reason), slow.reason
    if busy.metrics["train_seconds"] < 1.1 * quiet["train_seconds"] + 1:
        pytest.skip("the others did not make it slow enough to show anything")


def foreign(script):
    """Start a shell script as somebody else does, no child of ours; returns its process group."""
    command = ["bash", "-c", 'setsid bash -c "$0" > /dev/null 2>&1 & echo $!; disown', script]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout)
