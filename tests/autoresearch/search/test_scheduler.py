import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.base import Cancelled, Place, TrialSpec
from autoresearch.execute.local import LocalExecutor, exporter
from autoresearch.propose.base import Check, Context
from autoresearch.search.loop import Search
from autoresearch.search.observers import EmptyInbox
from autoresearch.search.scheduler import WAITS_KEY
from autoresearch.store.git.repository import Repository
from autoresearch.types import WAITING, Arm, Measurement, Outcome, Progress, Proposal, State, VerdictKind
from tests.support.many_places import judged, sound, until
from tests.support.stub import PATH, StubMeasurer, make_repository, make_search, measurer, measurers, said

IDEAS: list[float | str] = [1.5, 0.2, "OTHER = 'crash'", 0.1, "OTHER = 7"]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def story(search: Search) -> list[tuple[object, ...]]:
    """What must not depend on how many places there are."""
    return [
        (e.number, e.state, e.verdict.kind, e.verdict.effect, e.verdict.reason, e.verdict.trials)
        for e in search.journal.experiments()
        if e.verdict
    ]


def test_baselines_and_confirmations_run_at_the_same_time(repository: Repository) -> None:
    search = make_search(repository, [0.2], "executor.workers=2", "baselines=4")
    together = threading.Barrier(2, timeout=60)
    baselines = iter(range(4))

    def meet() -> None:
        if next(baselines, None) is not None:
            together.wait()

    for stub in measurers(search):
        stub.on_run = meet
    search.run()
    trials = [t for e in search.journal.experiments() for t in e.trials if t.finished]
    assert any(a.started < b.started < (a.finished or 0) for a in trials for b in trials if a.experiment == 1)


class Candidate(StubMeasurer):
    """The candidate's first training scores, the second crashes, the third goes on until it is stopped."""

    def __init__(self, begun: list[int], changed: threading.Condition) -> None:
        super().__init__()
        self.begun, self.changed, self.stopped = begun, changed, False

    def measure(
        self,
        tree: Path,
        spec: TrialSpec,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[Progress], bool] | None = None,
    ) -> Measurement:
        with self.changed:
            if "LEVEL = 0.2" in (tree / PATH).read_text():
                self.begun.append(spec.trial)
                self.changed.notify_all()
        if spec.trial not in self.begun[1:]:
            return super().measure(tree, spec, scratch, progress, should_stop)
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) == 3, 60)
            second = sorted(self.begun)[1]
        if spec.trial == second:
            return Measurement(Outcome.CRASH, reason="gone")
        try:
            for _ in range(12_000):
                progress(Progress(0.5, 1.0))
                time.sleep(0.005)
        except Cancelled:
            self.stopped = True
            raise
        raise AssertionError("nobody stopped it")


def test_a_trial_that_nobody_waits_for_is_stopped_and_leaves_no_score(repository: Repository) -> None:
    shared = list[int](), threading.Condition()
    places = {place: Candidate(*shared) for place in ("cpu:0", "cpu:1")}
    search = make_search(repository, [0.2, 1.5, 0.1], "executor.workers=2", measurers=places)
    propose = search.proposer.propose

    def late(context: Context, check: Check) -> Proposal:
        if context.paid:
            until(judged(search, 1))
        return propose(context, check)

    search.proposer.propose = late  # type: ignore[method-assign]
    search.run()
    assert any(place.stopped for place in places.values())
    first, second, third = search.journal.experiments()[1:]
    assert first.verdict and (first.verdict.kind, first.verdict.reason) == (VerdictKind.CRASH, "gone")
    assert second.verdict and second.verdict.kind is VerdictKind.DISCARD
    [stopped] = [t for t in first.trials if t.result is None]
    assert stopped.arm is Arm.CONFIRM and stopped.finished
    assert not json.loads(search.journal.judge_state() or "")["state"]["_requests"]["late"]
    assert list(search.folder.glob("trials/*")) == []
    assert third.kept and {t.place for t in third.trials} == {"cpu:0", "cpu:1"}  # its place is free again


class Pausing(EmptyInbox):
    """Pauses the search while two trials are under way, and lets it go on once both are written down."""

    def __init__(self) -> None:
        self.search: Search | None = None
        self.paused = False
        self.open_when_it_went_on = -1

    @property
    def wished(self) -> str:  # type: ignore[override]
        if not self.paused:
            return "run"
        assert self.search
        trials = [t for e in self.search.journal.experiments() for t in e.trials]
        under_way = sum(t.finished is None for t in trials)
        if not self.search.scheduler.busy:
            self.open_when_it_went_on = under_way
            self.paused = False
        return "pause"


def test_a_pause_lets_the_trials_under_way_end_and_writes_them_down(repository: Repository) -> None:
    pausing = Pausing()
    search = make_search(repository, [0.2], "executor.workers=2", inbox=pausing)
    pausing.search = search
    confirming, paused = threading.Barrier(2, timeout=60), list[bool]()

    def pause() -> None:
        begun = sum("LEVEL = 0.2" in source for stub in measurers(search) for source, _ in stub.trained)
        if begun in (2, 3) and not paused:  # the screening run was alone
            confirming.wait()
            paused.append(True)
            pausing.paused = True

    for stub in measurers(search):
        stub.on_run = pause
    search.run()
    assert pausing.open_when_it_went_on == 0
    assert any(line.startswith("Paused.") for line in said(search)) and "Going on." in said(search)
    assert story(search)[0][2] == "keep"


class Late(EmptyInbox):
    """A person who says something while the last trial runs."""

    def __init__(self, word: str) -> None:
        self.word, self.asked = word, False
        self.heard: list[State] = []
        self.search: Search | None = None

    @property
    def wished(self) -> str:  # type: ignore[override]
        if not self.asked:
            return "run"
        assert self.search
        self.heard.append(self.search.journal.experiments()[-1].state)
        if self.word == "pause" and self.heard.count(State.RECORDED) == 2:
            self.asked = False
        return self.word


@pytest.mark.parametrize("word", ["pause", "stop"])
def test_a_person_is_heard_while_the_last_trial_runs(repository: Repository, word: str) -> None:
    late = Late(word)
    search = make_search(repository, [1.5], "experiments=1", inbox=late)
    late.search = search

    def ask() -> None:
        late.asked = bool(search.state.tried)

    measurer(search).on_run = ask
    assert search.run() == (word == "pause"), "a search that was stopped has not ended by itself"
    assert late.heard[-1] is State.RECORDED
    assert any(line.startswith("Paused.") for line in said(search)) == (word == "pause")
    assert make_search(repository, [1.5], "experiments=1").run() and story(search)[0][2] == "discard"


@pytest.mark.slow
def test_two_searches_share_one_executor(repository: Repository) -> None:
    stubs = {Place(f"cpu:{i}", "stub"): StubMeasurer() for i in range(2)}
    executor = LocalExecutor(stubs, repository.root / "runs", exporter(repository, ["nanomodel"]))
    searches = [
        make_search(repository, IDEAS, f"name={name}", "executor.workers=2", executor=executor)
        for name in ("one", "two")
    ]
    threads = [threading.Thread(target=search.run) for search in searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executor.close()
    for search in searches:
        sound(search)
        assert search.state.kept
    assert all(stub.trained for stub in stubs.values())


def test_a_stop_does_not_wait_for_a_machine_that_others_use_up(repository: Repository) -> None:
    """A trial that waits for room may wait all night: it is given up, and runs when the search goes on."""
    wishing = EmptyInbox()
    search = make_search(repository, [0.2], inbox=wishing)
    [stub] = measurers(search)
    measure = stub.measure

    def wait(
        tree: Path, spec: TrialSpec, scratch: Path, progress: Callable[[Progress], None], *_: Any
    ) -> Any:
        while True:
            progress(Progress(0.0, 0.0, phase=WAITING, note="other programs use it up"))
            wishing.wished = "stop"
            time.sleep(0.005)

    stub.measure = wait  # type: ignore[method-assign]
    assert not search.run() and "Stopped" in said(search)[-1]
    assert search.journal.get(WAITS_KEY) == "other programs use it up"
    again = make_search(repository, [0.2])
    measurers(again)[0].measure = measure  # type: ignore[method-assign]
    assert again.run() and again.state.kept
    assert not again.journal.get(WAITS_KEY)
