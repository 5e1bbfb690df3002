from pathlib import Path

import pytest

import autoresearch
from autoresearch.errors import UserError
from tests.support.stub import make_repository, make_search


def test_a_search_is_read_as_frames(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2, 1.9])
    search.run()
    found = autoresearch.open("x", str(search.repository.root / "runs"))
    assert list(found.experiments.index) == [0, 1, 2]
    assert list(found.experiments["verdict"])[1:] == ["keep", "discard"]
    trials = found.trials
    assert len(trials) == found.summary.trials["total"] and trials["score"].notna().all()
    assert set(found.curves.columns) == {"trial", "experiment", "fraction", "loss"}
    with pytest.raises(UserError, match="no search"):
        autoresearch.open("none", str(tmp_path))
