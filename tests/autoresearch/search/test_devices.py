"""Places of several kinds of devices: each has baselines of its own, and comparisons stay within a kind."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import Place, TrialSpec
from autoresearch.execute.local import LocalExecutor, exporter
from autoresearch.search.devices import MEASURED, Kind, read_kinds
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.types import Arm, Measurement, Provenance, Trial
from tests.support.many_places import replay, sound
from tests.support.stub import PATH, NoMirror, StubMeasurer, make_repository, make_search, said

PADS = "".join(f"pad{i} = 0\n" for i in range(9))
SCRIPT = f"LEVEL = 1.0  # 0..2\nOTHER = 0\n{PADS}print(LEVEL, OTHER)\n"
TIMED, COUNTED = ("budget.kind=seconds", "budget.amount=60"), ()
IDEAS: list[float | str] = [
    *(f"OTHER = {i}" for i in range(1, 6)),
    0.6,
    *(f"OTHER = {i}" for i in range(6, 9)),
]


class Device(StubMeasurer):
    """A device that scores better by so much, or fails."""

    def __init__(self, place: Place, better: float | None) -> None:
        super().__init__()
        self.place, self.better = place, better

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:  # type: ignore[override]
        # The first kind is busy long enough for a candidate to come to the second.
        time.sleep(0.15 if self.place.name in ("cpu:0", "cpu:1") else 0.05)
        if self.better is None:
            (tree / PATH).write_text("crash")
        done = super().measure(tree, spec, *rest)
        score = None if done.score is None else done.score - (self.better or 0.0)
        return replace(done, score=score, provenance=Provenance(self.place.name, self.place.device))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo", SCRIPT)


def mixed(repository: Repository, better: dict[str, float | None], *overrides: str, **more: Any) -> Search:
    """A search on two places of each kind of device; `better` says by how much it scores better."""
    places = [Place(f"cpu:{2 * i + j}", device) for i, device in enumerate(better) for j in range(2)]
    executor = LocalExecutor(
        {place: Device(place, better[place.device]) for place in places},
        repository.root / "runs",
        exporter(repository, ["nanomodel"]),
    )
    given = ["executor.workers=4", "baselines=3", f"experiments={len(IDEAS)}", *overrides]
    return make_search(repository, IDEAS, *given, executor=executor, **more)


def device(trial: Trial) -> str:
    return trial.result.provenance.device if trial.result else ""


def kept(search: Search) -> list[int]:
    return [e.number for e in search.journal.experiments()[1:] if e.kept]


@pytest.mark.slow
def test_under_seconds_a_candidate_meets_the_incumbent_on_one_kind_of_device(repository: Repository) -> None:
    search = mixed(repository, {"slow": 0.0, "fast": 0.05}, *TIMED)
    search.run()
    sound(search)
    [kind] = read_kinds(search.journal)
    assert (kind.device, kind.shared, kind.first) == ("fast", False, "slow")
    assert kind.offset == pytest.approx(-0.05)
    assert kept(search) == [6], "what changes nothing is not kept, on whatever device it runs"
    trials = [t for e in search.journal.experiments() for t in e.trials if t.result]
    assert {device(t) for t in trials if t.arm is Arm.BASELINE} == {"slow"}
    used: dict[int, set[str]] = {}
    for trial in trials:
        used.setdefault(trial.seed, set()).add(device(trial))
    assert all(len(devices) == 1 for devices in used.values())
    assert {device(t) for t in trials if t.arm is Arm.SCREEN} == {"slow", "fast"}
    fast = next(t for t in trials if device(t) == "fast" and t.score is not None)
    assert fast.result and fast.score == pytest.approx(fast.result.metrics[MEASURED] + 0.05)
    assert any("scores -0.05 beside slow" in text for text in said(search))
    again = replay(search, 4, kinds=[kind.device])
    for e in search.journal.experiments()[1:]:
        if e.verdict and not e.verdict.reason.startswith("withdrawn"):
            twice = again.pop(e.number)
            assert (twice.effect, twice.trials, twice.pairs) == (
                e.verdict.effect,
                e.verdict.trials,
                e.verdict.pairs,
            )
    assert not again


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.001])
def test_under_tokens_scores_are_shared_if_the_same_seed_scores_the_same(
    repository: Repository, gap: float
) -> None:
    search = mixed(repository, {"a": 0.0, "b": gap}, *COUNTED)
    search.run()
    sound(search)
    [kind] = read_kinds(search.journal)
    shared = gap < 1e-6
    assert kind.shared is shared
    assert any(("they are shared" if shared else "its own runs only") in text for text in said(search))
    trials = [t for e in search.journal.experiments()[1:] for t in e.trials if t.result]
    assert {device(t) for t in trials} == {"a", "b"} and 6 in kept(search)
    assert any(MEASURED in t.result.metrics for t in trials if t.result) is not shared


@pytest.mark.slow
def test_a_search_that_moves_to_a_faster_machine_first_trains_the_start_there(repository: Repository) -> None:
    first = mixed(repository, {"slow": 0.0}, *TIMED)
    first.run(until=3)
    first.executor.close()
    second = mixed(repository, {"fast": 0.05}, *TIMED)
    second.run()
    sound(second)
    assert [kind.device for kind in read_kinds(second.journal)] == ["fast"]
    assert kept(second) == [6]
    assert isinstance(second.mirror, NoMirror)


@pytest.mark.slow
def test_a_device_on_which_the_start_fails_is_not_used(repository: Repository) -> None:
    search = mixed(repository, {"good": 0.0, "bad": None}, *TIMED)
    search.run()
    assert kept(search) == [6] and not read_kinds(search.journal)
    assert {device(t) for e in search.journal.experiments() for t in e.trials if t.result} == {"good"}
    assert sum("bad is not used: the starting script fails there" in text for text in said(search)) == 1
    with pytest.raises(UserError, match="trains on no device that there is"):
        mixed(repository, {"bad": None}, *TIMED, "experiments=20").run()


@pytest.mark.slow
def test_a_judge_that_knows_no_devices_is_asked_for_one_kind_only(repository: Repository) -> None:
    search = mixed(repository, {"slow": 0.0, "fast": 0.05}, *TIMED, "judge=greedy")
    search.run()
    trials = [t for e in search.journal.experiments() for t in e.trials if t.result]
    assert {device(t) for t in trials} == {"slow"}
    assert any("no trials on fast" in text for text in said(search))


def test_kinds_are_said_in_one_line_each() -> None:
    assert str(Kind("B", True, 0.0, {}, "A")) == "B gives the same scores as A: they are shared."
    said = str(Kind("B", False, -0.0123456, {}, "A"))
    assert said == "B scores -0.01235 beside A: each is compared with its own runs only."
