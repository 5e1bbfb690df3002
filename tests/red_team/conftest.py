"""One host for the whole red team, and an honest candidate's score to compare with.

By default every kind of attack is made once, in bubblewrap; the other sandboxes, its variants, and the proof
that it would succeed without the protection are soak tests, which CI runs too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from filelock import FileLock

from autoresearch.execute.sandbox import Sandbox
from autoresearch.types import Outcome
from tests.red_team.arena import Arena
from tests.support.jail import sandbox_or_skip
from tests.support.toy import TRAIN


@pytest.fixture(scope="package")
def arena() -> Iterator[Arena]:
    # On the disk, as in a search: what an attack writes in memory would count as its memory.
    with TemporaryDirectory(prefix="host", dir="/tmp", ignore_cleanup_errors=True) as root:
        arena = Arena.build(Path(root))
        yield arena
        arena.close()


@pytest.fixture(scope="session")
def bwrap() -> Sandbox:
    return sandbox_or_skip("bwrap")


SOAK = [pytest.param(name, marks=pytest.mark.soak) for name in ("landlock", "landlock-bare")]


@pytest.fixture(scope="session", params=["bwrap", *SOAK])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return sandbox_or_skip(request.param)


@pytest.fixture(scope="session", params=["bwrap", SOAK[0]])
def either(request: pytest.FixtureRequest) -> Sandbox:
    """For attacks on the scoring, which meet the same scorer everywhere: one other sandbox is enough."""
    return sandbox_or_skip(request.param)


@pytest.fixture(scope="package")
def trained(arena: Arena, tmp_path_factory: pytest.TempPathFactory, worker_id: str, testrun_uid: str) -> Path:
    """A folder with the `weights` and the `score` of the honest candidate.

    The first of several workers that test at once trains it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / f"{testrun_uid}-honest"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            done = arena.fight(TRAIN, sandbox_or_skip("bwrap"), submission=folder / "weights")
            assert done.outcome is Outcome.OK, done
            (folder / "score").write_text(repr(done.score))
    return folder


@pytest.fixture(scope="package")
def honest_score(trained: Path) -> float:
    """What the honest candidate scores."""
    return float((trained / "score").read_text())
