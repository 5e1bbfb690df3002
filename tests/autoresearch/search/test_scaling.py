"""A step costs the same however long the history: counted in rows read and git processes, never in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.search.loop import Search
from autoresearch.store.git import Repository
from autoresearch.types import Experiment
from tests.support.stub import Silent, make_repository, make_search

pytestmark = pytest.mark.slow

IDEAS: list[float | str] = [1.3 + i / 1000 for i in range(60)]


class Counter(Silent):
    """Rows read from the journal and git processes started, experiment by experiment."""

    def __init__(self, processes: list[str]) -> None:
        super().__init__()
        self.processes = processes
        self.rows: list[int] = []
        self.git: list[int] = []

    def watch(self, search: Search) -> None:
        self.search = search
        self.seen = search.journal.rows_read, len(self.processes)

    def verdict(self, experiment: Experiment, incumbent_score: float, noise: float) -> None:
        now = self.search.journal.rows_read, len(self.processes)
        self.rows.append(now[0] - self.seen[0])
        self.git.append(now[1] - self.seen[1])
        self.seen = now


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The git commands that were run."""
    found: list[str] = []
    raw = Repository._raw

    def counted(repository: Repository, *arguments: str, **options: object) -> bytes:
        found.append(" ".join(arguments))
        return raw(repository, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "_raw", counted)
    yield found


def test_the_sixtieth_experiment_costs_what_the_tenth_did(tmp_path: Path, processes: list[str]) -> None:
    counter = Counter(processes)
    search = make_search(make_repository(tmp_path / "repo"), IDEAS, view=counter)
    counter.watch(search)
    search.run()
    assert len(counter.rows) == len(IDEAS)
    for counts in (counter.rows[1:], counter.git[1:]):
        early, late = sorted(counts[:20]), sorted(counts[-20:])  # each with one re-run of the incumbent
        assert late[10] == early[10] and late[-1] <= early[-1]
    assert max(counter.git[1:]) <= 15


def test_going_on_costs_the_same_after_five_and_after_twenty_five(
    tmp_path: Path, processes: list[str]
) -> None:
    repository = make_repository(tmp_path / "repo")
    started: list[int] = []
    for experiments in (5, 5, 25, 25):
        search = make_search(repository, IDEAS, f"experiments={experiments}")
        before = len(processes)
        search.run()
        started.append(len(processes) - before)
        search.journal.close()
    assert started[3] == started[1]
