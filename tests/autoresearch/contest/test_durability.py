"""Killed at any boundary of either level, a contest and a search of briefs end as if they had not been.

Inner searches run in the process of the outer one, so a kill takes both at once, wherever each of them is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from autoresearch.contest.contest import Contest
from autoresearch.contest.plan import make_plan
from autoresearch.finish.claim import make_claim
from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.records.claims import read_claims
from autoresearch.tasks.brief import process
from autoresearch.tasks.brief.result import read_result
from tests.support import briefs, toy_task
from tests.support.faults import KILLED, Boundaries, in_child, install
from tests.support.stub import git

KILLS = int(os.environ.get("KILLS_OF_BRIEFS", "0"))
"""Boundaries at which each is killed, spread evenly over all; 0: at every one."""
SETTINGS = (*briefs.INNER, "proposer=replay")
OUTER = (
    *("task=brief", "task.editable=[poor.md]", "budget.experiments=1", "name=x", "brief=evolve"),
    *("proposer=replay", "experiments=1", "baselines=2", "judge=greedy", "claim=2", "tracking=none"),
    *('task.elsewhere=["data=tinystories"]', "executor.device=cpu"),
)
Work = Callable[[Path], None]


def line(path: str, search: str, replace: str) -> str:
    """One recorded proposal."""
    edit = {"path": path, "search": search, "replace": replace}
    return json.dumps({"hypothesis": replace, "category": "knobs", "edits": [edit]}) + "\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository; a brief with a step leads to a change that gains 0.05, one without to one that loses it.

    That is far beyond the noise: no verdict depends on which trials a busy machine has repeated.
    """
    toy_task.install(monkeypatch, tmp_path / "site")
    made = briefs.repository(tmp_path / "repo", good=briefs.brief(0.5), poor=briefs.brief(None))
    (tmp_path / "good.jsonl").write_text(line(toy_task.PATH, "LEVEL = 1.0", "LEVEL = 1.5"))
    (tmp_path / "poor.jsonl").write_text(line(toy_task.PATH, "LEVEL = 1.0", "LEVEL = 0.5"))
    (tmp_path / "outer.jsonl").write_text(line("poor.md", "Raise the level.", "Raise the level.\nStep: 0.5"))

    def run(code: Path, overrides: list[str], log: Path, tick: Callable[[], None]) -> int:
        path = next(o for o in overrides if o.startswith("brief=")).partition("=")[2]
        kind = "good" if "Step" in Path(path).read_text() else "poor"
        known = [o for o in overrides if not o.startswith("proposer.path=")]
        return briefs.run_here(code, [*known, f"proposer.path={tmp_path / kind}.jsonl"], log, tick)

    monkeypatch.setattr(process, "run_search", run)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # pictures would take most of the time
    monkeypatch.chdir(tmp_path)
    return made


def compete(root: Path) -> None:
    """A contest of two rounds."""
    os.chdir(root)
    repository, folder = Repository(root), root / "runs/x"
    settings = [*SETTINGS, "proposer.path=/nowhere", "experiments=1"]
    if not (folder / "contest.json").exists():
        Contest.begin(folder, make_plan(["good.md", "poor.md"], settings, repository, 2, None))
    held = Contest(folder)
    with held.alone():
        held.run(repository)


def improve(root: Path) -> None:
    """A search of briefs, and its claim on another corpus."""
    os.chdir(root)
    inner = briefs.listed((*SETTINGS, "proposer.path=/nowhere"))
    overrides = [*OUTER, f"task.search={inner}", f"proposer.path={root.parent}/outer.jsonl"]
    with open_search(overrides, "quiet") as made:
        assert made.run()
        make_claim(made, made.config.claim)


def story(root: Path) -> dict[str, object]:
    """All that must come out the same, of both levels."""
    found: dict[str, object] = {"checkout": git(root, "status", "--porcelain")}
    inner = []
    for path in (root / "runs/x/inner").glob("*/journal.db"):
        done = read_result(path.parent)
        assert done is not None, "it has ended"
        tried = [(e.number, e.proposal and e.proposal.hypothesis, e.kept) for e in done.experiments]
        # Its name ends with its seed, which the outer search draws.
        inner.append((done.name.partition("-")[0], round(done.gain, 6), done.void, tried))
    found["inner"] = sorted(inner, key=str)
    if (outer := root / "runs/x/journal.db").exists():
        with closing(Journal(outer)) as journal:
            experiments, [claim] = journal.experiments(), read_claims(journal)
            scores = [[t.score for t in e.trials if t.score is not None] for e in experiments]
            kinds = [e.verdict and e.verdict.kind for e in experiments]
            found["outer"] = list(zip(kinds, scores, strict=True))
            found["claim"] = claim.result and round(claim.result.effect, 6)
        found["branch"] = git(root, "log", "--format=%T %s", "autoresearch/x")
    else:
        standing = Contest(root / "runs/x").standing()
        found["contest"] = (standing.ranking, standing.rounds, standing.scores)
    return found


def told_of(boundaries: Boundaries, patch: Callable[[object, str, object], None]) -> None:
    """Journal, git, trials and files that take the place of others tell of their boundaries."""
    install(boundaries, patch)
    for name in ("rename", "replace", "symlink_to"):
        patch(Path, name, boundaries.after(lambda *_, what=name, **__: what, getattr(Path, name)))


def die(root: Path, work: Work, at: int) -> int:
    """Do the work in a process of its own that dies at a boundary."""

    def child() -> None:
        told_of(Boundaries(at), setattr)
        work(root)

    return in_child(child)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("work", [compete, improve])
def test_killed_at_every_boundary_of_both_levels(root: Path, work: Work) -> None:
    template = Path(shutil.copytree(root, root.parent / "template"))
    boundaries = Boundaries()
    with pytest.MonkeyPatch.context() as patch:
        told_of(boundaries, patch.setattr)
        work(root)
    told, passed = story(root), len(boundaries.names)
    assert len(told) > 2 and passed > 100, boundaries.names
    kills = KILLS or passed
    for at in sorted({1 + (2 * i + 1) * passed // (2 * kills) for i in range(kills)}):
        shutil.rmtree(root)
        shutil.copytree(template, root)
        assert die(root, work, at) in (0, KILLED)
        assert in_child(lambda: work(root)) == 0, f"killed at boundary {at} of {passed}"
        assert story(root) == told, f"killed at boundary {at} of {passed}, {boundaries.names[at - 1 :][:1]}"
