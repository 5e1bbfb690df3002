"""Processes that are kept ready: new for each trial, without candidates' code until then, gone at the end."""

import os
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.execute.sandbox import Limits, create_sandbox
from autoresearch.store.files import digest
from autoresearch.tasks.gpt.processes import Standby
from autoresearch.tasks.gpt.settings import LaunchOptions
from autoresearch.types import Outcome
from tests.support import toy
from tests.support.candidates import HELLO, OPENING
from tests.support.gpt import SETTINGS, make_measurer, measure

pytestmark = pytest.mark.slow

SCRIPT = "nanomodel/train.py"
LIMITS = Limits(memory_gb=4.0, processes=64, file_gb=0.5, open_files=128)
OPTIONS = LaunchOptions(create_sandbox("auto"), SETTINGS, False, "", lambda folder: None)


@pytest.fixture
def quick(cache, tmp_path):
    """A runner whose next trial finds its processes ready."""
    trusted = toy.write_code(tmp_path / "trusted")
    runner = make_measurer(cache, trusted=trusted, standby=tmp_path / "standby", editable=(SCRIPT,))
    yield runner
    runner.close()


@pytest.fixture
def standby(tmp_path):
    """Without a measurer, and so without a scorer."""
    trusted = toy.write_code(tmp_path / "trusted")
    standby = Standby(OPTIONS, tmp_path / "standby", trusted, [SCRIPT])
    yield standby
    standby.close()


@pytest.fixture
def run(quick, tmp_path):
    count = 0

    def run(source, **options):
        nonlocal count
        count += 1
        code = toy.write_code(tmp_path / f"{count}/code", source)
        before = digest(code)
        done = measure(quick, code, tmp_path / f"{count}/scratch", **options)
        assert digest(code) == before
        return done

    return run


def waiting(place):
    """Processes whose code lies below a place."""
    found = []
    for process in psutil.process_iter(["environ", "status"]):
        path = (process.info["environ"] or {}).get("PYTHONPATH", "")
        if path.startswith(str(place)) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def test_a_trial_on_standby_is_a_trial(run, quick, honest, tmp_path, monkeypatch):
    standby, taken, asked = quick._resources.standby, [], []
    standby.prepare()
    take = standby.begin
    monkeypatch.setattr(standby, "begin", lambda code: taken.append(take(code)) or taken[-1])
    monkeypatch.setattr(standby, "prepare", lambda: asked.append("the next trial's processes"))
    warm, cold = run(toy.TRAIN), honest.done
    assert taken[0] is not None, "the trial has found processes that were ready"
    assert asked, "and asks for those of the next"
    assert (warm.outcome, warm.score, warm.curve[-1][0]) == (cold.outcome, cold.score, cold.curve[-1][0])
    assert [name for name, _, _ in warm.phases] == ["startup", "warmup", "train", "score"]
    assert all(start <= end for _, start, end in warm.phases)
    assert (tmp_path / "1/scratch/train/weights.pt").exists()
    assert not taken[0].code.parent.exists()


def test_no_trial_finds_what_another_left(run, quick, monkeypatch):
    """Each trial leaves marks wherever it can write; the next one must find none."""
    marks = """
import glob
def look():
    found = [os.getpid()]
    for folder in (os.getcwd(), os.environ["TMPDIR"], "/tmp", "/dev/shm"):
        found += glob.glob(folder + "/mark*")
        open(f"{folder}/mark{os.getpid()}", "w").close()
    return found
print("found", look()[1:], "argv", sys.argv[1:], __name__, "train" in __file__)
"""
    standby = quick._resources.standby
    standby.prepare()
    for number in (1, 2):
        if number == 2:
            monkeypatch.setattr(standby, "prepare", lambda: None)  # there is no third
        done = run(OPENING + marks + HELLO + "sys.exit(3)")
        assert "found [] argv [] __main__ True" in done.log
        assert done.reason.startswith("ended with status 3")


def test_processes_kept_ready_have_run_no_candidate(standby, tmp_path):
    standby.prepare()
    ready = standby._next.result()
    try:
        assert not (ready.code / SCRIPT).exists()
        assert ready.trainer.wire.recv(60)[0] == {"type": "standby"}
        assert [server.wire.recv(60)[0]["type"] for server in ready.servers] == ["hello"] * 2
        assert all(process.alive for process in (ready.trainer, *ready.servers))
    finally:
        standby.close()
    assert waiting(tmp_path / "standby") == []
    assert not any((tmp_path / "standby").glob("*"))


def test_a_candidate_that_differs_elsewhere_gets_its_own_processes(standby, tmp_path):
    """What waits comes from the trusted tree; one that differs in more than the script is run as it is."""
    standby.prepare()
    code = toy.write_code(tmp_path / "code")
    (code / "nanomodel/more.py").write_text("")
    assert standby.begin(code) is None
    assert waiting(tmp_path / "standby") == []


def test_dead_processes_are_not_used(standby, tmp_path):
    standby.prepare()
    standby._next.result().trainer._jailed.kill()
    assert standby.begin(toy.write_code(tmp_path / "code")) is None
    assert standby.begin(tmp_path / "code") is None, "and there is no other yet"


def test_what_a_killed_runner_left_is_removed(tmp_path):
    for owner in (999999999, os.getpid()):  # numbers come again, after a reboot or in a new container
        (tmp_path / f"standby/{owner}-1/7/code").mkdir(parents=True)
    Standby(OPTIONS, tmp_path / "standby", Path(), []).close()
    assert list((tmp_path / "standby").iterdir()) == []


@pytest.mark.soak
def test_frozen_code_that_changes_in_the_waiting_tree_is_noticed(run, quick, tmp_path):
    quick._resources.standby.prepare()

    def meddle(progress):
        for tree in (tmp_path / "standby").glob("*/*/code/nanomodel"):
            (tree / "harness.py").write_text("")

    done = run(toy.TRAIN, progress=meddle)
    assert (done.outcome, done.score) == (Outcome.INVALID, None)
    assert "frozen code changed" in done.reason


@pytest.mark.soak
def test_an_interrupt_leaves_no_process_waiting(run, quick, tmp_path):
    quick._resources.standby.prepare()

    def interrupt(progress):
        if progress.phase == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy.TRAIN, progress=interrupt)
    quick._resources.standby.close()
    deadline = time.monotonic() + 60
    while (left := jailed(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def jailed(place):
    """Of those whose code lies there all but the scorer, which lives as long as the runner."""
    return [process for process in waiting(place) if "score" not in " ".join(process.cmdline())]
