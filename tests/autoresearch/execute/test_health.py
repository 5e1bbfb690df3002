"""What a GPU says of itself, told by a program that plays `nvidia-smi`; and what follows for a trial."""

import os
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute import health
from autoresearch.execute import retry as repeat
from autoresearch.execute.health import Health
from autoresearch.execute.places import places
from autoresearch.execute.retry import unspoiled, watched
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.search import setup as launch
from autoresearch.search.setup import tell_protection
from autoresearch.tasks.gpt.process import environment, one_gpu
from autoresearch.types import Measurement, Outcome, Progress
from tests.support import toy
from tests.support.gpt import make_measurer, measure
from tests.support.stub import Silent

SMI = """#!/bin/sh
folder=$(dirname "$0")
echo "$@" >> "$folder/asked"
case "$*" in
  *query-gpu*) cat "$folder/gpu" ;;
  *query-compute-apps*) cat "$folder/apps" ;;
esac
exit $(cat "$folder/status")
"""
FINE = "GPU-1, 61, 1755, 1980, 0x0000000000000004\n"
HOT = "GPU-1, 91, 990, 1980, 0x0000000000000060\n"


class Smi:
    """A GPU of our own making."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "nvidia-smi").write_text(SMI)
        (folder / "nvidia-smi").chmod(0o755)
        self.says(FINE)

    def says(self, gpu, apps="", status=0):
        for name, text in {"gpu": gpu, "apps": apps, "status": str(status)}.items():
            (self.folder / f"{name}.new").write_text(text)
            (self.folder / f"{name}.new").rename(self.folder / name)


@pytest.fixture
def smi(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Smi(tmp_path / "bin")


@pytest.fixture
def often(monkeypatch):
    """Trials here are far shorter than the time between two looks."""
    monkeypatch.setattr(health, "FIRST", 0.05)
    monkeypatch.setattr(health, "EVERY", 0.1)


def test_a_look(smi):
    found = Health.find("cuda:1").look()
    assert (found.temperature, found.clock, found.top_clock) == (61.0, 1755.0, 1980.0)
    assert (found.slowed, found.strangers) == ("", ())
    assert "--id=1" in (smi.folder / "asked").read_text()


def test_visible_devices_are_those_that_torch_counts(smi, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    Health.find("cuda:1")
    Health.find("cuda")
    asked = (smi.folder / "asked").read_text()
    assert "--id=GPU-abc" in asked and "--id=3" in asked


def test_torch_and_nvidia_smi_mean_the_same_gpu_where_none_is_named(smi):
    """By itself torch counts the fastest first, and nvidia-smi by place."""
    (where,) = places(load(["executor.device=cuda", "name=x"], {})).values()
    _, only = one_gpu(where)
    assert environment(smi.folder, 1, only)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    Health.find(where)
    assert only == "0" and "--id=0" in (smi.folder / "asked").read_text()


@pytest.mark.parametrize(
    ("bits", "why"),
    [("0x1", ""), ("0x4", ""), ("0x8", "hardware slowdown"), ("0x60", "heat"), ("0x80", "power brake")],
)
def test_reasons_for_throttling(smi, bits, why):
    smi.says(f"GPU-1, 61, 1755, 1980, {bits}\n")
    assert Health().look().slowed == why


def test_what_is_not_known_is_no_trouble(smi):
    smi.says("GPU-1, [N/A], [N/A], 1980, [Not Supported]\n")
    found = Health().look()
    assert (found.clock, found.slowed) == (0.0, "")


def test_strangers_are_those_that_are_not_ours(smi):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    apps = f"GPU-1, {os.getpid()}\nGPU-1, {child.pid}\nGPU-1, {os.getppid()}\nGPU-2, 1\nGPU-1, 99999999\n"
    smi.says(FINE, apps)
    assert Health().look().strangers == (os.getppid(),)
    child.communicate()


def test_a_gpu_that_does_not_answer(smi):
    smi.says("Unable to determine the device handle: GPU is lost. Reboot the system.\n", status=15)
    with pytest.raises(UserError, match="GPU is lost"):
        Health().look()
    assert Health.find("cuda") is None
    assert Health.find("cuda", "no-such-program") is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_search_says_whether_cuda_answers_inside_the_sandbox(device):
    view = Silent()
    tell_protection(load([f"executor.device={device}", "name=x"], {}), create_sandbox("auto"), view)
    assert any(line.startswith("GPU: ") for line in view.said) == (device == "cuda")


@pytest.mark.parametrize(
    "answer", ["CUDA answers outside the sandbox (1) but not inside: 304", "CUDA answers inside"]
)
def test_a_gpu_that_no_trial_could_use_is_found_at_the_start(monkeypatch, answer):
    monkeypatch.setattr(launch, "describe_gpu", lambda sandbox: answer)
    config = load(["executor.device=cuda", "budget=gpu_5min", "name=x"], {})
    with pytest.raises(UserError) if "outside" in answer else nullcontext():
        tell_protection(config, create_sandbox("auto"), Silent())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return toy.write_cache(tmp_path_factory.mktemp("data") / "cache", train=50_000, validation=1_501)


SLOW = toy.TRAIN.replace("        step += 1\n", "        step += 1\n        __import__('time').sleep(0.05)\n")


@pytest.fixture
def runner(cache, smi):
    runner = make_measurer(cache, health=Health.find("cuda"))
    yield runner
    runner.close()


@pytest.fixture
def run(runner, tmp_path):
    def run(progress=lambda sign: None, source=SLOW):
        code = toy.write_code(tmp_path / "code", source)
        return measure(runner, code, tmp_path / "scratch", progress)

    return run


def test_a_good_trial_tells_how_the_gpu_was(run, often):
    done = run()
    assert done.outcome is Outcome.OK and "repeated" not in done.metrics, done
    assert done.metrics["gpu_temperature"] == 61 and done.metrics["gpu_clock_mhz"] == 1755
    assert done.metrics["gpu_slowed"] == done.metrics["gpu_strangers"] == 0


@pytest.mark.soak
def test_a_trial_on_a_shared_gpu_is_done_again(run, smi, often):
    smi.says(FINE, f"GPU-1, {os.getppid()}\n")
    trained = 0

    def mend(sign):
        nonlocal trained
        if sign.phase == "score":
            trained += 1
            time.sleep(0.3)  # the last look is over
            smi.says(FINE)

    done = run(mend)
    assert done.outcome is Outcome.OK and done.score is not None, done
    assert trained == 2 and done.metrics["repeated"] == 1 and done.metrics["gpu_slowed"] == 0
    assert [name for name, _, _ in done.phases] == ["startup", "warmup", "train", "score"] * 2


@pytest.mark.soak
def test_under_a_budget_of_tokens_a_slow_gpu_makes_it_be_repeated_once(run, smi, often):
    smi.says(HOT)
    done = run()
    assert done.score is not None and done.metrics["repeated"] == 1 and done.metrics["gpu_slowed"] > 0


@pytest.mark.soak
def test_a_gpu_that_falls_off_is_the_host_s_fault(run, smi):
    """The script dies at once, long before anybody would have looked."""
    smi.says("GPU is lost\n", status=15)
    step = "        step += 1\n"
    with pytest.raises(UserError, match="GPU is lost"):
        run(
            source=toy.TRAIN.replace(
                step, f"{step}        raise RuntimeError('CUDA error: launch failure')\n"
            )
        )


def died(phase):
    """An attempt that dies as soon as it has come to a phase."""

    def attempt(seen):
        seen(Progress(0.0, 0.0, phase=phase))
        return Measurement(Outcome.CRASH, reason="out of memory: CUDA error")

    return attempt


@pytest.mark.parametrize("phase", ["start-up", "train", "score"])
def test_after_a_crash_somebody_looks_however_early_it_was(smi, phase):
    found = Health.find("cuda")
    assert watched(found, died(phase), print)[1] == ""  # it did that to itself
    smi.says(FINE, f"GPU-1, {os.getppid()}\n")
    assert "other processes used the GPU" in watched(found, died(phase), print)[1]
    smi.says("GPU is lost\n", status=15)
    with pytest.raises(UserError, match="GPU is lost"):
        watched(found, died(phase), print)


def test_a_crash_while_the_gpu_was_away_does_not_count(smi, often):
    def attempt(seen):
        smi.says("GPU is lost\n", status=15)
        seen(Progress(0.0, 0.0))
        time.sleep(0.3)  # the watch has looked
        smi.says(FINE)
        return Measurement(Outcome.CRASH, reason="GPU error: launch failure")

    assert "GPU is lost" in watched(Health.find("cuda"), attempt, print)[1]


@pytest.mark.soak
def test_a_tryout_beside_a_stranger_on_the_gpu_refuses_nothing(runner, smi, tmp_path):
    smi.says(FINE, f"GPU-1, {os.getppid()}\n")
    code = toy.write_code(
        tmp_path / "code", toy.TRAIN.replace("    run.start()\n", "    raise MemoryError\n")
    )
    assert runner.tryout(code, tmp_path / "scratch").outcome is Outcome.OK


class Attempts:
    """Attempts of which so many are spoiled, and what is said and heard meanwhile."""

    def __init__(self, spoiled, outcome=Outcome.OK):
        self.left, self.outcome, self.made = spoiled, outcome, 0
        self.said, self.signs = [], []

    def __call__(self):
        self.made += 1
        self.left -= 1
        score = 1.0 if self.outcome is Outcome.OK else None
        phases = (("train", float(self.made), self.made + 0.5),)
        return Measurement(self.outcome, score, phases=phases), "heat" if self.left >= 0 else ""

    def result(self, timed):
        return unspoiled(self, timed=timed, say=self.said.append, progress=self.signs.append)


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(repeat, "PAUSES", (0.0, 0.02, 0.02))


@pytest.mark.parametrize("spoiled", range(4))
def test_under_a_budget_of_seconds_nothing_is_judged_that_the_gpu_spoiled(spoiled, brief):
    attempts = Attempts(spoiled)
    done = attempts.result(timed=True)
    assert done.metrics == ({"repeated": spoiled} if spoiled else {})
    assert attempts.made == len(done.phases) == spoiled + 1 == len(attempts.said) + 1
    assert (len(attempts.signs) > 0) == (spoiled > 1)  # a pause can be cut short


@pytest.mark.parametrize(("timed", "outcome"), [(True, Outcome.OK), (False, Outcome.CRASH)])
def test_what_does_not_pass_ends_the_search_with_what_to_do(timed, outcome, brief):
    attempts = Attempts(99, outcome)
    with pytest.raises(UserError, match="4 times in a row a trial did not count: heat") as told:
        attempts.result(timed)
    assert told.value.code == 3 and "same command" in told.value.hint and attempts.made == 4


def test_a_pause_ends_with_whoever_waits_for_it():
    def leave(sign):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unspoiled(Attempts(9), timed=True, say=print, progress=leave)
