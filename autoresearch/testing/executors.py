"""The contract of executors, as tests.

Subclass `ExecutorContract` in a test file of your own, and say how your executor is made::

    class TestMine(ExecutorContract):
        def make(self, runs: Path, places: int) -> Executor:
            measurers = {Place(f"mine:{i}", "a device"): ScriptedMeasurer() for i in range(places)}
            return MyExecutor(measurers, runs, write_files)
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from autoresearch.errors import UserError
from autoresearch.execute.base import (
    Executor,
    Finished,
    Message,
    OnProgress,
    Place,
    Progressed,
    ShouldStop,
    Started,
    TrialSpec,
)
from autoresearch.types import Fidelity, Measurement, Outcome, Progress, Split

SCRIPT = "script.txt"
SECONDS = 30.0
"""How long an event is waited for before the test fails."""


class ScriptedMeasurer:
    """Does what the candidate's `script.txt` says.

    `score NUMBER`, `sleep SECONDS NUMBER`, `raise WORDS`, or `endless`.
    """

    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: OnProgress, should_stop: ShouldStop = None
    ) -> Measurement:
        """See `Measurer`."""
        command, _, words = (tree / SCRIPT).read_text().partition(" ")
        for i in range(3):
            progress(Progress(i / 2, float(i)))
        while command == "endless":
            progress(Progress(0.5, 1.0))
            time.sleep(0.005)
        if command == "sleep":
            seconds, _, words = words.partition(" ")
            until = time.monotonic() + float(seconds)
            while time.monotonic() < until:
                progress(Progress(0.5, 1.0))
                time.sleep(0.02)
        if command == "raise":
            raise UserError(words)
        return Measurement(Outcome.OK, float(words) + spec.seed)

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        """See `Measurer`."""
        words = (tree / SCRIPT).read_text()
        return Measurement(Outcome.CRASH if words.startswith("raise") else Outcome.OK, reason=words)

    def close(self) -> None:
        """See `Measurer`."""


def scripted_maker(place: Place, *_: object) -> tuple[ScriptedMeasurer, dict[str, str]]:
    """What a worker calls to make the measurer of its place."""
    return ScriptedMeasurer(), {}


SCRIPTED = f"{__name__}:scripted_maker"
"""How a `Setup` names it."""


def write_files(commit: str, folder: Path, files: Mapping[str, str]) -> None:
    """Writes the files of a spec whose tree is empty."""
    folder.mkdir(parents=True)
    for path, text in files.items():
        (folder / path).write_text(text)


def scripted_spec(script: str, trial: int = 1, search: str = "one", **changes: Any) -> TrialSpec:
    """A trial that does what `ScriptedMeasurer` reads."""
    return TrialSpec(search, trial, tree="", seed=0, files={SCRIPT: script}, **changes)


def events_until_finished(events: SimpleQueue[Any]) -> list[Any]:
    """The events of one trial, the last of which tells its end."""
    found: list[Any] = []
    while not found or not isinstance(found[-1], Finished):
        found.append(events.get(timeout=SECONDS))
    return [event for event in found if not isinstance(event, Message)]


class ExecutorContract(ABC):
    """What every executor promises."""

    @abstractmethod
    def make(self, runs: Path, places: int) -> Executor:
        """An executor with some places, a `ScriptedMeasurer` at each, that exports by `write_files`.

        Args:
            runs: An empty folder for the folders of searches.
            places: How many.
        """

    @contextmanager
    def opened(self, runs: Path, places: int = 1) -> Iterator[tuple[Executor, list[str]]]:
        """An executor and the names of its places; closed at the end."""
        executor = self.make(runs, places)
        try:
            yield executor, [place.name for place in executor.places]
        finally:
            executor.close()

    def test_places_have_names_and_devices(self, tmp_path: Path) -> None:
        """Places are told apart by their names."""
        with self.opened(tmp_path, 3) as (executor, names):
            assert len(set(names)) == 3 and all(place.device for place in executor.places)

    def test_a_trial_starts_then_progresses_then_finishes(self, tmp_path: Path) -> None:
        """The events come in order, each with the spec and the place."""
        with self.opened(tmp_path) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            spec = scripted_spec("score 1.5")
            executor.submit(spec, place, events)
            first, *middle, last = events_until_finished(events)
            assert isinstance(first, Started) and all(isinstance(event, Progressed) for event in middle)
            assert middle and all(event.spec == spec and event.place == place for event in (first, *middle))
            assert (last.spec, last.place, last.result.score) == (spec, place, 1.5)
            assert last.result.provenance.place == place and last.result.provenance.fraction == 1.0

    def test_a_failure_of_the_machine_arrives_as_an_exception(self, tmp_path: Path) -> None:
        """And the place can be used again."""
        with self.opened(tmp_path) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("raise the disk is full"), place, events)
            failed = events_until_finished(events)[-1].result
            assert isinstance(failed, BaseException) and "the disk is full" in str(failed)
            executor.submit(scripted_spec("score 2", trial=2), place, events)
            assert events_until_finished(events)[-1].result.score == 2

    def test_a_cancelled_trial_ends_without_a_result(self, tmp_path: Path) -> None:
        """And the place can be used again."""
        with self.opened(tmp_path) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("endless"), place, events)
            while not isinstance(events.get(timeout=SECONDS), Progressed):
                pass
            executor.cancel("one", [1])
            assert events_until_finished(events)[-1].result is None
            executor.submit(scripted_spec("score 2", trial=2), place, events)
            assert events_until_finished(events)[-1].result.score == 2

    def test_a_trial_at_a_busy_place_waits_and_can_be_cancelled(self, tmp_path: Path) -> None:
        """Trials submitted to one place run one after the other, in order."""
        with self.opened(tmp_path) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("endless"), place, events)
            executor.submit(scripted_spec("score 2", trial=2), place, events)
            executor.submit(scripted_spec("score 3", trial=3), place, events)
            executor.cancel("one", [1, 2])
            ends = [events_until_finished(events)[-1] for _ in range(3)]
            assert [(end.spec.trial, end.result and end.result.score) for end in ends] == [
                (1, None),
                (2, None),
                (3, 3),
            ]

    def test_two_searches_do_not_see_each_others_events(self, tmp_path: Path) -> None:
        """Nor does one cancel the trials of the other, though they have the same numbers."""
        with self.opened(tmp_path, 2) as (executor, [here, there]):
            one: SimpleQueue[Any] = SimpleQueue()
            two: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("endless"), here, one)
            executor.submit(scripted_spec("endless", search="two"), there, two)
            executor.cancel("two", [1])
            other = events_until_finished(two)
            executor.cancel("one", [1])
            own = events_until_finished(one)
            assert {event.spec.search for event in other} == {"two"}
            assert {event.spec.search for event in own} == {"one"}

    def test_a_tryout_gives_no_score_and_no_events(self, tmp_path: Path) -> None:
        """It may run beside a trial."""
        with self.opened(tmp_path) as (executor, [place]):
            events: SimpleQueue[Any] = SimpleQueue()
            executor.submit(scripted_spec("endless"), place, events)
            good = executor.tryout(scripted_spec("score 1", trial=0, fidelity=Fidelity.TRYOUT))
            bad = executor.tryout(scripted_spec("raise", trial=0, fidelity=Fidelity.TRYOUT))
            assert (good.outcome, good.score, bad.outcome) == (Outcome.OK, None, Outcome.CRASH)
            executor.cancel("one", [1])
            assert {event.spec.trial for event in events_until_finished(events)} == {1}

    def test_close_leaves_no_process_no_thread_and_no_folder(self, tmp_path: Path) -> None:
        """Whatever runs then ends without a result; closing twice is closing once."""
        threads = set(threading.enumerate())
        processes = set(psutil.Process().children(recursive=True))
        executor = self.make(tmp_path, 2)
        events: SimpleQueue[Any] = SimpleQueue()
        for number, place in enumerate(executor.places):
            executor.submit(scripted_spec("endless", trial=number), place.name, events)
        executor.close()
        executor.close()
        assert [events_until_finished(events)[-1].result for _ in range(2)] == [None, None]
        assert set(threading.enumerate()) <= threads
        assert set(psutil.Process().children(recursive=True)) <= processes
        assert not list(tmp_path.glob("*/trials/*"))

    def test_a_spec_survives_json(self) -> None:
        """So that it can be sent to another machine."""
        spec = scripted_spec(
            "score 1",
            splits=(Split.TEST, Split.VALIDATION),
            items="losses/1",
            baseline={"train_seconds": 9.5},
            reference=(((0.0, 9.0), (1.0, 4.0)), ()),
            thorough=True,
        )
        assert TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
