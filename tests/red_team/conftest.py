"""One host for the whole red team, and an honest candidate's score to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autoresearch.run.sandbox import Sandbox
from autoresearch.types import Outcome
from tests.red_team.arena import HONEST, Arena
from tests.support.jail import sandbox_or_skip


@pytest.fixture(scope="package")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    arena = Arena.build(tmp_path_factory.mktemp("host"))
    yield arena
    arena.close()


@pytest.fixture(scope="session")
def bwrap() -> Sandbox:
    return sandbox_or_skip("bwrap")


@pytest.fixture(
    scope="session", params=["bwrap", "landlock", pytest.param("landlock-bare", marks=pytest.mark.soak)]
)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return sandbox_or_skip(request.param)


@pytest.fixture(scope="session", params=["bwrap", pytest.param("landlock", marks=pytest.mark.soak)])
def either(request: pytest.FixtureRequest) -> Sandbox:
    """For attacks on the scoring, which meet the same scorer in every sandbox: the second one is for soak."""
    return sandbox_or_skip(request.param)


@pytest.fixture(scope="package")
def honest_score(arena: Arena) -> float:
    """What the honest candidate scores."""
    done = arena.fight(HONEST, sandbox_or_skip("bwrap"))
    assert done.outcome is Outcome.OK, done
    assert done.score is not None
    return done.score
