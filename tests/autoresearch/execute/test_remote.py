"""The executor of workers keeps the contract, and loses no trial with a worker."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import Executor, Finished, Message, Progressed, Started
from autoresearch.execute.remote import RemoteExecutor, places_told, workers
from autoresearch.execute.worker import worker
from autoresearch.execute.worker.messages import Setup, encode_result
from autoresearch.testing.executors import (
    SCRIPTED,
    SECONDS,
    ExecutorContract,
    events_until_finished,
    scripted_spec,
    write_files,
)
from tests.support.worker_engines import Processes, Threads


def executor_of(engine: Threads | Processes, runs: Path, **options: Any) -> RemoteExecutor:
    return RemoteExecutor(Setup("one", SCRIPTED), engine, runs, write_files, **options)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(workers, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(worker, "FENCE_SECONDS", 0.05)


class TestRemoteExecutor(ExecutorContract):
    def make(self, runs: Path, places: int) -> Executor:
        engine = Threads(runs.parent / f"{runs.name}-cache", [f"far:{i}" for i in range(places)])
        executor = executor_of(engine, runs)
        wait_for_places(executor, places)
        return executor


def wait_for_places(executor: RemoteExecutor, number: int) -> None:
    with executor._workers.lock:
        assert executor._workers.lock.wait_for(lambda: len(executor.places) == number, SECONDS)


def until_progress(events: SimpleQueue[Any]) -> None:
    while not isinstance(events.get(timeout=SECONDS), Progressed):
        pass


def test_a_trial_of_a_lost_worker_is_repeated_elsewhere(tmp_path: Path) -> None:
    engine = Threads(tmp_path / "cache", ["a", "b"])
    executor = executor_of(engine, tmp_path / "runs")
    try:
        wait_for_places(executor, 2)
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("endless"), "a", events)
        until_progress(events)
        first = json.loads((tmp_path / "runs" / "one" / "fence.json").read_text())
        engine.names.remove("a")
        engine.lose("a")
        said = []
        while not isinstance(event := events.get(timeout=SECONDS), Progressed) or event.place != "b":
            said.append(event)
        assert any(isinstance(e, Message) and "the machine burns" in e.text for e in said)
        assert not any(isinstance(e, Finished) for e in said), "its end is no result"
        second = json.loads((tmp_path / "runs" / "one" / "fence.json").read_text())
        assert first.keys() == second.keys() == {"1"} and first != second, "a new attempt"
        executor.cancel("one", [1])
        assert events_until_finished(events)[-1].result is None
        assert [place.name for place in executor.places] == ["b"]
    finally:
        executor.close()


def test_a_worker_that_is_ended_from_outside_loses_no_trial(tmp_path: Path) -> None:
    """It stops its trial and says so; that is no wish of the search."""
    engine = Threads(tmp_path / "cache", ["a"])
    executor = executor_of(engine, tmp_path / "runs")
    try:
        wait_for_places(executor, 1)
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("endless"), "a", events)
        until_progress(events)
        channel = engine.opened["a"][-1]
        [order] = [m["order"] for m in channel.sent if m["kind"] == "order"]
        channel._arrive({"kind": "finished", "attempt": order["attempt"], **encode_result(None)})
        while not isinstance(event := events.get(timeout=SECONDS), Started):
            assert not isinstance(event, Finished), "its end is no result"
        until_progress(events)
        executor.cancel("one", [1])
        assert events_until_finished(events)[-1].result is None
    finally:
        executor.close()


def test_what_a_superseded_attempt_reports_is_ignored_and_its_worker_ends(tmp_path: Path) -> None:
    engine = Threads(tmp_path / "cache", ["a"])
    executor = executor_of(engine, tmp_path / "runs")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("endless"), "a", events)
        until_progress(events)
        old = engine.opened["a"][0]
        attempt = next(iter(json.loads((tmp_path / "runs/one/fence.json").read_text()).values()))
        old.close = lambda: None  # type: ignore[method-assign]
        old.gone = "no answer"  # it lives on, and sees the same file system
        while not isinstance(event := events.get(timeout=SECONDS), Started):
            assert isinstance(event, Message | Progressed)
        assert len(engine.opened["a"]) == 2, "another worker at the same place runs it now"
        site = executor._workers.sites["a"]
        lie = {"attempt": attempt, "kind": "finished", "measurement": {"outcome": "ok", "score": 9.0}}
        executor.heard(site, old, lie)
        assert old.worker.ended.wait(SECONDS), "it has found itself superseded"
        old.worker.close()
        executor.cancel("one", [1])
        ends = events_until_finished(events)
        assert ends[-1].result is None
    finally:
        executor.close()


def test_a_place_that_comes_later_serves_trials_that_wait(tmp_path: Path) -> None:
    engine = Threads(tmp_path / "cache", ["a"])
    executor = executor_of(engine, tmp_path / "runs")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        engine.names.clear()
        engine.lose("a")
        with executor._workers.lock:
            executor._workers.lock.wait_for(lambda: not executor._workers.sites, SECONDS)
        executor.submit(scripted_spec("score 4"), "a", events)
        assert events.get(timeout=SECONDS).progress.phase == "waiting"
        engine.names.append("b")
        end = events_until_finished(events)[-1]
        assert (end.place, end.result.score) == ("b", 4)
    finally:
        executor.close()


def test_a_place_that_keeps_losing_workers_is_set_aside_with_a_reason(tmp_path: Path) -> None:
    class Flaky(Threads):
        def open(self, place: str) -> Any:
            channel = super().open(place)
            if place == "bad":
                self.lose(place, "no memory")
            return channel

    said: list[str] = []
    executor = executor_of(Flaky(tmp_path / "cache", ["bad", "good"]), tmp_path / "runs", say=said.append)
    try:
        with executor._workers.lock:
            assert executor._workers.lock.wait_for(lambda: executor.set_aside, SECONDS)
        assert executor.set_aside == {"bad": "no memory"}
        assert [place.name for place in executor.places] == ["good"]
        assert any("bad is set aside" in text for text in said)
    finally:
        executor.close()


def test_a_trial_under_which_every_worker_dies_ends_the_search_and_is_not_judged(tmp_path: Path) -> None:
    class Doomed(Threads):
        def open(self, place: str) -> Any:
            channel = super().open(place)
            send = channel.send

            def dies(message: Any) -> None:
                send(message)
                if message["kind"] == "order":
                    channel.gone = "killed"

            channel.send = dies  # type: ignore[method-assign]
            return channel

    executor = executor_of(Doomed(tmp_path / "cache", [f"p{i}" for i in range(6)]), tmp_path / "runs")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("endless"), "p0", events)
        failed = events_until_finished(events)[-1].result
        assert isinstance(failed, UserError) and "5 workers were lost under trial 1: killed" in str(failed)
    finally:
        executor.close()


def test_no_worker_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No worker got ready"):
        executor_of(Threads(tmp_path / "cache", []), tmp_path / "runs", start_seconds=0.1)
    broken = Setup("one", "autoresearch.testing.executors:nothing_of_this_name")
    with pytest.raises(UserError, match="nothing_of_this_name"):
        engine = Threads(tmp_path / "cache", ["a"])
        RemoteExecutor(broken, engine, tmp_path / "runs", write_files, start_seconds=1)


@pytest.mark.slow
def test_a_killed_worker_process_is_replaced(tmp_path: Path) -> None:
    engine = Processes(tmp_path / "cache", ["a"])
    executor = executor_of(engine, tmp_path / "runs", start_seconds=60)
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("endless"), "a", events)
        until_progress(events)
        engine.opened["a"][0].process.kill()
        while not (isinstance(event := events.get(timeout=SECONDS), Progressed) and event.progress.fraction):
            pass
        assert len(engine.opened["a"]) == 2
        executor.cancel("one", [1])
        assert events_until_finished(events)[-1].result is None
        executor.submit(scripted_spec("score 2", trial=2), "a", events)
        assert events_until_finished(events)[-1].result.score == 2
    finally:
        executor.close()
    assert all(channel.process.poll() is not None for channel in engine.opened["a"])
    assert not list((tmp_path / "cache" / "workers").iterdir()), "what the killed one left is removed, too"


def at_places(tmp_path: Path, *places: str) -> RemoteExecutor:
    """An executor whose places behave as their names say."""
    engine = Threads(tmp_path / "cache", places)
    setup = Setup("one", "tests.support.worker_engines:as_named")
    executor = RemoteExecutor(setup, engine, tmp_path / "runs", write_files)
    wait_for_places(executor, len(places))
    return executor


def test_a_slow_place_is_noticed_by_the_incumbent_its_trials_are_repeated_and_it_is_set_aside(
    tmp_path: Path,
) -> None:
    executor = at_places(tmp_path, "a", "b", "slow")
    folder = tmp_path / "runs" / "one"
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        ends = []
        for trial, place in enumerate(["a", "b", "slow", "a", "slow"], start=1):
            spec = replace(scripted_spec("score 4", trial=trial), gauge=True)
            executor.submit(spec, place, events)
            ends.append(events_until_finished(events)[-1].place)
            if trial == 3:
                assert any("1 of 1 trial spoiled, 50% of the usual speed" in x for x in places_told(folder))
        assert set(ends) == {"a", "b"}, "what counts was measured elsewhere"
        assert "at 50% of the speed of other places" in executor.set_aside["slow"]
        assert {place.name for place in executor.places} == {"a", "b"}
        assert any("slow is set aside: it trained at 50%" in line for line in places_told(folder))
    finally:
        executor.close()


def test_a_candidate_tells_nothing_of_the_speed_of_a_place(tmp_path: Path) -> None:
    executor = at_places(tmp_path, "a", "b", "slow")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        for trial, place in enumerate(["a", "b", "slow", "slow", "slow"], start=1):
            executor.submit(scripted_spec("score 4", trial=trial), place, events)
            end = events_until_finished(events)[-1]
            assert end.place == place and end.result.provenance.device == executor.places[0].device
        assert executor.set_aside == {}
    finally:
        executor.close()


def test_a_trial_whose_machine_fails_is_repeated_elsewhere_and_the_place_is_set_aside(tmp_path: Path) -> None:
    executor = at_places(tmp_path, "a", "broken")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        for trial in (1, 2):
            executor.submit(scripted_spec("score 4", trial=trial), "broken", events)
            end = events_until_finished(events)[-1]
            assert (end.place, end.result.score) == ("a", 4)
        assert "the GPU does not answer" in executor.set_aside["broken"]
    finally:
        executor.close()


def test_where_every_machine_fails_the_search_is_told(tmp_path: Path) -> None:
    executor = at_places(tmp_path, "broken", "broken too")
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        executor.submit(scripted_spec("score 4"), "broken", events)
        failed = events_until_finished(events)[-1].result
        assert isinstance(failed, UserError) and "does not answer" in str(failed)
    finally:
        executor.close()
