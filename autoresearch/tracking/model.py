"""The winner of a search as a model in MLflow: its weights, and the files that a proposer wrote.

    model = mlflow.pyfunc.load_model("models:/<id>")      # MLflow's page of the model has this line
    model.predict(["My fellow citizens"])                 # a list of texts

Loading and writing run no code of a candidate in the caller's process, and unpickle nothing. What is logged
is tensors and source text. `predict` puts the source into a jail beside the installed package of the task, as
`autoresearch sample` does: the jailed server reads the weights as tensors alone and gives logits, and the
caller's process chooses tokens. The sandbox is that of the caller's own settings, never one
that the logged files name. Before it writes, the model is scored as in a trial, with all probes, so a call
takes seconds and needs the prepared corpus. Not covered: what a text says; it is data.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.store.journal import SearchInfo
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Dataset
from autoresearch.text import clean
from autoresearch.types import Experiment, Split, TextRequest, in_order

ABOUT, WEIGHTS, SOURCES = "about.json", "weights", "sources"
"""What a logged model holds: what it is, the tensors, and the files that may differ from the task's own."""


@dataclass(frozen=True)
class Winner:
    """The result of a search, whose weights are still here.

    Attributes:
        experiment: The latest that was kept.
        weights: What its training submitted.
    """

    experiment: Experiment
    weights: Path


def winner(history: Iterable[Experiment], folder: Path) -> Winner | None:
    """The result of a search; None if nothing was kept, or if no claim or sample has left its weights.

    Args:
        history: Its experiments.
        folder: Of the search.
    """
    kept = [e for e in in_order(history) if e.kept]
    found = sorted((folder / WEIGHTS).glob(f"{kept[-1].commit[:12]}-*")) if kept else []
    return Winner(kept[-1], found[0]) if found else None


def write_model(target: Path, won: Winner, info: SearchInfo, sources: Mapping[str, str], data: Path) -> None:
    """Write what is logged into a new folder.

    Args:
        target: The folder.
        won: The result.
        info: Of its search.
        sources: Its editable files: path -> text.
        data: The folder of the prepared corpus.
    """
    target.mkdir(parents=True)
    shutil.copyfile(won.weights, target / WEIGHTS)
    about = {
        "search": info.name,
        "experiment": won.experiment.number,
        "commit": won.experiment.commit,
        "task": info.task,
        "budget": info.config["budget"],
        "data": {"path": str(data), "about": info.data},
    }
    (target / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
    for path, text in sources.items():
        place = target / SOURCES / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


class Writer:
    """Writes text with a logged model, in a sandbox.

    Args:
        folder: Its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
        sources = folder / SOURCES
        found = (path for path in sources.rglob("*") if path.is_file() and not path.is_symlink())
        self.sources = {path.relative_to(sources).as_posix(): path.read_text("utf-8") for path in found}

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[str]:
        """Go on with each prompt.

        Args:
            model_input: One prompt, or several in any iterable; of a table, those of its first column.
            params: `tokens`, `temperature` and `seed`, see `TextRequest`.

        Raises:
            UserError: If the corpus is not here, or the model fails.
        """
        prompts = enumerate([model_input] if isinstance(model_input, str) else _column(model_input))
        config = load([f"task={self.about['task']}", "name=model", "executor.workers=1"])
        task = create_task(config.model_copy(update={"budget": self.about["budget"]}))
        known = self.about["data"]
        if not (Path(known["path"]) / "meta.json").is_file():
            raise UserError(
                f"The prepared corpus {known['path']} is not here: it has the tokenizer.",
                "Load the model where the search ran, or copy that folder there from where it did.",
            )
        data = Dataset(Path(known["path"]), known["about"], frozenset({Split.VALIDATION}))
        sandbox = create_sandbox(config.sandbox["backend"], lambda text: None)
        with tempfile.TemporaryDirectory(prefix="model-") as temporary:
            trusted, tree = Path(temporary, "trusted"), Path(temporary, "tree")
            for place in (trusted, tree):
                _installed(task.frozen, place)
            for path in task.editable:
                if path in self.sources:
                    (tree / path).write_text(self.sources[path], encoding="utf-8")
            measurer = task.measurer(task.places()[0], data, sandbox, trusted, lambda text: None)
            try:
                scratch = Path(temporary)
                return [self._write(measurer, tree, scratch / str(n), p, params or {}) for n, p in prompts]
            finally:
                measurer.close()

    def _write(self, measurer: Any, tree: Path, scratch: Path, prompt: str, params: Mapping[str, Any]) -> str:
        scratch.mkdir()
        weights = scratch.with_suffix(".weights")
        shutil.copyfile(self.folder / WEIGHTS, weights)
        asked = TextRequest(prompt, **params)
        commit = self.about["commit"]
        spec = TrialSpec("model", -1, commit, seed=0, submission=str(weights), text=asked)
        done = measurer.measure(tree, spec, scratch, lambda sign: None)
        if done.score is None or not done.texts:
            raise UserError(f"The model cannot write: {clean(done.reason)}", code=3)
        return clean(done.texts[0])


def _column(model_input: Any) -> list[str]:
    values = model_input.iloc[:, 0] if hasattr(model_input, "iloc") else model_input
    return [str(value) for value in values]


def _installed(packages: Iterable[str], target: Path) -> None:
    """Copy the installed packages of a task: only its editable files come from a candidate."""
    for name in packages:
        found = find_spec(name)
        places = list(found.submodule_search_locations or ()) if found else []
        if not places:
            raise UserError(f"The package {name} of the task is not installed.", "Install autoresearch.")
        shutil.copytree(places[0], target / name, ignore=shutil.ignore_patterns("__pycache__"))


def _load_pyfunc(path: str) -> Writer:
    """What MLflow calls to load the model; the name is MLflow's."""
    return Writer(Path(path))
