"""What is taken home, on the command line: each command on one real search of a toy task."""

import json
from pathlib import Path

import pytest

from tests.support import toy_task
from tests.support.cli import inside
from tests.support.stub import git


@pytest.mark.soak
def test_a_search_is_reproduced_ablated_branched_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_task.install(monkeypatch, tmp_path / "site")
    root = toy_task.make_repository(tmp_path / "repo")
    asked = ["task=toy", "proposer=random", "judge=greedy", "experiments=6", "baselines=2", "claim=0"]
    said = inside(root, "run", "name=t", "tracking=none", "executor.device=cpu", *asked)
    assert "protection   " in said and "experiments  6 more" in said, "the plan comes first"
    before = git(root, "status", "--porcelain", "--branch")
    assert "#0" in inside(root, "reproduce", "name=t", "0") and "Which experiment?" in inside(
        root, "reproduce", "name=t", code=2
    )
    tip = json.loads(inside(root, "status", "name=t", "--json"))["best"]["experiment"]
    told = json.loads(inside(root, "reproduce", str(tip), "name=t", "--json"))
    assert told["same"] and told["after"] == told["before"] and told["differences"] == {}
    assert "writes no text" in inside(root, "sample", "name=t", code=2)
    kept = [json.loads(line) for line in inside(root, "log", "name=t", "--json").splitlines()]
    kept = [row for row in kept if row["verdict"] == "keep"]
    said = inside(root, "ablate", "name=t", "--seeds", "1", code=0 if len(kept) > 1 else 2)
    assert "one at a time left out" in said if len(kept) > 1 else "nothing to audit" in said
    made = json.loads(inside(root, "branch", "name=t", "--as", "mine", "--json"))
    assert made["commits"] == [row["commit"] for row in kept] and made["whole"]
    assert "import t.zip" in inside(root, "export", "name=t", "--to", "../t.zip")
    assert "autoresearch report name=t" in inside(tmp_path, "import", "t.zip", "--into", "there")
    assert git(root, "status", "--porcelain", "--branch") == before
