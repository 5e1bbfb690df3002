"""The stages of a trial of the task `command`: checks, `train`, and `score`, each in a jail of its own."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.clock import now
from autoresearch.execute.base import TrialEnded, TrialSpec
from autoresearch.execute.load import LoadMeter
from autoresearch.execute.output import OTHER, TIMEOUT, classify
from autoresearch.execute.sandbox import Sandbox
from autoresearch.store.files import digest, remove_tree
from autoresearch.tasks.command.artifact import ArtifactError, collect
from autoresearch.tasks.command.metrics import MetricError, check_items, read_metrics
from autoresearch.tasks.command.processes import Ended, run
from autoresearch.tasks.command.settings import CommandBudget, CommandOptions, Environment, filled
from autoresearch.types import Metric, Outcome, Split

Look = Callable[[float, str], None]
"""Called a few times a second with the seconds so far and what was printed; may raise."""

MISSING = re.compile(r"(?:No such file or directory: |No module named )'([^']+)'")
RESULT, ITEMS = "result.json", "items.npy"


def ignore(seconds: float, log: str) -> None:
    """Look at nothing."""


@dataclass
class Record:
    """What is known of a trial so far."""

    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    log: str = ""
    reached: float = 0.0


@dataclass(frozen=True)
class Commands:
    """What is to be measured, and how; the same for every trial of a place.

    Attributes:
        options: Of the task.
        budget: What a trial may use.
        metric: The number that decides.
        trusted: The tree of the starting commit.
        data: Folder of the prepared data.
    """

    options: CommandOptions
    budget: CommandBudget
    metric: Metric
    trusted: Path
    data: Path


class Stages:
    """Runs the stages of trials at one place."""

    def __init__(
        self,
        commands: Commands,
        around: Environment,
        sandbox: Sandbox,
        load: LoadMeter,
        say: Callable[[str], None],
    ) -> None:
        """Prepare; see `CommandMeasurer`. `load` says how busy the machine is."""
        self.commands, self._around, self._sandbox = commands, around, sandbox
        self._load, self._say = load, say
        self.checked: dict[str, str] = {}
        self._checking = threading.Lock()

    def check(self, tree: Path, scratch: Path) -> None:
        """Run the checks, once for the same files."""
        options = self.commands.options
        if not options.checks:
            return
        with self._checking:
            key = digest(tree)
            if key not in self.checked:
                reasons = (self._fails(command, tree, scratch) for command in options.checks)
                self.checked[key] = next(filter(None, reasons), "")
            if reason := self.checked[key]:
                raise TrialEnded(Outcome.INVALID, reason)

    def _fails(self, command: str, tree: Path, scratch: Path) -> str:
        """Why a check fails; empty if it passes."""
        folder = scratch / "check"
        remove_tree(folder)
        self._copy(tree, folder / "work")
        ended = self._run(command, folder, folder / "work", {"seed": "0"}, self.commands.budget.score_seconds)
        remove_tree(folder)
        return f"the check `{command}` fails: {ended.reason}" if ended.reason else ""

    def train(
        self, tree: Path, scratch: Path, spec: TrialSpec, record: Record, limit: float, look: Look
    ) -> None:
        """Run the candidate, and collect what it leaves for the scorer.

        Args:
            tree: The candidate's tree.
            scratch: Folder of the trial.
            spec: Its seed.
            record: Takes what is measured.
            limit: Seconds that it may take.
            look: Looks at it meanwhile.

        Raises:
            TrialEnded: If it fails, or leaves nothing that can be handed over.
        """
        begun = now()
        try:
            ended = self.run_train(tree, scratch, spec.seed, limit, look)
        finally:
            record.phases.append(("train", begun, now()))
        record.log = ended.log.strip()
        record.metrics |= {"train_seconds": ended.seconds, "cpu_seconds": ended.cpu_seconds}
        record.metrics["memory_mb"] = ended.memory_mb
        if ended.reason:
            raise TrialEnded(Outcome.CRASH, self.explained(ended, tree))
        if self.commands.options.score:
            output, most = self.commands.options.output, int(self.commands.options.output_mb * 1e6)
            left = scratch / "train" / (f"work/{output}" if output else "out")
            try:
                record.metrics["output_mb"] = collect(left, scratch / "artifact", most) / 1e6
            except ArtifactError as error:
                outcome = Outcome.CRASH if error.absent else Outcome.INVALID
                raise TrialEnded(outcome, str(error)) from None

    def run_train(self, tree: Path, scratch: Path, seed: int, limit: float, look: Look) -> Ended:
        """Run the `train` command in a new copy of a tree; see `train`."""
        options, folder = self.commands.options, scratch / "train"
        remove_tree(folder)
        self._copy(tree, folder / "work")
        (folder / "out").mkdir()
        values = {"seed": "0" if options.deterministic else str(seed), "out": str(folder / "out")}
        if (amount := self.commands.budget.amount) is not None:
            values["seconds"] = f"{amount:g}"
        return self._run(options.train, folder, folder / "work", values, limit, look)

    def score(self, scratch: Path, spec: TrialSpec, record: Record) -> float:
        """Score the artifact on each split; the first gives the score."""
        begun, scores, seconds = now(), {}, 0.0
        metric = self.commands.metric
        try:
            for split in spec.splits:
                found, took = self._score_on(split, scratch, spec)
                seconds += took
                scores[split] = found.pop(metric.name)
                record.metrics |= named(found) if split is spec.splits[0] else {}
        finally:
            record.phases.append(("score", begun, now()))
        record.metrics["score_seconds"] = seconds
        record.metrics |= {metric.on(split): scores[split] for split in spec.splits[1:]}
        return scores[spec.splits[0]]

    def _score_on(self, split: Split, scratch: Path, spec: TrialSpec) -> tuple[dict[str, float], float]:
        """What the scorer says of a split, and the seconds that it took, as limits count them."""
        commands, folder = self.commands, scratch / f"score-{split}"
        folder.mkdir()
        values = {
            "seed": "0",
            "out": str(scratch / "artifact"),
            "split": split.value,
            "result": str(folder / RESULT),
            "items": str(folder / ITEMS),
        }
        held = self._held_out()
        shown = (commands.trusted, scratch / "artifact", *held.values())
        assert commands.options.score
        ended = self._run(
            commands.options.score,
            folder,
            commands.trusted,
            values,
            commands.budget.score_seconds * self._load.stretch,
            split=split,
            shown=shown,
        )
        if ended.reason:  # what it printed may tell of held-out data: only how it ended is passed on
            kind = classify(ended.reason)
            why = ended.reason if kind == TIMEOUT else "it ended with an error" if kind == OTHER else kind
            self._say(f"The score command failed: {ended.reason}")
            raise TrialEnded(Outcome.CRASH, f"the score command fails on what it left: {why}")
        found = self.read(ended.log, folder)
        if commands.options.items:
            try:
                check_items(folder / ITEMS, found[commands.metric.name], scratch / f"{split}.npy")
            except MetricError as error:
                raise TrialEnded(Outcome.INVALID, f"the score command: {error}") from None
        return found, ended.seconds

    def read(self, log: str, folder: Path) -> dict[str, float]:
        """The metrics that a command said in what it printed, or in a file of the folder where it ran.

        Raises:
            TrialEnded: If there is no score.
        """
        options = self.commands.options
        source = options.metrics
        if options.score and source.startswith("json:"):
            source = f"json:{RESULT}"
        try:
            return read_metrics(source, options.metric, log, folder)
        except MetricError as error:
            raise TrialEnded(Outcome.CRASH, f"error: {error}") from None

    def _run(
        self,
        command: str,
        folder: Path,
        cwd: Path,
        values: Mapping[str, str],
        limit: float,
        look: Look = ignore,
        *,
        split: Split = Split.TRAIN,
        shown: Sequence[Path] = (),
    ) -> Ended:
        folder.mkdir(exist_ok=True)
        data = self.commands.data / split
        known = {**values, "threads": str(self._around.threads)}
        known |= {"data": str(data)} if data.exists() else {}
        return run(
            self._sandbox,
            filled(command, known),
            self._around,
            cwd=cwd,
            writable=folder,
            read_only=(*shown, *((data,) if data.exists() else ())),
            variables={f"AUTORESEARCH_{name.upper()}": value for name, value in known.items()},
            limit=limit,
            load=self._load,
            trained=not shown,
            look=look,
        )

    # Files

    def _copy(self, tree: Path, work: Path) -> None:
        """A writable copy of a tree, without what is held out, with links to what git does not hold."""
        shutil.copytree(tree, work, symlinks=True)
        for path in [path for pattern in self.commands.options.held_out for path in work.glob(pattern)]:
            if not remove_tree(path):
                path.unlink()
        link_inputs(self._around.checkout, self.commands.options.inputs, work)

    def _held_out(self) -> dict[str, Path]:
        """What only the scorer sees and git does not hold: path in the repository -> where it lies."""
        checkout, trusted = self._around.checkout, self.commands.trusted
        found = [path for pattern in self.commands.options.held_out for path in checkout.glob(pattern)]
        names = {path.relative_to(checkout).as_posix(): path.resolve() for path in found}
        return {name: path for name, path in names.items() if not _committed(trusted / name)}

    def link_held_out(self) -> None:
        """Let the trusted tree lead to inputs and held-out files of the checkout that git does not hold."""
        trusted = self.commands.trusted
        link_inputs(self._around.checkout, self.commands.options.inputs, trusted)
        link_inputs(self._around.checkout, list(self._held_out()), trusted)

    # Words

    def explained(self, ended: Ended, tree: Path) -> str:
        """The reason, with a hint if the program wants a file that git does not hold."""
        wanted = MISSING.findall(ended.log)
        for name in wanted[-1:]:
            top = name.replace(".", "/") if "/" not in name and "No module" in ended.log else name
            for path in (top, f"{top}.py"):
                here = self._around.checkout / path
                if not Path(path).is_absolute() and here.exists() and not (tree / path).exists():
                    return f"{ended.reason} (git does not hold {path}: commit it, or name it in task.inputs)"
        return ended.reason


def link_inputs(checkout: Path, paths: Sequence[str], tree: Path) -> None:
    """Let a tree lead to files and folders of the checkout that it does not hold."""
    for path in paths:
        place = tree / path
        if not place.exists() and not place.is_symlink():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to((checkout / path).resolve())


def _committed(path: Path) -> bool:
    return path.exists() and not path.is_symlink()


def named(metrics: Mapping[str, float]) -> dict[str, float]:
    """Further metrics that a command said; those that the runner measures keep their names."""
    ours = ("train_seconds", "cpu_seconds", "memory_mb", "output_mb", "score_seconds", "repeated")
    return {f"own_{name}" if name in ours else name: value for name, value in metrics.items()}
