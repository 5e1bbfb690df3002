"""The local executor keeps the contract of executors."""

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from autoresearch.config import Config, load
from autoresearch.errors import UserError
from autoresearch.execute.base import Executor, Place
from autoresearch.execute.local import LocalExecutor
from autoresearch.execute.places import cores, places, share, threads
from autoresearch.testing.executors import (
    ExecutorContract,
    ScriptedMeasurer,
    events_until_finished,
    scripted_spec,
    write_files,
)
from autoresearch.types import Measurement


class TestLocalExecutor(ExecutorContract):
    def make(self, runs: Path, places: int) -> Executor:
        measurers = {Place(f"cpu:{i}", "a cpu"): ScriptedMeasurer() for i in range(places)}
        return LocalExecutor(measurers, runs, write_files)

    def test_the_least_busy_place_comes_first(self, tmp_path: Path) -> None:
        with self.opened(tmp_path, 2) as (executor, [first, second]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("endless"), first, events)
            assert [place.name for place in executor.places] == [second, first]
            executor.cancel("one", [1])
            events_until_finished(events)
            assert [place.name for place in executor.places] == [first, second]

    def test_what_a_killed_process_left_of_a_trial_is_in_no_ones_way(self, tmp_path: Path) -> None:
        left = tmp_path / "one" / "trials" / "1" / "scratch"
        left.mkdir(parents=True)
        (left / "validation.npy").write_text("of the trial before")
        with self.opened(tmp_path, 1) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("score 1.5"), place, events)
            finished = events_until_finished(events)[-1]
            assert isinstance(finished.result, Measurement), finished.result


def test_places_follow_the_configuration() -> None:
    def configured(*overrides: str) -> Config:
        return load(["budget=smoke", "executor.device=cpu", *overrides], {})

    def where(*overrides: str) -> dict[str, str]:
        return places(configured(*overrides))

    assert where("executor.workers=1") == {"cpu": "cpu"}
    assert where("executor.workers=2") == {"cpu:0": "cpu", "cpu:1": "cpu"}
    assert where("executor.workers=null") == dict.fromkeys(
        ["cpu:0", "cpu:1"] if cores() > 1 else ["cpu"], "cpu"
    )
    config = configured("executor.workers=1")
    assert (threads(config), share(config)) == (1, cores()), "one trains, all score"
    assert share(configured("executor.workers=2")) == max(1, cores() // 2)
    gpus = config.model_copy(
        update={"executor": config.executor.model_copy(update={"device": "cuda", "devices": (0, 3)})}
    )
    assert places(gpus) == {"cuda:0": "cuda:0", "cuda:3": "cuda:3"}
    for wrong in ({"devices": ()}, {"devices": (1, 1)}, {"devices": None, "workers": 2}):
        executor = gpus.executor.model_copy(update=wrong)
        with pytest.raises(UserError):
            places(gpus.model_copy(update={"executor": executor}))
    with pytest.raises(UserError, match="trials run on the CPU"):
        where("executor.devices=[0]")
