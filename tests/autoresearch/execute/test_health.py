"""What a GPU says of itself, told by a module that plays `pynvml`; and what follows for a trial."""

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute import health, retry
from autoresearch.execute.health import Health
from autoresearch.execute.places import fingerprint, places
from autoresearch.execute.retry import repeat_spoiled, watch_gpu
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.search.setup import open as launch
from autoresearch.search.setup.open import tell_protection
from autoresearch.tasks.gpt.program import environment, one_gpu
from autoresearch.types import Measurement, Outcome, Progress
from tests.support import toy
from tests.support.fake_nvml import FakeNvml
from tests.support.gpt import make_measurer, measure
from tests.support.stub import Silent


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose driver says what a test lets it say."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml()
    nvml.install(monkeypatch)
    return nvml


@pytest.fixture
def often(monkeypatch):
    """Trials here are far shorter than the time between two looks."""
    monkeypatch.setattr(health, "FIRST", 0.05)
    monkeypatch.setattr(health, "EVERY", 0.1)


def test_a_reading(gpu):
    found = Health.find("cuda:1").read()
    assert (found.temperature, found.clock, found.top_clock) == (61.0, 1755.0, 1980.0)
    assert (found.slowed, found.strangers) == ("", ())
    assert gpu.asked == [1]


def test_visible_devices_are_counted_as_cuda_counts_them(gpu, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-bb")
    assert Health.find("cuda:1")._handle == 1
    assert Health.find("cuda")._handle == 3


def test_cuda_and_the_driver_mean_the_same_gpu_where_none_is_named(gpu, tmp_path):
    """By itself CUDA counts the fastest first, and the driver by place."""
    (where,) = places(load(["executor.device=cuda", "name=x"], {})).values()
    _, only = one_gpu(where)
    assert environment(tmp_path, 1, only)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    Health.find(where)
    assert only == "0" and gpu.asked == [0]


@pytest.mark.parametrize(
    ("bits", "why"), [(0x1, ""), (0x4, ""), (0x8, "hardware slowdown"), (0x60, "heat"), (0x80, "power brake")]
)
def test_reasons_for_throttling(gpu, bits, why):
    gpu.says(reasons=bits)
    assert Health.find("cuda").read().slowed == why


def test_what_the_driver_does_not_tell_spoils_no_trial(gpu):
    gpu.says(temperature=None, clock=None, reasons=None)
    found = Health.find("cuda").read()
    assert (found.clock, found.slowed) == (0.0, "")


def test_strangers_are_processes_that_are_not_ours(gpu):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gpu.says(pids=[os.getpid(), child.pid, os.getppid(), 99999999])
    assert Health.find("cuda").read().strangers == (os.getppid(),)
    child.communicate()


def test_a_gpu_that_does_not_answer(gpu, monkeypatch):
    found = Health.find("cuda")
    gpu.says(lost="GPU is lost")
    with pytest.raises(UserError, match="GPU is lost"):
        found.read()
    assert Health.find("cuda") is None and Health.find("cuda:7") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Health.find("cuda") is None


def test_a_driver_that_hangs_is_not_waited_for(gpu, monkeypatch):
    found, answer = Health.find("cuda"), threading.Event()
    monkeypatch.setattr(found, "_read", answer.wait)
    monkeypatch.setattr(health, "ANSWER_SECONDS", 0.05)
    with pytest.raises(UserError, match="has not answered"):
        found.read()
    answer.set()


def test_a_device_has_a_fingerprint(gpu):
    fingerprint.cache_clear()
    assert fingerprint("cuda:0") == "NVIDIA Fake"
    assert fingerprint("cpu") not in ("", "cuda")
    fingerprint.cache_clear()


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
def runner(cache, gpu):
    runner = make_measurer(cache, health=Health.find("cuda"))
    yield runner
    runner.close()


@pytest.fixture
def run(runner, tmp_path):
    def run(progress=lambda sign: None, source=SLOW):
        code = toy.write_code(tmp_path / "code", source)
        return measure(runner, code, tmp_path / "scratch", progress)

    return run


def check_told(done):
    assert done.outcome is Outcome.OK and "repeated" not in done.metrics, done
    assert done.metrics["gpu_temperature"] == 61 and done.metrics["clock_mhz"] == 1755
    assert done.metrics["gpu_slowed"] == done.metrics["gpu_strangers"] == 0


@pytest.mark.soak
def test_a_good_trial_tells_how_the_gpu_was(run, often):
    check_told(run())


def test_a_good_attempt_tells_how_the_gpu_was(gpu, often):
    looked = threading.Event()

    def attempt(seen):
        seen(Progress(0.0, 0.0, phase="train"))
        assert looked.wait(60)
        return Measurement(Outcome.OK, 1.0)

    found = Health.find("cuda")
    read = found.read
    found.read = lambda: (read(), looked.set())[0]
    done, why = watch_gpu(found, attempt, print)
    check_told(done)
    assert why == ""


@pytest.mark.soak
def test_a_trial_on_a_shared_gpu_is_done_again(run, gpu, often):
    gpu.says(pids=[os.getppid()])
    trained = 0

    def mend(sign):
        nonlocal trained
        if sign.phase == "score":
            trained += 1
            time.sleep(0.3)  # the last look is over
            gpu.says()

    done = run(mend)
    assert done.outcome is Outcome.OK and done.score is not None, done
    assert trained == 2 and done.metrics["repeated"] == 1 and done.metrics["gpu_slowed"] == 0
    assert [name for name, _, _ in done.phases] == ["startup", "warmup", "train", "score"] * 2


@pytest.mark.soak
def test_under_a_budget_of_tokens_a_slow_gpu_makes_it_be_repeated_once(run, gpu, often):
    gpu.says(reasons=0x60)
    done = run()
    assert done.score is not None and done.metrics["repeated"] == 1 and done.metrics["gpu_slowed"] > 0


@pytest.mark.soak
def test_a_gpu_that_falls_off_is_the_host_s_fault(run, gpu):
    """The script dies at once, long before anybody would have looked."""
    gpu.says(lost="GPU is lost")
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
def test_after_a_crash_somebody_looks_however_early_it_was(gpu, phase):
    found = Health.find("cuda")
    assert watch_gpu(found, died(phase), print)[1] == ""  # it did that to itself
    gpu.says(pids=[os.getppid()])
    assert "other processes used the GPU" in watch_gpu(found, died(phase), print)[1]
    gpu.says(lost="GPU is lost")
    with pytest.raises(UserError, match="GPU is lost"):
        watch_gpu(found, died(phase), print)


def test_a_crash_while_the_gpu_was_away_does_not_count(gpu, often):
    def attempt(seen):
        gpu.says(lost="GPU is lost")
        seen(Progress(0.0, 0.0))
        time.sleep(0.3)  # the watch has looked
        gpu.says()
        return Measurement(Outcome.CRASH, reason="GPU error: launch failure")

    assert "GPU is lost" in watch_gpu(Health.find("cuda"), attempt, print)[1]


@pytest.mark.soak
def test_a_tryout_beside_a_stranger_on_the_gpu_refuses_nothing(runner, gpu, tmp_path):
    gpu.says(pids=[os.getppid()])
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
        return repeat_spoiled(self, timed=timed, say=self.said.append, progress=self.signs.append)


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(retry, "PAUSES", (0.0, 0.02, 0.02))


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
        repeat_spoiled(Attempts(9), timed=True, say=print, progress=leave)
