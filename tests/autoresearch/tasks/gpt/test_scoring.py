"""When the trusted side fails: who is blamed, who waits, and what is done again."""

import contextlib
import gc
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.tasks.gpt import scorer, scoring, trial
from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.tasks.gpt.settings import TRYOUT_SCORE_SECONDS, TrainingBudget, TrialPlan
from autoresearch.types import Outcome
from tests.support import toy
from tests.support.candidates import HELLO, READY, write_script
from tests.support.gpt import make_measurer, measure

pytestmark = pytest.mark.slow

DIES = """    weights, *sockets = fds
    died = Path("died")
    died.write_text(died.read_text() + "x" if died.exists() else "x")
    if len(died.read_text()) <= TIMES:
        os.kill(os.getpid(), 9)
"""


@pytest.fixture
def run(cache, tmp_path):
    """One trial or tryout of the toy, by a runner with these options."""
    runners = []

    def run(how=measure, parts=(), progress=lambda sign: None, **options):
        runners.append(make_measurer(cache, **options))
        code = write_script(tmp_path / "code", *parts) if parts else toy.write_code(tmp_path / "code")
        return how(runners[-1], code, tmp_path / "scratch", progress)

    yield run
    for runner in runners:
        runner.close()


@pytest.mark.soak
@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.OK), (2, Outcome.CRASH)])
def test_a_scorer_that_is_killed_at_work_is_asked_once_more(run, tmp_path, times, outcome):
    trusted = toy.write_code(tmp_path / "trusted")
    script = trusted / "nanomodel/score.py"
    old = "    weights, *sockets = fds\n"
    assert old in script.read_text()
    script.write_text(script.read_text().replace(old, DIES.replace("TIMES", str(times))))
    done = run(trusted=trusted)
    assert done.outcome is outcome, done
    assert (trusted / "died").read_text() == "xx"
    assert (done.score is not None) == (outcome is Outcome.OK)
    assert outcome is Outcome.OK or "the scorer died twice" in done.reason


@pytest.mark.soak
def test_a_trainer_that_starves_the_servers_is_to_blame(run, monkeypatch):
    """Too slow with it and in time without it: as if all processors had been its own."""
    monkeypatch.setattr(scoring, "START_SECONDS", 0.0)
    done = run(GptMeasurer.tryout, (HELLO, READY, "time.sleep(60)"))
    assert done.outcome is Outcome.CRASH and "it kept the model servers" in done.reason, done


@pytest.mark.soak
def test_a_trainer_that_starves_the_scorer_is_to_blame(run, monkeypatch):
    waits = iter([0.0])
    real = scorer.Scorer.wait

    def wait(self):
        monkeypatch.setattr(scorer, "START_SECONDS", next(waits, 200.0))
        real(self)

    monkeypatch.setattr(scorer.Scorer, "wait", wait)
    monkeypatch.setattr(scorer.Scorer, "start", lambda self: None)  # or it is ready by then
    done = run(GptMeasurer.tryout, (HELLO, READY, "time.sleep(60)"))
    assert done.outcome is Outcome.CRASH and "or the scorer from starting" in done.reason, done


@pytest.mark.soak
def test_waiting_for_another_s_job_is_not_time_of_scoring(run, monkeypatch):
    """The last trial of one place waits for the tryout of another; its candidate is not slower for it."""
    held = threading.Event()

    def hold(one):
        with one.reserved():
            held.set()
            threading.Event().wait(1.0)

    def progress(sign):
        if sign.phase == "score":
            threading.Thread(target=hold, args=(made[0],)).start()
            assert held.wait(60)
            made[0].start()  # returns at once, or the trial would never get to its own turn

    made = []
    monkeypatch.setattr(trial.Resources, "prepare_next", lambda self, plan: made.append(self.scorer))
    done = run(progress=progress)
    assert done.outcome is Outcome.OK, done
    [span] = [end - start for name, start, end in done.phases if name == "score"]
    assert span - done.metrics["score_seconds"] > 0.7


def test_a_tryout_is_scored_in_a_short_time():
    plan = TrialPlan(0, TrainingBudget("steps", 4, 9.0), False, 9.0, ("train",), 8)
    assert plan.score_seconds(600.0) == 600.0
    brief = replace(plan, tryout=True)
    assert (brief.score_seconds(600.0), brief.score_seconds(5.0)) == (TRYOUT_SCORE_SECONDS, 5.0)


@pytest.mark.soak
def test_what_reports_progress_may_raise_without_losing_the_weights(run):
    def progress(sign):
        if sign.phase == "score":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(progress=progress)
    gc.collect()
    assert not [path for path in Path("/proc/self/fd").iterdir() if "memfd:weights" in target(path)]


def target(path):
    with contextlib.suppress(OSError):  # that of the listing is gone by now
        return str(path.readlink())
    return ""
