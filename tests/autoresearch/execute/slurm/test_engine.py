"""Jobs of a real Slurm as places: the contract of executors, and no trial is lost with a job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import Executor, Finished, Message, Progressed, Started, TrialSpec
from autoresearch.execute.remote import RemoteExecutor, workers
from autoresearch.execute.remote import executor as remote_executor
from autoresearch.execute.slurm.commands import Slurm
from autoresearch.execute.slurm.engine import Plan, SlurmEngine
from autoresearch.execute.worker.channels import FROM_WORKER
from autoresearch.execute.worker.fence import left_open
from autoresearch.execute.worker.messages import Setup
from autoresearch.testing.executors import (
    SCRIPTED,
    ExecutorContract,
    events_until_finished,
    scripted_spec,
    write_files,
)
from tests.support.faults import in_child
from tests.support.slurm_cluster import Cluster, ended, slurm_cluster, until
from tests.support.waiting import MAKER, begun

pytestmark = [pytest.mark.slow, pytest.mark.soak]  # a real cluster: continuous integration has one


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster(nodes=3, cpus=2) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        patch.setattr(workers, "LOOK_SECONDS", 0.5)
        yield cluster


def make(runs: Path, places: int = 1, maker: str = SCRIPTED, **plan: Any) -> RemoteExecutor:
    cache = runs.parent / f"{runs.name}-cache"
    worker = [sys.executable, "-m", "autoresearch.execute.worker", "--cache", str(cache), "--lease", "10"]
    planned, wanted = Plan(places, worker, poll_seconds=0.3, **plan), left_open(runs / "one")
    engine = SlurmEngine(Slurm({"time": "10"}), runs / "one" / "jobs", planned, wanted)
    executor = RemoteExecutor(Setup("one", maker), engine, runs, write_files, start_seconds=60)
    until(lambda: len(executor.places) == places, "all places are ready")
    return executor


@pytest.mark.usefixtures("cluster")
class TestSlurm(ExecutorContract):
    def make(self, runs: Path, places: int) -> Executor:
        return make(runs, places)


@pytest.fixture
def executor(cluster: Cluster, tmp_path: Path) -> Iterator[RemoteExecutor]:
    cluster.mend()
    executor = make(tmp_path / "runs")
    yield executor
    executor.close()
    assert not cluster.jobs(), cluster.run("squeue", "--states=all")
    assert not (tmp_path / "runs" / "one" / "jobs").exists()


def in_flight(executor: RemoteExecutor, trial: int = 1, place: str = "slurm:0") -> SimpleQueue[Any]:
    """The events of a trial that makes progress."""
    events: SimpleQueue[Any] = SimpleQueue()
    executor.submit(scripted_spec("endless", trial=trial), place, events)
    until_progress(events)
    return events


def until_progress(events: SimpleQueue[Any]) -> None:
    while not (isinstance(event := events.get(timeout=60), Progressed) and event.progress.fraction == 0.5):
        assert not isinstance(event, Finished), event.result


def until_started_again(events: SimpleQueue[Any]) -> list[str]:
    """Wait until a trial has started once more, and makes progress; gives what was told meanwhile."""
    said = []
    while not isinstance(event := events.get(timeout=60), Started):
        assert not isinstance(event, Finished), event.result
        if isinstance(event, Message):
            said.append(event.text)
    until_progress(events)
    return said


def give_up(executor: RemoteExecutor, events: SimpleQueue[Any]) -> None:
    executor.cancel("one", [1])
    assert events_until_finished(events)[-1].result is None


def test_a_cancelled_job_is_an_interruption(
    cluster: Cluster, executor: RemoteExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_executor, "LOSSES", 2)
    monkeypatch.setattr(remote_executor, "TRIES", 2)
    monkeypatch.setattr(workers, "TRIES", 2)
    events = in_flight(executor)
    for _ in range(2):  # however often
        [job] = cluster.jobs()
        cluster.run("scancel", job)
        [said] = until_started_again(events)
        assert f"job {job} (CANCELLED) was cancelled from outside the search" in said
    give_up(executor, events)
    assert not executor.set_aside


def test_a_killed_worker_is_replaced(cluster: Cluster, executor: RemoteExecutor) -> None:
    events = in_flight(executor)
    [worker] = cluster.workers()
    worker.kill()
    [said] = until_started_again(events)
    assert "was ended by Slurm" in said  # FAILED by then, or still COMPLETING
    give_up(executor, events)


def test_queued_again_a_job_goes_on_and_a_copy_that_lives_on_ends(cluster: Cluster, tmp_path: Path) -> None:
    cluster.mend()
    executor = make(tmp_path / "runs", 2)
    try:
        here, there = in_flight(executor), in_flight(executor, trial=2, place="slurm:1")
        first, second = cluster.jobs()
        node = cluster.node_of(first)
        if cluster.node_of(second) != node:
            cluster.run("scontrol", "requeue", second)
        old = cluster.workers()
        cluster.lose_node(node)
        for events in (here, there):
            [said] = until_started_again(events)
            assert "queued again by Slurm" in said
        assert cluster.node_of(first) not in ("", node)
        until(lambda: all(map(ended, old)), "the copies have ended")
        assert len(cluster.workers()) == 2 and sorted(cluster.jobs()) == sorted([first, second])
    finally:
        executor.close()
    assert not cluster.jobs()


def test_a_trial_does_not_notice_that_the_controller_is_restarted(
    cluster: Cluster, executor: RemoteExecutor
) -> None:
    events, before = in_flight(executor), cluster.workers()
    cluster.kill_controller()
    executor.cancel("one", [1])
    executor.submit(scripted_spec("score 3", trial=2), "slurm:0", events)
    assert events_until_finished(events)[-1].result is None
    assert events_until_finished(events)[-1].result.score == 3
    assert cluster.workers() == before
    cluster.start_controller()
    cluster.mend()


def test_a_job_ends_after_so_many_trials(cluster: Cluster, tmp_path: Path) -> None:
    executor = make(tmp_path / "runs", trials_per_job=1)
    try:
        jobs = set()
        for trial in range(3):
            jobs |= set(cluster.jobs())
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("score 1", trial=trial), "slurm:0", events)
            assert events_until_finished(events)[-1].result.score == 1
        assert len(jobs) >= 2 and not executor.set_aside
    finally:
        executor.close()


def test_slurm_refuses_an_option(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="invalid partition"):
        SlurmEngine(Slurm({"partition": "nowhere"}), tmp_path / "jobs", Plan(1, worker=[]))
    assert not (tmp_path / "jobs").exists()


def killed_while(runs: Path, *paths: Path, first: int = 1) -> None:
    """What a runner leaves that is killed while trials wait for these files, each at a place."""

    def work() -> None:
        executor = make(runs, len(paths), MAKER)
        for i, path in enumerate(paths):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(waiting(path, first + i), f"slurm:{i}", events)
            until_progress(events)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == -signal.SIGKILL


def waiting(path: Path, trial: int) -> TrialSpec:
    return scripted_spec(f"{path} 0.5", trial=trial, items=f"losses/{trial}")


def result(executor: RemoteExecutor, spec: TrialSpec, place: str) -> Any:
    events: SimpleQueue[Any] = SimpleQueue()
    executor.submit(spec, place, events)
    return events_until_finished(events)[-1].result


@pytest.mark.parametrize("over", [False, True], ids=["running", "ended meanwhile"])
def test_the_trials_of_a_killed_runner_are_adopted(cluster: Cluster, tmp_path: Path, over: bool) -> None:
    paths, runs, others = (tmp_path / "a", tmp_path / "b"), tmp_path / "runs", {*cluster.jobs()}
    killed_while(runs, *paths)
    killed_while(runs, *paths, first=5)  # and once more
    jobs = {*cluster.jobs()} - others
    assert len(jobs) == 2
    if over:
        for path in paths:
            path.touch()
        said = [folder / "0" / FROM_WORKER for folder in (runs / "one" / "jobs").iterdir()]
        until(lambda: all('"measurement"' in path.read_text() for path in said), "both trials have ended")
    executor = make(runs, 2, MAKER)
    try:
        ends: list[SimpleQueue[Any]] = [SimpleQueue(), SimpleQueue()]
        # The places are the other way round now, and the trials have other numbers.
        executor.submit(waiting(paths[1], 11), "slurm:0", ends[0])
        executor.submit(waiting(paths[0], 12), "slurm:1", ends[1])
        for path in paths:
            path.touch()
        for i, events in enumerate(ends):
            end = events_until_finished(events)[-1].result
            assert end.score == 0.5 and end.items == {"validation": f"losses/{11 + i}/validation.items.npy"}
            assert end.provenance.place == f"slurm:{i}"
            assert (runs / "one" / end.items["validation"]).is_file()
        assert [begun(path) for path in paths] == [1, 1] and {*cluster.jobs()} - others == jobs
        assert result(executor, waiting(paths[0], 13), "slurm:0").score == 0.5
        assert begun(paths[0]) == 2, "a result counts once"
    finally:
        executor.close()
    assert not {*cluster.jobs()} - others


def test_what_nobody_asks_for_again_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    path, other, runs = tmp_path / "a", tmp_path / "b", tmp_path / "runs"
    killed_while(runs, path)
    executor = make(runs, 1, MAKER)
    try:
        other.touch()
        assert result(executor, waiting(other, 2), "slurm:0").score == 0.5
    finally:
        executor.close()


@pytest.mark.soak
def test_jobs_whose_runner_does_not_come_back_end(cluster: Cluster, tmp_path: Path) -> None:
    killed_while(tmp_path / "runs", tmp_path / "a")
    until(lambda: not cluster.jobs(), "the lease is over")
