import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.store.lock import Lease, lock
from autoresearch.types import Category, Edit, Proposal
from tests.support.cli import inside
from tests.support.stub import PATH, make_repository, make_search


def test_status_says_who_runs_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    monkeypatch.chdir(search.repository.root)

    def said(*arguments: str) -> str:
        return CliRunner().invoke(app, ["status", "name=x", *arguments], catch_exceptions=False).stdout

    assert "Not running." in said() and json.loads(said("--json"))["runner"] is None
    ours = Lease.ours()
    search.journal.set("lease", ours.to_json())
    assert f"process {os.getpid()} on {ours.host}" in said() and "Not running." not in said()
    assert json.loads(said("--json"))["runner"]["pid"] == os.getpid()
    search.journal.set("lease", replace(ours, born=1.0).to_json())
    assert "autoresearch run name=x" in said()


def test_show_tells_what_was_given_up_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    edits = (Edit(PATH, "LEVEL = 1.0", "LEVEL = 3.0"),)
    draft = search.journal.draft(Proposal("three\x1b[31m", Category.KNOBS, edits, "x"), "b", 1.0)
    search.journal.drop(draft, "in the way")
    monkeypatch.chdir(search.repository.root)
    said = CliRunner().invoke(app, ["show", "1", "name=x"], catch_exceptions=False).stdout
    assert "Dropped after it: three" in said and "(in the way)" in said and "\x1b[31m" not in said


def test_a_second_runner_exits_with_code_4_and_says_who_is_first(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repo").root
    with lock(root / "runs" / "x"):
        said = inside(root, "run", "name=x", "experiments=1", code=4)
    assert f"already running (process {os.getpid()}" in said and "status name=x" in said


def test_the_status_says_where_the_time_went(done: Path) -> None:
    said = CliRunner().invoke(app, ["status", "name=x", "--json"], catch_exceptions=False).stdout
    told = json.loads(said)["time"]
    assert told["wall_seconds"] >= 0 and "record" in told["phases"]


def test_a_trace_is_written(done: Path) -> None:
    assert "trace: " in CliRunner().invoke(app, ["trace", "name=x"], catch_exceptions=False).stdout
    assert (done / "report/trace.json").stat().st_size > 100
