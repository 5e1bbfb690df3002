"""A search in the example of a kernel in C: the commit that is really faster is kept."""

import json
import shutil
from pathlib import Path

import pytest

from autoresearch.search.setup.open import open_search
from autoresearch.types import Category, Edit, Proposal, VerdictKind
from tests.support.stub import git

EXAMPLE = Path(__file__).parents[4] / "examples" / "kernel-c"
FAST = """#include <stdint.h>

void kernel(const float *image, float *out, int64_t rows, int64_t columns) {
    for (int64_t y = 0; y < rows; y++) {
        const float *up = image + (y ? y - 1 : rows - 1) * columns, *at = image + y * columns;
        const float *down = image + (y + 1 < rows ? y + 1 : 0) * columns;
        float *to = out + y * columns;
        for (int64_t x = 1; x + 1 < columns; x++) {
            float left = up[x - 1] + 2 * at[x - 1] + down[x - 1];
            float right = up[x + 1] + 2 * at[x + 1] + down[x + 1];
            to[x] = (left + 2 * (up[x] + 2 * at[x] + down[x]) + right) / 16.0f;
        }
        for (int64_t x = 0; x < columns; x += columns > 1 ? columns - 1 : 1) {
            int64_t l = x ? x - 1 : columns - 1, r = x + 1 < columns ? x + 1 : 0;
            float left = up[l] + 2 * at[l] + down[l], right = up[r] + 2 * at[r] + down[r];
            to[x] = (left + 2 * (up[x] + 2 * at[x] + down[x]) + right) / 16.0f;
        }
    }
}
"""
WRONG = FAST.replace("x += columns > 1 ? columns - 1 : 1", "x += columns")  # leaves the last column out


@pytest.mark.soak
def test_a_faster_kernel_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shutil.copytree(EXAMPLE, tmp_path / "repo", ignore=shutil.ignore_patterns("runs"))
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
        git(root, "-c", "user.name=S", "-c", "user.email=s@example.org", *command)
    slow = (root / "kernel.c").read_text()
    proposals = [
        Proposal(name, Category.OTHER, (Edit("kernel.c", slow, text),), "replay").to_dict()
        for name, text in (("leave some out", WRONG), ("wrap at the edges only", FAST))
    ]
    (tmp_path / "proposals.jsonl").write_text("\n".join(map(json.dumps, proposals)))
    monkeypatch.chdir(root)
    replay = ["proposer=replay", f"proposer.path={tmp_path / 'proposals.jsonl'}", "lookahead=0"]
    small = ["budget.pairs=8", "baselines=2", "executor.device=cpu", "executor.workers=1", "tracking=none"]
    with open_search(["name=x", *small, *replay], "quiet") as search:
        assert search.run()
        experiments = search.journal.experiments()
    assert [e.verdict.kind for e in experiments if e.verdict] == [VerdictKind.KEEP], (
        "the other fails a tryout"
    )
    assert experiments[1].verdict.effect > 1, "more than twice as fast"
    assert "*down" in git(root, "show", "autoresearch/x:kernel.c")
    assert "Metric: log2_speedup" in git(root, "log", "-1", "--format=%B", "autoresearch/x")
    assert "doublings" in (root / "runs" / "x" / "report" / "report.md").read_text()
