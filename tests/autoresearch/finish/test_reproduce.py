"""A commit is trained again, and it is said whether its score is the same, and what differs if not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.finish.reproduce import meant_by, reproduce, reproduced_lines
from autoresearch.search.loop import Search
from autoresearch.search.setup.environment import ENVIRONMENTS, read_environments, record_environment
from tests.support.searches import METRIC
from tests.support.stub import StubMeasurer, make_repository, make_search, measurer


@pytest.fixture
def search(tmp_path: Path) -> Search:
    made = make_search(make_repository(tmp_path / "repo"), [0.2, "OTHER = 'crash'"])
    record_environment(made.journal, made.config, made.task)
    made.run()
    return made


def test_the_same_seed_gives_the_same_score(search: Search) -> None:
    before = search.journal.experiments()
    first = next(t for t in search.journal.experiment(1).trials if t.score is not None)
    record = reproduce(search, search.journal.experiment(1))
    assert record.same and record.after == first.score and record.differences == {}
    assert measurer(search).trained[-1][0].startswith("LEVEL = 0.2")
    assert len({seed for _, seed in measurer(search).trained[-1:]}) == 1
    assert "the same" in reproduced_lines(record, METRIC)[0]
    assert search.journal.experiments() == before, "nothing that steers the search has changed"
    assert reproduce(search, search.journal.experiment(0)).same


def test_another_score_is_told_with_what_differs(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    old = read_environments(search.journal)[0]
    older = replace(old, values={**old.values, "numpy": "1.0", "python": "3.0"})
    search.journal.set(ENVIRONMENTS, json.dumps([older.to_dict()]))
    measure = StubMeasurer.measure

    def drifted(*arguments, **named):  # type: ignore[no-untyped-def]
        done = measure(*arguments, **named)
        return replace(done, score=done.score + 0.01)

    monkeypatch.setattr(StubMeasurer, "measure", drifted)
    record = reproduce(search, search.journal.experiment(1))
    assert not record.same and record.differences and record.differences["numpy"][0] == "1.0"
    told = "\n".join(reproduced_lines(record, METRIC))
    assert "not the same" in told and "+0.01" in told and "numpy" in told and "1.0 -> " in told
    assert "times the noise between seeds" in told
    search.journal.set(ENVIRONMENTS, "[]")
    unknown = reproduce(search, search.journal.experiment(1))
    assert "not recorded" in "\n".join(reproduced_lines(unknown, METRIC))


def test_a_commit_is_named_by_number_hash_or_branch(search: Search) -> None:
    every, repository = search.journal.experiments(), search.repository
    for what in ("1", every[1].commit, every[1].commit[:9], "autoresearch/x"):
        assert meant_by(what, every, repository) == every[1], what
    assert meant_by("main", every, repository) == every[0]
    for what in ("99", "ffffffff", "nothing"):
        with pytest.raises(UserError, match="no experiment of this search"):
            meant_by(what, every, repository)
    with pytest.raises(UserError, match="no score to reproduce"):
        reproduce(search, every[2])


def test_an_environment_is_recorded_once(search: Search) -> None:
    record_environment(search.journal, search.config, search.task)
    assert {"python", "device", "threads", "torch", "numpy"} <= set(
        read_environments(search.journal)[0].values
    )
