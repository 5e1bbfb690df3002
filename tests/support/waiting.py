"""A measurer whose trials last until a file is there, and that notes each time it begins one.

The candidate's script is `PATH SCORE`: a line is added to `PATH.begun` as a trial begins, and the trial ends
with that score once `PATH` exists.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autoresearch.execute.base import Place, TrialSpec
from autoresearch.testing.executors import SCRIPT
from autoresearch.types import Measurement, Outcome, Progress

MAKER = f"{__name__}:make"


class WaitingMeasurer:
    """Implements `execute.base.Measurer`."""

    def measure(
        self,
        tree: Path,
        spec: TrialSpec,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[Progress], bool] | None = None,
    ) -> Measurement:
        path, _, score = (tree / SCRIPT).read_text().rpartition(" ")
        with Path(f"{path}.begun").open("a") as stream:
            stream.write("begun\n")
        while not Path(path).exists():
            progress(Progress(0.5, 1.0))
            time.sleep(0.02)
        np.save(scratch / "validation.npy", np.full((3, 3), float(score)))
        return Measurement(Outcome.OK, float(score))

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        return Measurement(Outcome.OK)

    def close(self) -> None: ...


def make(place: Place, *_: object) -> tuple[WaitingMeasurer, dict[str, str]]:
    return WaitingMeasurer(), {}


def begun(path: Path) -> int:
    """How often a trial that waits for a file has begun."""
    noted = Path(f"{path}.begun")
    return len(noted.read_text().splitlines()) if noted.exists() else 0
