"""Killed at random instants, with real trials and a real MLflow store, a search ends as one that was not."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.propose.base import Check, Context, ProposerError
from autoresearch.search.loop import Search
from autoresearch.search.recovery import end_orphans
from autoresearch.store.git.repository import Repository
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Category, Edit, Proposal
from tests.autoresearch.search.test_durability import told
from tests.support import toy
from tests.support.gpt import make_measurer
from tests.support.stub import PATH, OneAtATime, git, make_search

pytestmark = pytest.mark.slow

EDITS = [
    ('group["lr"] = 1e-2 *', 'group["lr"] = 3e-2 *'),
    ("        step += 1\n", "        step += 1\n        assert step < 9, 'too far'\n"),
    ("ROWS, LENGTH = 32, 16, 64", "ROWS, LENGTH = 32, 8, 64"),
]
KILLS, SHARE, START = 8, 0.2, 4.0
"""How often a search is killed: after this share at most of what it takes alone, and seconds to start."""
RUN = """
import sys
from pathlib import Path
from tests.autoresearch.search.test_durability_real import go
go(Path(sys.argv[1]))
"""


class Listed(OneAtATime):
    """Proposes the edits above, one after the other."""

    name, instant = "listed", False

    def propose(self, context: Context, check: Check) -> Proposal:
        tried = len(context.paid)
        if tried >= len(EDITS):
            raise ProposerError("no more")
        proposal = Proposal(f"edit {tried}", Category.OTHER, (Edit(PATH, *EDITS[tried]),), self.name)
        check(proposal)
        return proposal


def go(root: Path) -> Search:
    """Run a search to its end, or go on with it; everything in it is real but the task and the proposer."""
    repository, folder = Repository(root), root / "runs" / "x"
    base = repository.resolve("main")
    assert base
    shutil.rmtree(folder / "trusted", ignore_errors=True)
    repository.export(base, ["nanomodel"], folder / "trusted")
    more = {"standby": folder / "standby", "trusted": folder / "trusted", "editable": (PATH,)}
    measurer = make_measurer(root / "runs" / "cache", **more)
    search = make_search(
        repository, [], "experiments=3", "baselines=2", proposer=Listed(), measurers={"cpu": measurer}
    )
    search.journal.update(config=search.config.model_dump(mode="json"))
    mirror = search.mirror = Mirror(
        enabled=True,
        uri=None,
        experiment="autoresearch",
        folder=root / "runs" / "mlflow",
        sources=lambda commit: repository.sources(commit, [PATH]),
    )
    try:
        search.run()
        assert mirror.close(search.journal) is None
    finally:
        measurer.close()
        search.journal.close()
    return search


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        root = tmp_path / name
        toy.write_code(root)
        (root / ".gitignore").write_text("runs/\n")
        for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "start"]):
            git(root, "-c", "user.name=S", "-c", "user.email=s@example.org", *words)
        toy.write_cache(root / "runs" / "cache", train=50_000, validation=1_501)
        return root

    return make


def story(search: Search) -> dict[str, object]:
    """All that must come out the same; which run of MLflow shows an experiment is its own affair."""
    known = told(search)
    return known


def shown(root: Path) -> list[tuple[object, ...]]:
    """What the MLflow store shows of each experiment."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root}/runs/mlflow/mlflow.db")
    (found,) = (e for e in client.search_experiments() if e.name == "autoresearch")
    runs = client.search_runs([found.experiment_id])
    measured = ("val_bpb", "effect")  # trials that were lost are shown, too
    return sorted(
        (r.info.run_name, r.info.status, *(str(r.data.metrics.get(name)) for name in measured)) for r in runs
    )


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2))
def test_real_trials_killed_again_and_again(make: Callable[[str], Path], seed: int) -> None:
    plain, root, chance = make("plain"), make("killed"), random.Random(seed)
    begun = time.monotonic()
    expected = story(go(plain))
    longest = START + SHARE * (time.monotonic() - begun)
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(root)], cwd=Path(__file__).parents[3])
        try:
            process.wait(chance.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            killed += 1
            process.kill()
            process.wait()
    assert killed > KILLS / 2
    assert story(go(root)) == expected
    assert shown(root) == shown(plain)
    assert end_orphans(root / "runs" / "x") == 0
