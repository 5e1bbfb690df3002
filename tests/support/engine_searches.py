"""A search of the toy task that must end the same whatever engine runs its trials, and whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from autoresearch.search.setup.open import open_search
from autoresearch.store.journal import Journal
from autoresearch.types import Category, Edit, Proposal
from tests.support import toy_task
from tests.support.stub import git

CHANGES = [
    ("LEVEL = 1.0", "LEVEL = 1.6"),
    ("OTHER = 0", "OTHER = 1"),
    ("LEVEL = 1.6", "LEVEL = 1.1"),
    ("OTHER = 0", "OTHER = 'crash'"),
    ("LEVEL = 1.6", "LEVEL = 1.9"),
]

HERE = ("executor=local", "executor.device=cpu", "executor.workers=1")
"""The engine that all others must agree with."""


def settings(folder: Path, *engine: str) -> list[str]:
    """The settings of the search; its proposals are written below a folder."""
    proposals = [
        Proposal(f"change {i}", Category.OTHER, (Edit(toy_task.PATH, *change),), "replay").to_dict()
        for i, change in enumerate(CHANGES)
    ]
    (folder / "proposals.jsonl").write_text("\n".join(map(json.dumps, proposals)))
    common = ["name=x", "task.name=toy", "tracking=none", "claim=0", "lookahead=0", "sandbox=none"]
    return [*common, "proposer=replay", f"proposer.path={folder / 'proposals.jsonl'}", *engine]


def run(overrides: Sequence[str]) -> None:
    """Run the search, or go on with it, in the repository of the working directory."""
    with open_search(list(overrides), "quiet") as search:
        search.run()


def outcome(root: Path) -> object:
    """What must be the same wherever a search runs: scores, verdicts, the branch."""
    journal = Journal(root / "runs" / "x" / "journal.db")
    experiments = journal.experiments()
    trials = [(t.seed, t.arm, t.score, t.result.outcome) for e in experiments for t in e.trials if t.result]
    verdicts = [e.verdict and (e.verdict.kind, e.verdict.effect) for e in experiments]
    journal.close()
    return trials, verdicts, git(root, "rev-parse", "autoresearch/x^{tree}")
