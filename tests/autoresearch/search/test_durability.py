"""Killed at any boundary, a search that is run again ends as one that was never killed."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import read_slices
from tests.support.faults import KILLED, Boundaries, in_child, install, install_in
from tests.support.many_places import sound
from tests.support.stub import git, make_repository, make_search, with_unseen_text

pytestmark = pytest.mark.slow

IDEAS: list[float | str] = [0.2, "OTHER = 7", 0.1]
SETTINGS = ("experiments=3", "baselines=2")
EVENLY, PARTS = int(os.environ.get("KILLS", "12")), 4
"""How many boundaries are tried by default, spread evenly over all there are, and in how many tests; every
other one with two places."""


@dataclass(frozen=True)
class Night:
    """One repository, copied afresh for each kill, and how its search ends if nobody kills it.

    Attributes:
        template: The repository.
        workers: Places.
        unseen: Whether there is unseen text, on which keeps are checked. After a kill another slice is used.
    """

    template: Path
    workers: int
    unseen: bool = False

    def search(self, folder: Path) -> Search:
        settings = (*SETTINGS, f"executor.workers={self.workers}")
        search = make_search(Repository(folder), IDEAS, *settings, instant=False)
        return with_unseen_text(search) if self.unseen else search

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.template, folder))

    def die(self, folder: Path, at: int) -> int:
        def work() -> None:
            boundaries = Boundaries(at)
            install(boundaries, setattr)
            search = self.search(folder)
            install_in(search, boundaries)
            search.run()

        return in_child(work)

    def die_somewhere(self, folder: Path, seconds: float) -> None:
        in_child(lambda: self.search(folder).run(), kill_after=seconds)

    def finish(self, folder: Path) -> dict[str, object]:
        search = self.search(folder)
        search.run()
        experiments = search.journal.experiments()
        if self.unseen:
            sound(search)
            kept = [e for e in experiments if e.kept]
            checked = [use.trials for use in read_slices(search.journal) if use.outcome]
            counted = {e.number: e.verdict.trials for e in kept if e.verdict}
            return {"kept": counted, "checks": len(checked)}
        if self.workers > 1:  # what is in flight beside what else is chance, and so are the verdicts
            sound(search)
            tried = [p.hypothesis for e in experiments for p in (e.proposal, *e.dropped) if p]
            return {"tried": sorted(tried), "waiting": search.journal.drafts()}
        search.journal.close()
        return told(search)


def told(search: Search) -> dict[str, object]:
    """All that must come out the same."""
    journal, root = Journal(search.journal.path), search.repository.root
    report = json.loads(journal.judge_state() or "{}")["state"]
    story: dict[str, object] = {
        "verdicts": [
            (e.number, e.state, e.proposal and e.proposal.hypothesis, e.verdict and e.verdict.to_dict())
            for e in journal.experiments()
        ],
        "refs": git(root, "for-each-ref", "--format=%(refname) %(tree) %(contents:subject)"),
        "branch": git(root, "log", "--format=%T %s", "main..autoresearch/x"),
        "judge": [report[key] for key in ("candidates", "confirmed", "failed", "keeps", "baseline")],
        "dropped": [e.dropped for e in journal.experiments()],
        "waiting": journal.drafts(),
        "locks": sorted(p.name for p in (root / ".git").rglob("*.lock")),
        "worktrees": git(root, "worktree", "list", "--porcelain").count("worktree "),
        "trials": sorted(p.name for p in search.folder.glob("trials/*")),
        "asked": journal._db.execute("SELECT COUNT(*) FROM drafts").fetchone(),
        "checkout": git(root, "status", "--porcelain"),
        "scores": [e.scores for e in journal.experiments()],
        "requests": report["_requests"],
        "messages": git(root, "for-each-ref", "--format=%(contents)", "refs/autoresearch"),
    }
    journal.close()
    return story


@pytest.fixture(
    scope="module", params=[(1, False), (2, False), (1, True)], ids=["serial", "two places", "unseen text"]
)
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Night:
    template = tmp_path_factory.mktemp("night") / "template"
    make_repository(template)
    return Night(template, *request.param)


@pytest.fixture(scope="module")
def undisturbed(night: Night, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], int]:
    """The story of a search that nobody kills, and how many boundaries it passes."""
    folder = tmp_path_factory.mktemp("plain")
    story = night.finish(night.copy(folder / "told"))
    boundaries = Boundaries()
    with pytest.MonkeyPatch.context() as patch:
        install(boundaries, patch.setattr)
        search = night.search(night.copy(folder / "counted"))
        install_in(search, boundaries)
        search.run()
    search.journal.close()
    assert len(boundaries.names) > EVENLY
    return story, len(boundaries.names)


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_a_boundary_it_ends_as_if_it_had_not_been(
    night: Night, undisturbed: tuple[dict[str, object], int], part: int, tmp_path: Path
) -> None:
    story, count = undisturbed
    points = [1 + i * count // EVENLY for i in range(EVENLY)]
    for at in points[night.workers - 1 :: 2][part::PARTS]:
        folder = night.copy(tmp_path / str(at))
        assert night.die(folder, at) in (0, KILLED)
        assert night.finish(folder) == story, f"killed at boundary {at} of {count}"
        shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_every_boundary(
    night: Night, undisturbed: tuple[dict[str, object], int], tmp_path: Path
) -> None:
    story, count = undisturbed
    for at in range(1, count + 1):
        folder = night.copy(tmp_path / str(at))
        assert night.die(folder, at) in (0, KILLED)
        assert night.finish(folder) == story, f"killed at boundary {at} of {count}"
        shutil.rmtree(folder)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_killed_again_and_again_under_load(
    night: Night, undisturbed: tuple[dict[str, object], int], seed: int, tmp_path: Path
) -> None:
    story, count = undisturbed
    chance = random.Random(seed)
    folder = night.copy(tmp_path / "repo")
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        for _ in range(4):  # also while it recovers, and while it recovers from that
            night.die(folder, chance.randint(1, count // 2))
            night.die_somewhere(folder, chance.random())
        assert night.finish(folder) == story
    finally:
        for process in load:
            process.kill()
            process.wait()
