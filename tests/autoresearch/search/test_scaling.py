"""A step costs the same however long the history: in rows read, git processes and calls, never in time."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
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

    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
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
        early, late = sorted(counts[:20]), sorted(counts[-20:])
        assert late[10] == early[10] and late[-2] <= early[-1]  # in one the incumbent runs again
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


def lengthen(journal: Path, experiments: int) -> None:
    """Copy the experiments of a search, its trials and its timeline, until there are so many."""
    with sqlite3.connect(journal) as db:
        names = {
            t: [c[1] for c in db.execute(f"PRAGMA table_info({t})")]
            for t in ("experiments", "trials", "timeline")
        }

        def copy(table: str, where: str, **new: object) -> int | None:
            columns = [name for name in names[table] if name != "id"]
            chosen = ", ".join(str(new.get(name, name)) for name in columns)
            copied = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {chosen} FROM {table} WHERE {where}"
            return db.execute(copied).lastrowid

        old = [n for (n,) in db.execute("SELECT number FROM experiments WHERE verdict LIKE '%discard%'")]
        first, version = db.execute("SELECT MAX(number) + 1, MAX(version) FROM experiments").fetchone()
        for new in range(first, experiments + 1):
            number = old[new % len(old)]
            values = {"number": new, "decided": new, "version": version + new, "fingerprint": f"'{new}'"}
            copy("experiments", f"number = {number}", **values)
            for (trial,) in db.execute(f"SELECT id FROM trials WHERE experiment = {number}").fetchall():
                made = copy("trials", f"id = {trial}", experiment=new)
                copy("timeline", f"trial = {trial}", experiment=new, trial=made)


class Calls(Silent):
    """Calls of functions in the thread of the search, experiment by experiment."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.at: list[int] = []

    def note(self, frame: object, event: str, argument: object) -> None:
        self.count += event.endswith("call")

    def verdict(
        self, experiment: Experiment, incumbent_score: float, noise: float, needed: Callable[[], str] = str
    ) -> None:
        self.at.append(self.count)


@pytest.mark.soak
def test_an_experiment_takes_as_many_calls_after_fifteen_hundred_as_after_fifty(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repo")
    make_search(repository, IDEAS, "experiments=20").run()
    calls = []
    for length in (50, 1500):
        lengthen(repository.root / "runs" / "x" / "journal.db", length)
        ideas: list[float | str] = [2.5 + i / 1000 for i in range(length + 10)]
        view = Calls()
        more = f"experiments={length + 6}", "early_stopping=false"  # which learns from the latest 500
        search = make_search(repository, ideas, *more, view=view)
        sys.setprofile(view.note)
        try:
            search.run()
        finally:
            sys.setprofile(None)
        search.journal.close()
        each = [b - a for a, b in zip(view.at[1:], view.at[2:], strict=False)]
        calls.append(sorted(each)[len(each) // 2])
    assert calls[1] <= 1.1 * calls[0]
