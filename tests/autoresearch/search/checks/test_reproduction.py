"""An incumbent is run again on an old seed: another score shows a cheat, or another machine."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.base import TrialSpec
from autoresearch.search.checks.reproduction import REPRODUCTIONS, read_repetitions
from autoresearch.search.loop import Search
from autoresearch.types import Measurement, VerdictKind
from tests.support.stub import PATH, StubMeasurer, make_repository, make_search, said

IDEAS: list[float | str] = [0.2, *(round(0.9 + number / 50, 2) for number in range(8))]


class Drifting(StubMeasurer):
    """A host on which some programs score otherwise when they are run on the same seed again."""

    def __init__(self, drifts: str) -> None:
        super().__init__()
        self.drifts, self.runs = drifts, dict[tuple[str, int], int]()

    def measure(self, tree: Path, spec: TrialSpec, *rest: Any) -> Measurement:
        source = (tree / PATH).read_text()
        done = super().measure(tree, spec, *rest)
        key = source, spec.seed
        self.runs[key] = self.runs.get(key, 0) + 1
        if (
            done.score is None
            or self.runs[key] < 2
            or not any(mark in source for mark in self.drifts.split())
        ):
            return done
        return Measurement(done.outcome, done.score + 0.01, metrics=done.metrics, curve=done.curve)


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(drifts: str, deterministic: bool = True) -> Search:
        made = make_search(
            make_repository(tmp_path / "repo"),
            IDEAS,
            f"experiments={len(IDEAS)}",
            "judge.heartbeat=3",
            measurers={"cpu": Drifting(drifts or "nothing")},
        )
        monkeypatch.setattr(made.task, "deterministic", deterministic)
        made.run()
        return made

    return make


def test_an_incumbent_that_repeats_its_score_stays(search: Any) -> None:
    done = search("")
    assert done.journal.experiment(1).kept
    known = read_repetitions(done.state)
    assert known and all(r.same and r.experiment == 1 for r in known)
    ats = [r.at for r in known]
    assert all(later - earlier >= 3 for earlier, later in pairwise(ats))


def test_one_that_does_not_is_taken_back(search: Any) -> None:
    done = search("LEVEL=0.2 0.2")
    verdict = done.journal.experiment(1).verdict
    assert verdict.kind is VerdictKind.INVALID and "on the same seed" in verdict.reason
    assert any("is invalid: on the same seed" in text for text in said(done))
    assert [r.experiment for r in read_repetitions(done.state)][:2] == [1, 0]


def test_on_another_machine_nothing_is_concluded(search: Any) -> None:
    done = search("LEVEL")
    assert done.journal.experiment(1).kept
    assert [r.experiment for r in read_repetitions(done.state)] == [1, 0], "and it is not tried again"


def test_where_trainings_differ_by_chance_nothing_is_repeated(search: Any) -> None:
    done = search("LEVEL", deterministic=False)
    assert done.journal.get(REPRODUCTIONS) is None
