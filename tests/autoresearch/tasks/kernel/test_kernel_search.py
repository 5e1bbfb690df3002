"""A whole search for a faster kernel in C: the commit that is really faster is kept, the others are not."""

import json
from pathlib import Path

import pytest

from autoresearch.search.setup import open_search
from autoresearch.types import Category, Edit, Proposal, VerdictKind
from tests.support.kernels import C_FAST, C_SLOW, C_SPEC, SMALL, write_tree
from tests.support.stub import git

WRONG = C_FAST.replace("k < 8", "k < 7")


@pytest.mark.slow
def test_a_faster_kernel_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "repo", C_SLOW, C_SPEC, "kernel.c")
    (root / ".gitignore").write_text("runs/\n")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
        git(root, "-c", "user.name=S", "-c", "user.email=s@example.org", *command)
    proposals = [
        Proposal(name, Category.OTHER, (Edit("kernel.c", C_SLOW, text),), "replay").to_dict()
        for name, text in (("leave some out", WRONG), ("one pass", C_FAST))
    ]
    (tmp_path / "proposals.jsonl").write_text("\n".join(map(json.dumps, proposals)))
    monkeypatch.chdir(root)
    replay = ["proposer=replay", f"proposer.path={tmp_path / 'proposals.jsonl'}", "lookahead=0"]
    with open_search([*SMALL, "tracking=none", "claim=0", "baselines=2", *replay], "quiet") as search:
        assert search.run()
        experiments = search.journal.experiments()
    assert [e.verdict.kind for e in experiments if e.verdict] == [VerdictKind.KEEP], (
        "the other fails a tryout"
    )
    assert experiments[1].verdict.effect > 0.5
    assert "sum += x[i]" in git(root, "show", "autoresearch/x:kernel.c")
    assert "Metric: log2_speedup" in git(root, "log", "-1", "--format=%B", "autoresearch/x")
    page = (root / "runs" / "x" / "report" / "report.md").read_text()
    assert "doublings" in page
