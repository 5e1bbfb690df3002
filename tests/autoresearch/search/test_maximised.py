"""A whole search whose metric is maximised: from the proposal to verdict, branch, report and plot."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from autoresearch.finish.claim import make_claim
from autoresearch.report.estimates import staircase
from autoresearch.report.summary import summarize
from autoresearch.search.setup.open import open_search
from autoresearch.types import Category, Edit, Proposal, VerdictKind
from tests.support import toy_task
from tests.support.stub import git

LEVEL, OTHER = toy_task.SCRIPT.splitlines()
CHANGES = [
    (LEVEL, "LEVEL = 1.6", VerdictKind.KEEP),  # the score rises by 0.06
    (OTHER, "OTHER = 1", VerdictKind.DISCARD),
    ("LEVEL = 1.6", "LEVEL = 1.1", VerdictKind.DISCARD),  # it falls by 0.05
    (OTHER, "OTHER = 'crash'", VerdictKind.CRASH),
    (OTHER, "OTHER = 'hopeless'", VerdictKind.PRUNE),
]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy_task.register(monkeypatch)
    root = toy_task.make_repository(tmp_path / "repo")
    proposals = [
        Proposal(f"change {i}", Category.OTHER, (Edit(toy_task.PATH, old, new),), "replay").to_dict()
        for i, (old, new, _) in enumerate(CHANGES)
    ]
    (tmp_path / "proposals.jsonl").write_text("\n".join(map(json.dumps, proposals)))
    monkeypatch.chdir(root)
    return root


def test_a_maximised_metric_works_from_proposal_to_plot(repository: Path, tmp_path: Path) -> None:
    settings = ["name=x", "task.name=toy", "tracking=none", "executor.device=cpu", "claim=3", "lookahead=0"]
    replay = ["proposer=replay", f"proposer.path={tmp_path / 'proposals.jsonl'}"]
    with open_search([*settings, *replay], "quiet") as search:
        assert search.run()
        claimed = make_claim(search, 3)
        experiments, summary = search.journal.experiments(), summarize(search.journal)
    kinds = [e.verdict.kind for e in experiments if e.verdict]
    assert kinds == [kind for _, _, kind in CHANGES]
    first = experiments[1].verdict
    assert first and first.effect == pytest.approx(0.06, abs=0.01), "an effect is a gain"
    assert first.levels and first.levels.incumbent.mean > first.levels.baseline.mean, "levels are scores"
    low, high = first.levels.incumbent.interval or (0.0, 0.0)
    assert low < first.levels.incumbent.mean < high
    assert "LEVEL = 1.6" in git(repository, "show", f"autoresearch/x:{toy_task.PATH}")
    message = git(repository, "log", "-1", "--format=%B", "autoresearch/x")
    assert "Verdict: keep" in message and "Metric: accuracy 0.6" in message and "Delta: +0.0" in message
    best, start = summary.estimates.best, summary.estimates.baseline
    assert summary.metric == toy_task.ToyTask.metric and best and best.estimate and start and summary.gain
    assert best.estimate.mean > start.mean and summary.gain.absolute > 0
    assert claimed.result and claimed.result.effect == pytest.approx(0.06, abs=0.01)
    assert claimed.result.tip > claimed.result.baseline > 0
    levels = [moment.best for moment in staircase(experiments)]
    assert min(levels[1:]) > levels[0] + 0.04, "the best rises in the plot"
    page = (repository / "runs" / "x" / "report" / "report.md").read_text()
    assert "accuracy" in page and "bits per byte" not in page
    assert asdict(summary.metric)["direction"] == "max"
