import io
import json
import os
import sqlite3
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app, main
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease, lock
from autoresearch.store.records.notes import write_unbilled
from autoresearch.types import Category, Cost, Edit, Measurement, Outcome, Proposal
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


def test_every_search_is_listed_and_a_log_says_what_its_numbers_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    monkeypatch.chdir(search.repository.root)

    def said(*arguments: str) -> str:
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

    (row,) = json.loads(said("list", "--json"))
    assert (row["name"], row["state"], row["tried"]) == ("x", "ended", 1)
    head, line = said("list").splitlines()
    assert head.split()[:3] == ["name", "begun", "state"] and line.startswith("x ")
    head = said("log", "name=x").splitlines()[0]
    assert head.split()[:4] == ["#", "verdict", search.task.metric.name, "change"] and "is better" in head
    assert said("log", "-h") == said("log", "--help")


def test_a_diff_is_shown_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    monkeypatch.chdir(search.repository.root)
    said = CliRunner().invoke(app, ["show", "1", "name=x"], catch_exceptions=False).stdout
    assert search.journal.experiment(1).diff in said


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


EVIL = "a\x1b[2J b\x1b]52;c;ZXZpbA==\x07 c\rd \u202ee\u2066 \x9b31m\u200b \u2028f"


def test_what_candidates_wrote_is_printed_harmlessly(done: Path) -> None:
    journal = Journal(done / "journal.db")
    found = journal.experiment(1)
    assert found.proposal and found.verdict
    result = Measurement(Outcome.CRASH, reason=EVIL, log=EVIL)
    row = {
        "proposal": json.dumps(replace(found.proposal, hypothesis=EVIL, mechanism=EVIL, risk=EVIL).to_dict()),
        "verdict": json.dumps(replace(found.verdict, reason=EVIL).to_dict()),
        "diff": found.diff + f"+# {EVIL}\n",
    }
    with sqlite3.connect(journal.path) as db:
        for name, value in row.items():
            db.execute(f"UPDATE experiments SET {name} = ? WHERE number = 1", (value,))
        db.execute("UPDATE trials SET result = ? WHERE experiment = 1", (json.dumps(result.to_dict()),))
    for command in ("diff 1", "show 1", "show 1 --json", "log", "log --json", "status", "diff"):
        said = inside(done.parent.parent, *command.split())
        hidden = [c for c in said if unicodedata.category(c)[0] == "C" and c not in "\n\t"]
        assert not hidden and "\u2028" not in said, (command, hidden)
    assert "+# a\\x1b[2J" in inside(done.parent.parent, "diff", "1"), "a person sees that it is there"


def test_status_says_which_model_does_not_deliver(done: Path) -> None:
    journal = Journal(done / "journal.db")
    write_unbilled(journal, {"openai:small": Cost(7), "openai:large": Cost()}, ["openai"])
    said = inside(done.parent.parent, "status")
    assert "openai:small: 7 calls since its last proposal led to none." in said and "large" not in said


def test_a_folder_whose_name_is_no_text_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["autoresearch", "--version"])
    with pytest.raises(SystemExit):
        main()
    print("report: /home/r\udcff/report.html", flush=True)
    assert rb"/home/r\udcff/report.html" in printed.getvalue()
