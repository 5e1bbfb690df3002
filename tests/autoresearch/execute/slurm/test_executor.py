"""Whole searches on a real Slurm end as on this machine, also if everything is killed at random."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute.slurm.executor import SlurmExecutor, sbatch_options
from autoresearch.search.setup import create
from tests.support import toy_task
from tests.support.engine_searches import HERE, outcome, run, settings
from tests.support.slurm_cluster import Cluster, slurm_cluster
from tests.support.stub import git

KILLS = int(os.environ.get("KILLS", "6"))
"""How often something is killed while one search runs."""

KINDS = ("runner", "worker", "node", "job", "requeue", "controller")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster on whose nodes the toy task is installed."""
    site, root = tmp_path_factory.mktemp("site"), Path(__file__).parents[4]
    with slurm_cluster(nodes=3, cpus=2) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        toy_task.install(patch, site, toy_task.SlowToyTask)
        patch.setenv("PYTHONPATH", f"{site}:{root}")
        patch.setattr(create.secrets, "token_hex", lambda size=4: "ab" * size)  # seeds of programs
        yield cluster


def slurm(folder: Path, *further: str) -> list[str]:
    return ["executor=slurm", f"executor.cache={folder / 'cache'}", "executor.poll_seconds=0.5", *further]


@pytest.fixture(scope="module")
def expected(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The outcome of the search on this machine."""
    folder = tmp_path_factory.mktemp("here")
    root = toy_task.make_repository(folder / "repo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run(settings(folder, *HERE))
    assert "LEVEL = 1.9" in git(root, "show", f"autoresearch/x:{toy_task.PATH}")
    return outcome(root)


@pytest.mark.soak
def test_the_same_search_has_the_same_result_as_on_this_machine(
    cluster: Cluster, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = toy_task.make_repository(tmp_path / "repo")
    monkeypatch.chdir(root)
    run(settings(tmp_path, *slurm(tmp_path, "executor.workers=1")))
    assert outcome(root) == expected
    assert not cluster.jobs() and not (root / "runs" / "x" / "jobs").exists()


@pytest.mark.soak
@pytest.mark.timeout(240 + 60 * KILLS)
def test_whatever_is_killed_the_search_ends_as_if_nothing_had_been(
    cluster: Cluster, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, left = random.Random(KILLS), [KINDS[i % len(KINDS)] for i in range(KILLS)]
    while left:
        folder = tmp_path / str(len(left))
        folder.mkdir()
        root = toy_task.make_repository(folder / "repo")
        monkeypatch.chdir(root)
        overrides = settings(folder, *slurm(folder, "executor.workers=1"))
        left = disturbed(cluster, root, overrides, chance, left)
        assert outcome(root) == expected
        assert not cluster.jobs() and not (root / "runs" / "x" / "jobs").exists()


def disturbed(
    cluster: Cluster, root: Path, overrides: Sequence[str], chance: random.Random, left: Sequence[str]
) -> list[str]:
    """Run a search to its end while things are killed; gives what is left to be killed."""
    runner, left = start(root, overrides), list(left)
    while not ended_within(runner, chance.uniform(0.5, 3.0)):
        if not left:
            continue
        kind = left[0]
        jobs, running = cluster.jobs(), [node for job in cluster.jobs() if (node := cluster.node_of(job))]
        if kind == "runner":
            os.kill(runner, signal.SIGKILL)
            os.waitpid(runner, 0)
            time.sleep(0.3)  # a git that it had started may end first
            runner = start(root, overrides)
        elif kind == "worker" and (found := cluster.workers()):
            with suppress(psutil.NoSuchProcess):
                chance.choice(found).kill()
        elif kind == "job" and jobs:
            cluster.run("scancel", *jobs)
        elif kind == "requeue" and running:
            cluster.run("scontrol", "requeue", *jobs)
        elif kind == "node" and running:
            cluster.lose_node(running[0])
        elif kind == "controller":
            cluster.kill_controller()
            cluster.start_controller()
        else:
            continue  # there was none: a little later
        left.pop(0)
        cluster.mend()
    return left


def start(root: Path, overrides: Sequence[str]) -> int:
    """Start a runner in a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(root)
        run(overrides)
        os._exit(0)
    except BaseException:
        (root / "runs" / "failed.txt").write_text(traceback.format_exc())
        os._exit(1)


def ended_within(runner: int, seconds: float) -> bool:
    """Whether a runner ends in time; it must end well."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(runner, os.WNOHANG)
        if pid:
            assert status == 0, Path("runs/failed.txt").read_text()
            return True
        time.sleep(0.05)
    return False


def test_options_of_sbatch() -> None:
    def options(*overrides: str) -> dict[str, str]:
        config = load(["executor=slurm", *overrides], {}, own_file=False)
        return sbatch_options(SlurmExecutor.check(config.executor), config.executor.threads or 1)

    assert options() == {"cpus-per-task": "1"}
    given = options(
        "executor.time=1:00:00",
        "executor.account=0123",
        "executor.gres=gpu:1",
        "executor.threads=4",
        "executor.options={qos: high, exclusive: '', nice: 5}",
    )
    named = {"cpus-per-task": "4", "time": "1:00:00", "account": "0123", "gres": "gpu:1"}
    assert given == {**named, "qos": "high", "exclusive": "", "nice": "5"}
    with pytest.raises(UserError, match=r"executor\.partitions"):
        options("+executor.partitions=main")
    with pytest.raises(UserError, match=r"executor\.lease_seconds"):
        options("executor.lease_seconds=1")
