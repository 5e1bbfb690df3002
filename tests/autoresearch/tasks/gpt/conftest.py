"""What whole trials share: toy data, one measurer for each worker, and one honest trial for all of them."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.types import Measurement, Progress
from tests.autoresearch.conftest import Once
from tests.support import toy
from tests.support.gpt import make_measurer, measure

KEPT = "claims/tip.weights"


@dataclass(frozen=True)
class Honest:
    """One trial of the toy candidate.

    Attributes:
        place: Holds the candidate's tree in `code`, the trial's `scratch`, and the weights that were kept.
        done: What was measured.
        seen: What was told meanwhile.
    """

    place: Path
    done: Measurement
    seen: list[Progress]

    @property
    def submission(self) -> str:
        """Where the weights lie."""
        return str(self.place / KEPT)


@pytest.fixture(scope="session")
def cache(once: Once) -> Path:
    """Prepared data."""
    return once("toy-data", lambda path: toy.write_cache(path, train=50_000, validation=1_501))


@pytest.fixture(scope="session")
def runner(cache: Path) -> Iterator[GptMeasurer]:
    """One measurer, and so one scorer, for many trials: as in a search."""
    runner = make_measurer(cache)
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def honest(once: Once, runner: GptMeasurer) -> Honest:
    """A trial with which others are compared."""

    def make(place: Path) -> None:
        code, seen = toy.write_code(place / "code"), list[Progress]()
        done = measure(runner, code, place / "scratch", seen.append, submission=str(place / KEPT))
        (place / "measured").write_bytes(pickle.dumps((done, seen)))

    place = once("toy-trial", make)
    return Honest(place, *pickle.loads((place / "measured").read_bytes()))
