"""A task of milliseconds that is maximised: the score is a number in a file, read by a frozen scorer.

Nothing of it is nanomodel's. `LEVEL` raises the score, seed noise is `NOISE`, and words in the file make a
candidate fail: "crash", "cheat" (invalid), "hopeless" (its loss never falls), "instantly" (fails the tryout).
`register` makes `create_task` find it by its name.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autoresearch import tasks
from autoresearch.config import Config
from autoresearch.errors import Refused
from autoresearch.execute.base import Measurer, Place, TrialSpec
from autoresearch.execute.sandbox import Sandbox
from autoresearch.registry import Registry
from autoresearch.tasks.base import Budget, Dataset, PromptText, Task, Trust
from autoresearch.types import (
    Direction,
    Fidelity,
    Measurement,
    Metric,
    Outcome,
    Progress,
    Provenance,
    Split,
)

PATH = "toy/answer.py"
SCRIPT = "LEVEL = 1.0  # 0..2\nOTHER = 0\n"
NOISE = 0.002


class ToyTask(Task):
    """Implements `tasks.base.Task`."""

    name = "toy"
    metric = Metric("accuracy", "share of right answers", Direction.MAXIMIZE, digits=3)
    trust = Trust.ARTIFACT
    editable: tuple[str, ...] = (PATH,)
    frozen: tuple[str, ...] = ("toy",)
    budget = Budget("one look at the answer", seconds=0.01, max_seconds=1.0)
    by_hand = "cat toy/answer.py"
    sealed: Split | None = Split.TEST

    def __init__(self, config: Config | None = None, *, noise: float = NOISE, places: int = 1) -> None:
        self.noise, self.deterministic, self._places = noise, True, places

    def shares(self, split: Split, data: Mapping[str, object]) -> int:
        return 0

    def prepare(self, cache: Path) -> Dataset:
        cache.mkdir(parents=True, exist_ok=True)
        splits = frozenset((Split.TRAIN, Split.VALIDATION, Split.TEST))
        return Dataset(cache, {"corpus": "none", "splits": {str(split): {} for split in splits}}, splits)

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        if set(after) != set(self.editable):
            raise Refused(f"only {PATH} may be edited")
        try:
            ast.parse(after[PATH])
        except SyntaxError as error:
            raise Refused(f"{PATH} is not Python: {error}") from None
        if self.fingerprint(before) == self.fingerprint(after):
            raise Refused("the program stays the same")

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        trees = {path: ast.dump(ast.parse(text)) for path, text in sources.items()}
        return hashlib.sha256(json.dumps(trees, sort_keys=True).encode()).hexdigest()

    def growth(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        def statements(sources: Mapping[str, str]) -> int:
            return sum(len(ast.parse(text).body) for text in sources.values())

        return statements(after) - statements(before)

    def places(self) -> Sequence[Place]:
        return [Place(f"toy:{number}", "a toy") for number in range(self._places)]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        return ToyMeasurer(place, self.noise)

    def prompt(self) -> PromptText:
        return PromptText("You set a number.", ("Edit the number alone.",), self.budget.text, {})

    def warnings(self, data: Dataset) -> Sequence[str]:
        return []


class ToyMeasurer:
    """Implements `execute.base.Measurer` within the process; remembers what it was asked.

    Attributes:
        measured: (source, seed) of each trial, in order.
        tried: Source of each tryout.
    """

    def __init__(self, place: Place, noise: float = NOISE) -> None:
        self.place, self.noise = place, noise
        self.measured: list[tuple[str, int]] = []
        self.tried: list[str] = []

    def measure(
        self,
        tree: Path,
        spec: TrialSpec,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[Progress], bool] | None = None,
    ) -> Measurement:
        source = (tree / PATH).read_text()
        kept = Path(spec.submission) if spec.submission else None
        if kept and kept.exists():
            source = kept.read_text()
        else:
            self.measured.append((source, spec.seed))
        if "crash" in source:
            return self._failed(Outcome.CRASH, "error: it crashed", spec.fidelity)
        if "cheat" in source:
            return self._failed(Outcome.INVALID, "it changed the scorer", spec.fidelity)
        curve = tuple((i / 20, 9.0 if "hopeless" in source else 9.0 - 5 * i / 20) for i in range(21))
        for fraction, loss in curve:
            sign = Progress(fraction, fraction, loss=loss)
            progress(sign)
            if should_stop is not None and should_stop(sign):
                reason = f"stopped at {fraction:.0%}: hopeless"
                return self._failed(Outcome.PRUNE, reason, spec.fidelity, fraction, curve)
        found = re.search(r"LEVEL = ([-\d.e]+)", source)
        if found is None:
            return self._failed(Outcome.CRASH, "error: there is no LEVEL", spec.fidelity)
        score = 0.5 + float(found[1]) / 10 + random.Random(spec.seed).gauss(0, self.noise)
        metrics = {"train_seconds": 0.01, **{f"{split}_accuracy": score for split in spec.splits[1:]}}
        origin = Provenance(self.place.name, self.place.device, "here", spec.fidelity)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(source)
        return Measurement(Outcome.OK, score, metrics=metrics, curve=curve, provenance=origin)

    def tryout(self, tree: Path, scratch: Path) -> Measurement:
        source = (tree / PATH).read_text()
        self.tried.append(source)
        if "instantly" in source:
            return self._failed(Outcome.CRASH, "error: it crashed at once", Fidelity.TRYOUT)
        origin = Provenance(self.place.name, self.place.device, "here", Fidelity.TRYOUT)
        return Measurement(Outcome.OK, provenance=origin)

    def close(self) -> None: ...

    def _failed(
        self,
        outcome: Outcome,
        reason: str,
        fidelity: Fidelity,
        fraction: float = 0.0,
        curve: tuple[tuple[float, float], ...] = (),
    ) -> Measurement:
        origin = Provenance(self.place.name, self.place.device, "here", fidelity, fraction)
        return Measurement(outcome, reason=reason, curve=curve, provenance=origin)


def write_repository(root: Path, script: str = SCRIPT) -> Path:
    """The files of the task, below the root of a repository."""
    (root / PATH).parent.mkdir(parents=True, exist_ok=True)
    (root / PATH).write_text(script)
    return root


def make_repository(root: Path) -> Path:
    """A repository of somebody with the files of the task in its first commit."""
    from tests.support.stub import git  # here, since the command line loads this module as a plugin

    write_repository(root)
    (root / ".gitignore").write_text("runs/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


class SlowToyTask(ToyTask):
    """The same, in trials of a fifth of a second."""

    def measurer(self, place: Place, *_: object) -> Measurer:
        return SlowToyMeasurer(place, self.noise)


class SlowToyMeasurer(ToyMeasurer):
    def measure(
        self, tree: Path, spec: TrialSpec, scratch: Path, progress: Callable[[Progress], None], *stop: Any
    ) -> Measurement:
        def slowly(sign: Progress) -> None:
            time.sleep(0.01)
            progress(sign)

        return super().measure(tree, spec, scratch, slowly, *stop)


def install(monkeypatch: pytest.MonkeyPatch, site: Path, kind: type[ToyTask] = ToyTask) -> None:
    """Make it a choice of the command line, `task=toy`, as an installed package would."""
    about = site / "toy_package-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: toy_package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[autoresearch.tasks]\ntoy = {__name__}:{kind.__name__}\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `create_task` find it under its name, beside the shipped ones."""
    shipped = {"toy": f"{__name__}:ToyTask", "nanomodel": "autoresearch.tasks.gpt.task:GptTask"}
    monkeypatch.setattr(tasks, "TASKS", Registry("task", shipped))
