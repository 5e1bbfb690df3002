"""The measurer of the GPT task at the scale of tests: a toy candidate, trained for a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nanomodel
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import Limits, Sandbox, create_sandbox
from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.tasks.gpt.settings import Settings, TrainingBudget
from autoresearch.types import Measurement, Progress, Split
from tests.support.stub import quiet_machine

CONTEXT = 32
SCRIPT = "nanomodel/train.py"
SETTINGS = Settings(
    train="nanomodel.train",
    serve="nanomodel.serve",
    score="nanomodel.score",
    trusted=Path(nanomodel.__file__).parent.parent,
    budget=TrainingBudget("tokens", 20_000, max_seconds=60.0),
    context=CONTEXT,
    compile=False,
    startup_seconds=120.0,
    score_seconds=60.0,
    limits=Limits(memory_gb=4.0, processes=64, file_gb=0.5, open_files=128),
    max_bytes=10_000_000,
    probes=32,
)


def make_measurer(
    data: Path,
    sandbox: Sandbox | None = None,
    *,
    kind: str = "tokens",
    amount: float = 20_000,
    max_seconds: float = 60.0,
    health: Any = None,
    load: Any = None,
    say: Callable[[str], None] = lambda text: None,
    **changes: Any,
) -> GptMeasurer:
    """A measurer with some settings changed."""
    budget = TrainingBudget(kind, amount, max_seconds)
    settings = replace(SETTINGS, budget=budget, **changes)
    load = load or quiet_machine()
    return GptMeasurer(settings, sandbox or create_sandbox("auto"), data, health=health, say=say, load=load)


def measure(
    measurer: GptMeasurer,
    tree: Path,
    scratch: Path,
    progress: Callable[[Progress], None] = lambda sign: None,
    should_stop: Callable[[Progress], bool] | None = None,
    *,
    seed: int = 1,
    splits: tuple[Split, ...] = (Split.VALIDATION,),
    **asked: Any,
) -> Measurement:
    """One trial; `asked` are further fields of its spec."""
    spec = TrialSpec("test", 1, "", seed, splits=splits, **asked)
    return measurer.measure(tree, spec, scratch, progress, should_stop)
