"""The executor `ray` on a real cluster: the contract, lost workers and nodes, and a killed driver.

A cluster takes seconds to start, so all tests of this file share one.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
import pytest

from autoresearch.config import load
from autoresearch.execute.base import Executor, Finished, Progressed, Started
from autoresearch.execute.ray import RayExecutor
from autoresearch.execute.remote import places_told
from autoresearch.execute.worker.messages import Setup
from autoresearch.search.setup import create
from autoresearch.search.setup.doctor import examine
from autoresearch.search.setup.open import open_search
from autoresearch.testing.executors import (
    SCRIPTED,
    ExecutorContract,
    events_until_finished,
    scripted_spec,
    write_files,
)
from tests.support import toy_task
from tests.support.engine_searches import HERE, outcome, run, settings
from tests.support.ray_cluster import cluster, require_ray
from tests.support.stub import git

pytestmark = [pytest.mark.slow, pytest.mark.soak]  # a real cluster: continuous integration has one

KILLS = int(os.environ.get("KILLS", "5"))
"""How many workers, nodes and drivers the endurance test kills."""
SECONDS = 120.0
"""How long anything may take on a busy machine."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster on whose nodes the toy task is installed."""
    require_ray()
    site, root = tmp_path_factory.mktemp("site"), Path(__file__).parents[3]
    with pytest.MonkeyPatch.context() as patch:
        toy_task.install(patch, site)
        patch.setenv("PYTHONPATH", f"{site}:{root}")
        with cluster(3, 1) as made:
            yield made


def executor_of(made: Any, runs: Path, places: int | None) -> RayExecutor:
    given = [f"executor.workers={places}"] if places else []
    config = load(["executor=ray", f"executor.cache={runs}-cache", *given], {}, own_file=False)
    options = {"address": made.address, "start_seconds": SECONDS}
    executor = RayExecutor(
        Setup("one", SCRIPTED), config.executor.model_copy(update=options), runs, write_files
    )
    if places:
        wait_until(lambda: len(executor.places) == places)
    return executor


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def next_event(events: SimpleQueue[Any], kind: type) -> Any:
    while not isinstance(event := events.get(timeout=SECONDS), kind):
        assert not isinstance(event, Finished), event
    return event


class TestRayExecutor(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, shared: Any) -> None:
        self.cluster = shared

    def make(self, runs: Path, places: int) -> Executor:
        return executor_of(self.cluster, runs, places)


def actor_pids() -> dict[int, psutil.Process]:
    """Processes of workers on this machine."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.cmdline()[:1] == ["ray::_Actor"] or "_Actor" in " ".join(process.cmdline()[:1]):
                found[process.pid] = process
        except psutil.Error:
            continue
    return found


def test_the_same_search_has_the_same_result_as_on_this_machine(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, verdicts and branch are the same."""
    monkeypatch.setattr(create.secrets, "token_hex", lambda size: "ab" * size)
    far = ["executor=ray", f"executor.address={shared.address}", f"executor.cache={tmp_path / 'cache'}"]
    found = []
    for name, engine in (("here", HERE), ("there", (*far, "executor.workers=1"))):
        root = toy_task.make_repository(tmp_path / name)
        monkeypatch.chdir(root)
        with open_search(settings(tmp_path, *engine), "quiet") as search:
            search.run()
            told = places_told(root / "runs" / "x")
            assert bool(told) == (name == "there") and all("1 place: " in line for line in told)
            places = {t.place for e in search.journal.experiments() for t in e.trials}
        found.append(outcome(root))
    assert found[0] == found[1] and all(":cpu:" in place for place in places)
    assert "LEVEL = 1.9" in git(root, "show", f"autoresearch/x:{toy_task.PATH}")


def test_doctor_tries_places_and_compares_their_scores(
    shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = toy_task.make_repository(tmp_path / "repo")
    monkeypatch.chdir(root)
    far = ["executor=ray", f"executor.address={shared.address}", f"executor.cache={tmp_path / 'cache'}"]
    lines = list(examine(["task.name=toy", "sandbox=none", *far], root, lambda text: None, quick=False))
    found = dict(lines)
    assert (
        found["places"] == "4 ready" and found["agreement"] == "the same seed gave the same score everywhere"
    )
    place = next(text for heading, text in lines if ":cpu:" in heading)
    assert place.endswith("sandbox none") and "MB of data and code were sent" in found["start-up"]
    assert "executor.workers" not in found["for a night"]
    assert not list((root / "runs").glob("check-*"))


@pytest.mark.soak
def test_workers_and_nodes_may_die_and_new_nodes_join(shared: Any, tmp_path: Path) -> None:
    executor = executor_of(shared, tmp_path / "runs", None)
    try:
        wait_until(lambda: len(executor.places) == 4)
        events: SimpleQueue[Any] = SimpleQueue()
        place = executor.places[0].name
        executor.submit(scripted_spec("endless"), place, events)
        next_event(events, Progressed)
        for process in actor_pids().values():
            process.kill()
        assert next_event(events, Started).spec.trial == 1, "it runs again"
        wait_until(lambda: len(executor.places) == 4)
        node = shared.add_node(num_cpus=1)
        wait_until(lambda: len(executor.places) == 5)
        fresh = next(p.name for p in executor.places if node.node_id[:4] in p.name)
        executor.submit(scripted_spec("endless", trial=2), fresh, events)
        while next_event(events, Started).place != fresh:
            pass
        shared.remove_node(node, allow_graceful=False)
        while (event := next_event(events, Started)).spec.trial != 2:
            pass
        assert event.place != fresh, "it runs at a place that there is"
        assert fresh not in {place.name for place in executor.places}
        executor.cancel("one", [1, 2])
        assert [events_until_finished(events)[-1].result for _ in range(2)] == [None, None]
    finally:
        executor.close()
    wait_until(lambda: not actor_pids())


def test_without_the_token_nobody_gets_in(shared: Any) -> None:
    code = f"import ray; ray.init(address={shared.address!r}, logging_level='error'); print(ray.nodes())"
    known = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
    for token in ({}, {"RAY_AUTH_TOKEN": "0" * 64}):
        environment = {**known, **token, "HOME": "/nonexistent"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, timeout=SECONDS
        )
        assert done.returncode != 0 and b"NodeID" not in done.stdout


DRIVER = """
import sys, time
from pathlib import Path
from queue import SimpleQueue
from autoresearch.config import load
from autoresearch.execute.ray import RayExecutor
from autoresearch.execute.worker.messages import Setup
from autoresearch.testing.executors import SCRIPTED, scripted_spec, write_files

runs = Path(sys.argv[1])
config = load(["executor=ray", "executor.workers=2", f"executor.cache={runs}-cache", *sys.argv[2:]], {})
executor = RayExecutor(Setup("one", SCRIPTED), config.executor, runs, write_files)
executor.submit(scripted_spec("endless"), executor.places[0].name, SimpleQueue())
print("running", flush=True)
time.sleep(600)
"""


def driver(runs: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """A process that runs an endless trial."""
    command = [sys.executable, "-c", DRIVER, str(runs), *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"running\n"
    return process


def test_a_killed_driver_leaves_no_worker(shared: Any, tmp_path: Path) -> None:
    process = driver(tmp_path / "runs", f"executor.address={shared.address}")
    assert actor_pids()
    process.kill()
    process.wait()
    wait_until(lambda: not actor_pids())


@pytest.mark.soak
def test_ray_that_a_driver_started_listens_on_the_loopback_only_and_ends_with_it(tmp_path: Path) -> None:
    require_ray()
    process = driver(tmp_path / "runs")
    ours = psutil.Process(process.pid).children(recursive=True)
    assert len(ours) > 3
    sockets = [c for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert sockets and {c.laddr.ip for c in sockets} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ours))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_random_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    """Workers and nodes die at random while trials run: each trial ends once, with its own score."""
    require_ray()
    dice = random.Random(KILLS)
    with cluster() as made:
        nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        executor = executor_of(made, tmp_path / "runs", None)
        try:
            wait_until(lambda: len(executor.places) == 2)
            events: SimpleQueue[Any] = SimpleQueue()
            ends: list[Finished] = []
            for kill in range(KILLS):
                for number in range(2):
                    trial = 2 * kill + number
                    spec = scripted_spec(f"sleep 1 {trial}", trial=trial)
                    executor.submit(spec, executor.places[0].name if executor.places else "", events)
                time.sleep(dice.random() * 1.5)
                if dice.random() < 0.5 and (alive := list(actor_pids().values())):
                    dice.choice(alive).kill()
                else:
                    nodes.append(made.add_node(num_cpus=1))
                    made.remove_node(nodes.pop(0), allow_graceful=False)
                while len(ends) < 2 * (kill + 1):
                    if isinstance(event := events.get(timeout=SECONDS), Finished):
                        ends.append(event)
            assert sorted(end.spec.trial for end in ends) == list(range(2 * KILLS))
            assert all(end.result.score == end.spec.trial for end in ends)  # type: ignore[union-attr]
            assert events.empty() or not any(isinstance(e, Finished) for e in drained(events))
        finally:
            executor.close()
        wait_until(lambda: not actor_pids())


RUNNER = """
import sys
from autoresearch.search.setup import create
from tests.support.engine_searches import run

create.secrets.token_hex = lambda size=4: "ab" * size  # seeds of programs
run(sys.argv[1:])
"""


@pytest.mark.soak
@pytest.mark.timeout(600 + 60 * KILLS)
def test_whatever_is_killed_a_search_ends_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search, a worker, a node, or the cluster's controller, which takes the whole cluster along."""
    require_ray()
    (tmp_path / "site").mkdir()
    toy_task.install(monkeypatch, tmp_path / "site", toy_task.SlowToyTask)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{Path(__file__).parents[3]}")
    monkeypatch.setattr(create.secrets, "token_hex", lambda size=4: "ab" * size)
    monkeypatch.chdir(toy_task.make_repository(tmp_path / "here"))
    run(settings(tmp_path, *HERE))
    expected, chance = outcome(tmp_path / "here"), random.Random(KILLS)
    kinds = ("runner", "worker", "node", "controller")
    left = [kinds[i % len(kinds)] for i in range(KILLS)]
    with ExitStack() as stack:
        made = stack.enter_context(cluster(1, 1))
        while left:
            root = toy_task.make_repository(tmp_path / f"repo{len(left)}")
            runner = started(root, tmp_path, made)
            while runner.poll() is None or runner.returncode:
                time.sleep(chance.uniform(0.5, 4.0))
                assert runner.poll() in (None, 0), f"the search failed by itself: {runner.args}"
                if runner.poll() == 0 or not left:
                    continue
                if left[0] == "worker" and not (workers := list(actor_pids().values())):
                    continue  # a little later
                kind = left.pop(0)
                if kind == "worker":
                    chance.choice(workers).kill()
                elif kind == "node":
                    made.remove_node(chance.choice(sorted(made.worker_nodes, key=str)), allow_graceful=False)
                    made.add_node(num_cpus=1)
                else:
                    runner.kill()
                    runner.wait()
                    if kind == "controller":
                        made.head_node.kill_gcs_server(check_alive=False)
                        stack.pop_all().close()
                        made = stack.enter_context(cluster(1, 1))
                    runner = started(root, tmp_path, made)
            assert outcome(root) == expected
            wait_until(lambda: not actor_pids())


def started(root: Path, folder: Path, made: Any) -> subprocess.Popen[bytes]:
    """Start the search, or go on with it, in a process of its own."""
    far = ["executor=ray", f"executor.address={made.address}", f"executor.cache={folder / 'cache'}"]
    command = [sys.executable, "-c", RUNNER, *settings(folder, *far, "executor.workers=1")]
    return subprocess.Popen(command, cwd=root)


def drained(events: SimpleQueue[Any]) -> list[Any]:
    """All events that have come."""
    found = []
    while not events.empty():
        found.append(events.get())
    return found
