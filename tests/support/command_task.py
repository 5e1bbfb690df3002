"""A small repository for the task `command`: a program that sets a number, and a scorer that knows it."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from autoresearch.config import load
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.tasks.command import measurer
from autoresearch.tasks.command.measurer import CommandMeasurer
from autoresearch.tasks.command.task import CommandTask
from autoresearch.types import Measurement, Progress, Split
from tests.support.stub import git, quiet_machine

PRINTED = """\
import os, random
LEVEL = 0.5  # 0..1
noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).gauss(0, 0.001)
print("PROGRESS 0.5", 1 - LEVEL)
print("METRIC accuracy=0.75")
print(f"METRIC error={abs(LEVEL - 0.7) + noise:.6f}")
"""
TRAIN = """\
import json, os, pathlib, random
from level import LEVEL
noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).gauss(0, 0.001)
inputs = json.loads((pathlib.Path(os.environ["AUTORESEARCH_DATA"]) / "x.json").read_text())
out = pathlib.Path(os.environ["AUTORESEARCH_OUT"])
(out / "predictions.json").write_text(json.dumps([LEVEL + noise for _ in inputs]))
"""
SCORE = """\
import json, os, pathlib
import numpy as np
answers = json.loads((pathlib.Path(os.environ["AUTORESEARCH_DATA"]) / "y.json").read_text())
said = json.loads((pathlib.Path(os.environ["AUTORESEARCH_OUT"]) / "predictions.json").read_text())
losses = np.abs(np.array(said) - np.array(answers))
np.save(os.environ["AUTORESEARCH_ITEMS"], losses)
print(f"METRIC error={losses.mean():.8f}")
print("METRIC accuracy=0.9")
"""
PREPARE = """\
import json, os, pathlib
data = pathlib.Path(os.environ["AUTORESEARCH_DATA"])
kinds = (("train", "x", range(8)), ("validation", "y", [0.7] * 8), ("test", "y", [0.71] * 8))
for split, name, values in kinds:
    (data / split).mkdir()
    (data / split / f"{name}.json").write_text(json.dumps(list(values)))
"""
COMMON = ("task=command", "task.metric=error", "executor.device=cpu", "executor.workers=1", "tracking=none")
PRINTED_SETTINGS = (*COMMON, "task.train=python train.py", "task.editable=[train.py]", "task.digits=6")
ARTIFACT_SETTINGS = (
    *COMMON,
    "task.train=python train.py",
    "task.score=python score.py",
    "task.prepare=python prepare.py",
    "task.editable=[level.py, train.py]",
    "task.splits=[validation,test]",
    "task.items=true",
)


def write_printed(root: Path, script: str = PRINTED) -> Path:
    return write(root, {"train.py": script})


def write_artifact(root: Path, **files: str) -> Path:
    own = {"level.py": "LEVEL = 0.5  # 0..1\n", "train.py": TRAIN, "score.py": SCORE, "prepare.py": PREPARE}
    return write(root, own | {name.replace("_py", ".py"): text for name, text in files.items()})


def write(root: Path, files: dict[str, str]) -> Path:
    """Commit files in a repository, which is made if there is none."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    if not (root / ".git").exists():
        if not (root / ".gitignore").exists():
            (root / ".gitignore").write_text("runs/\n__pycache__/\n")
        git(root, "init", "-q", "-b", "main")
        git(root, "config", "user.name", "Somebody")
        git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


class Arena:
    """A repository, its task and one measurer, for trials of single candidates."""

    def __init__(self, root: Path, folder: Path, *settings: str, sandbox: str = "auto") -> None:
        self.root, self.folder = root, folder
        self.folder.mkdir()
        os.chdir(root)
        self.task = CommandTask(load(list(settings), {}))
        self.data = self.task.prepare(folder / "cache")
        self.trusted = self.export("trusted")
        self.said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measurer, "this_machine", quiet_machine)
            made = self.task.measurer(
                self.task.places()[0], self.data, create_sandbox(sandbox), self.trusted, self.said.append
            )
        assert isinstance(made, CommandMeasurer)
        self.measurer, self.trials = made, 0

    def export(self, name: str) -> Path:
        self.task._repository.export("HEAD", ["."], self.folder / name)
        return self.folder / name

    def measure(
        self,
        changed: dict[str, str] | None = None,
        seed: int = 7,
        splits: Iterable[Split] = (),
        **more: object,
    ) -> Measurement:
        """One trial of the commit with some files changed."""
        self.trials += 1
        tree, scratch = self.export(f"tree{self.trials}"), self.folder / f"scratch{self.trials}"
        for path, text in (changed or {}).items():
            (tree / path).write_text(text)
        scratch.mkdir()
        wanted = tuple(splits) or (Split.VALIDATION,)
        spec = TrialSpec("arena", self.trials, "", seed, splits=wanted, **more)  # type: ignore[arg-type]
        self.seen: list[Progress] = []
        return self.measurer.measure(tree, spec, scratch, self.seen.append)

    def tryout(self, changed: dict[str, str] | None = None) -> Measurement:
        self.trials += 1
        tree, scratch = self.export(f"tree{self.trials}"), self.folder / f"scratch{self.trials}"
        for path, text in (changed or {}).items():
            (tree / path).write_text(text)
        scratch.mkdir()
        return self.measurer.tryout(tree, scratch)
