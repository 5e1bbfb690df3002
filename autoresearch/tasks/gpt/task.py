"""The task `nanomodel`: make a tiny GPT compress text better under a fixed budget.

The score is validation bits per byte, which a scorer computes from the submitted model's answers. A candidate
may change the training script; the rest of the package is frozen.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nanomodel.data
from autoresearch.config import Config, parse
from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import read_values, set_knobs
from autoresearch.edit.python import fingerprint, net_size
from autoresearch.edit.rules import check
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Measurer, Place
from autoresearch.execute.health import Health
from autoresearch.execute.places import cores, device, places, score_alone, share, threads
from autoresearch.execute.places import fingerprint as device_name
from autoresearch.execute.sandbox import Limits, Sandbox
from autoresearch.tasks.base import Budget, Dataset, Limit, PromptText, Task, Trust, refuse_visible
from autoresearch.tasks.gpt import guards
from autoresearch.tasks.gpt.measurer import GptMeasurer
from autoresearch.tasks.gpt.program import PACKAGES
from autoresearch.tasks.gpt.settings import BudgetOptions, Settings, TaskOptions, TrainingBudget
from autoresearch.tasks.gpt.words import about, limits, prompt_text
from autoresearch.types import Direction, GuardMetric, Metric, Split
from nanomodel.data import DataError
from nanomodel.data.spec import COPIED, DataSpec

GPU_TOKENS = 100_000
"""A corpus with fewer tokens for each second is small for a GPU, which reads a million a second."""

SHARE_TOKENS = 24_000
"""Least tokens of a share: its choice of text moves a gain by about 0.001 bits per byte."""


def _check_editable(task: TaskOptions) -> None:
    """Refuse to open a file that the runner and the scorer rely on.

    Raises:
        UserError: If a module of the package that is not the training script is editable.
    """
    ours, script = Path(nanomodel.__file__).parent, f"{task.train.replace('.', '/')}.py"
    for path in task.editable:
        inside = Path(path).parts[1:] if Path(path).parts[:1] == (task.package,) else ()
        if path != script and inside and (ours / Path(*inside)).exists():
            raise UserError(
                f"task.editable: {path} is part of the frozen package, which trains, serves and scores.",
                f"Only {script} and files of your own may change.",
            )


def _check_data(options: Mapping[str, Any]) -> None:
    """Check the group `data` before anything is prepared.

    Raises:
        UserError: If an option is wrong or missing.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if given.get("corpus") == COPIED:
        if not given.get("path"):
            raise UserError("data.path is missing.", "Set it to a folder of prepared data: data.path=FOLDER")
        return
    try:
        DataSpec.from_dict(given)
    except DataError as error:
        raise UserError(f"data: {error.message}", error.hint) from None


class GptTask(Task):
    """Implements `tasks.base.Task` for the package `nanomodel`."""

    metric = Metric("val_bpb", "bits per byte", Direction.MINIMIZE, digits=4, per_item=True)
    trust = Trust.SERVED
    sealed: Split | None = Split.TEST
    packages = PACKAGES
    writes = True
    guard_words = guards.WORDS
    scale_rule = "DEPTH and the budget times the scale; width, learning rates and everything else as they are"

    def __init__(self, config: Config) -> None:
        """Check the groups `task` and `budget`.

        Raises:
            UserError: If a value is wrong.
        """
        self._config = config
        self._task = parse(TaskOptions, config.task, "task")
        self._budget = budget = parse(BudgetOptions, config.budget, "budget")
        _check_editable(self._task)
        if self._task.prepare == nanomodel.data.__name__:
            _check_data(config.data)
        self.name, self.editable, self.frozen = self._task.name, self._task.editable, (self._task.package,)
        self.by_hand = f"python -m {self._task.train}"
        if budget.kind == "seconds":
            text, seconds = f"{budget.amount:,.0f} seconds of wall time", budget.amount
        else:
            text, seconds = f"{budget.amount:,.0f} training tokens", None
        self.budget = Budget(text, seconds, budget.max_seconds)
        self.deterministic = budget.kind == "tokens"  # but for the rounding of a device

    def prepare(self, cache: Path) -> Dataset:
        """Make the corpus and its splits ready in `cache`, if they are not; see `Task.prepare`."""
        options = {key: value for key, value in self._config.data.items() if value is not None}
        for path in (cache, *(options[key] for key in ("path", "other_path") if key in options)):
            refuse_visible(str(path))
        arguments = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        # In a separate process, because preparing takes memory that a search should not keep.
        command = [sys.executable, "-m", self._task.prepare, "prepare", f"--cache={cache}", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            raise UserError(
                f"The corpus {self._config.choices['data']!r} could not be prepared (see above).",
                code=2 if done.returncode == 2 else 3,
            )
        about = json.loads(done.stdout.splitlines()[-1])
        sizes = ", ".join(f"{split}: {of['tokens']:,} tokens" for split, of in about["splits"].items())
        return Dataset(Path(about.pop("path")), about, frozenset(map(Split, about["splits"])), sizes)

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Check an edit by the rules on training scripts; see `Task.validate`."""
        check(before, after, self.editable)

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        """A hash that ignores comments, docstrings and layout."""
        return fingerprint(sources)

    def growth(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        """Net size that an edit adds, in lines of usual code; see `edit.python.net_size`."""
        return net_size(before, after)

    def scaled(self, sources: Mapping[str, str], scale: float, rates: float = 1.0) -> Mapping[str, str]:
        """The script with more blocks; depth alone says how large a model is, as in nanochat.

        Learning rates are the numbers whose names end in `_LR`.
        """
        path = f"{self._task.train.replace('.', '/')}.py"
        column, source = int(device(self._config) == "cuda"), sources.get(path, "")
        try:
            values = read_values(source, column)
        except SyntaxError as error:
            raise Refused(f"{path} cannot be parsed: {error}") from None
        new: dict[str, int | float] = {}
        if scale != 1.0:
            depth = values.get("DEPTH")
            if not isinstance(depth, int) or isinstance(depth, bool):
                raise Refused(f"{path} has no whole number DEPTH, by which it grows")
            new["DEPTH"] = max(1, round(depth * scale))
        if rates != 1.0:
            known = {k: v for k, v in values.items() if k.endswith("_LR") and isinstance(v, float)}
            if not known:
                raise Refused(f"{path} has no learning rate: no decimal number with a name that ends in _LR")
            new |= {name: float(f"{value * rates:.6g}") for name, value in known.items()}
        return {path: apply(sources, set_knobs(path, source, new, column))[path]}

    def guard_metrics(self) -> Sequence[GuardMetric]:
        """Slices of the held-out text, calibration, other text, speed and memory."""
        return guards.guard_metrics(self._budget.kind)

    def devised(self, name: str, text: str, definition: Mapping[str, Any]) -> GuardMetric:
        """A slice that was proposed as data; see `Task.devised`."""
        return guards.devised(name, text, definition)

    def scaled_budget(self, scale: float) -> Sequence[str]:
        """So many more tokens or seconds, and time for deeper and longer trainings."""
        budget = self._budget
        if scale == 1.0:
            return ()
        more = max(scale, 1.0)  # a smaller budget may take as long as before
        return (
            f"budget.amount={round(budget.amount * scale)}",
            f"budget.max_seconds={budget.max_seconds * more**2:g}",
            f"budget.score_seconds={budget.score_seconds * more:g}",
        )

    def shares(self, split: Split, data: Mapping[str, Any]) -> int:
        """Shares of whole documents, each large enough for a score; see `Task.shares`."""
        known = data.get("splits", {}).get(split.value, {})
        return int(min(known.get("tokens", 0) // SHARE_TOKENS, known.get("documents", 0)))

    def places(self) -> Sequence[Place]:
        """The devices of this machine that the configuration names."""
        return [Place(name, device_name(where)) for name, where in places(self._config).items()]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        """Make the measurer of one device; its files lie beside the trusted tree."""
        config, budget, folder = self._config, self._budget, trusted.parent
        where, alone = places(config)[place.name], score_alone(config)
        settings = Settings(
            train=self._task.train,
            serve=self._task.serve,
            score=self._task.score,
            trusted=trusted,
            budget=TrainingBudget(budget.kind, budget.amount, budget.max_seconds),
            slowdown=budget.slowdown,
            context=budget.context,
            compile=budget.compile,
            startup_seconds=budget.startup_seconds,
            score_seconds=budget.score_seconds,
            limits=Limits(**config.sandbox["limits"]),
            device=where,
            threads=threads(config),
            serve_threads=config.executor.threads or (cores() if alone else share(config)),
            max_bytes=int(config.executor.weights_gb * 1e9),
            probes=config.executor.probes,
            questions=self._task.questions,
            editable=self.editable,
            standby=folder / "standby" if config.executor.standby else None,
            compiled=folder / "compiled",
            score_alone=alone,
        )
        health = Health.find(where) if where.startswith("cuda") else None
        return GptMeasurer(settings, sandbox, data.path, place, health, say)

    def prompt(self) -> PromptText:
        """See `prompt_text`."""
        return prompt_text(self.budget.text)

    def about(self, data: Dataset) -> Sequence[str]:
        """What the corpus is, the scale, and the calls of the harness; see `Task.about`."""
        return about(data, self._budget, threads(self._config))

    def limits(self, baseline: Mapping[str, float]) -> Sequence[Limit]:
        """The limits on time; see `Task.limits`."""
        cpus = threads(self._config) if device(self._config) == "cpu" else 0
        return limits(self._budget, baseline, cpus)

    def warnings(self, data: Dataset) -> Sequence[str]:
        """Warns of a corpus that a GPU would read many times over, or that affords no slice for keeps."""
        found = []
        if self.shares(Split.HELD, data.about) < 1:
            found.append(
                f"Less than a slice ({SHARE_TOKENS:,} tokens) is held back beside the validation data, so no "
                "keep is checked on text that no candidate has seen."
            )
        tokens, budget = data.about["splits"]["train"]["tokens"], self._budget
        if (
            device(self._config) == "cuda"
            and budget.kind == "seconds"
            and tokens < GPU_TOKENS * budget.amount
        ):
            found.append(
                f"{tokens:,} training tokens will be read many times over, so changes that help to memorise "
                "win. Give more text: data=climbmix, or data=file data.path=..."
            )
        return found
