"""The task `command`: what a command in any git repository says, or what it leaves behind, gets better.

Its trust is `artifact` where a `score` command is given: the starting commit's files score what a candidate
left, on data that it never saw. Without one it is `printed`: the candidate's own words are believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from autoresearch.config import Config, parse
from autoresearch.edit.python import fingerprint, net_size
from autoresearch.edit.rules import check
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Measurer, Place
from autoresearch.execute.places import fingerprint as device_name
from autoresearch.execute.sandbox import Sandbox
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.base import Budget, Dataset, PromptText, Task, Trust
from autoresearch.tasks.command.data import prepare
from autoresearch.tasks.command.measurer import CommandMeasurer
from autoresearch.tasks.command.metrics import Guard
from autoresearch.tasks.command.processes import devices, make_environment
from autoresearch.tasks.command.review import (
    doubts_about_direction,
    doubts_about_repository,
    refuse_own_scorer,
)
from autoresearch.tasks.command.settings import CommandBudget, CommandOptions, filled
from autoresearch.tasks.command.stages import Commands
from autoresearch.types import Direction, Metric, Split


class CommandTask(Task):
    """Implements `tasks.base.Task` for the repository around the current folder."""

    def __init__(self, config: Config) -> None:
        """Check the groups `task` and `budget`.

        Raises:
            UserError: If a value is wrong.
        """
        if not config.task.get("train") or not config.task.get("editable"):
            raise UserError(
                "task=command needs task.train, the command, and task.editable, the files that may change.",
                "`autoresearch init` writes an autoresearch.yaml for this repository.",
            )
        self._config = config
        self._options = options = parse(CommandOptions, config.task, "task")
        self._budget = budget = parse(CommandBudget, config.budget, "budget")
        direction = Direction.MINIMIZE if options.direction == "min" else Direction.MAXIMIZE
        self.name, self.editable, self.frozen = options.name, options.editable, (".",)
        self.metric = Metric(options.metric, options.unit, direction, options.digits, per_item=options.items)
        self.trust = Trust.ARTIFACT if options.score else Trust.PRINTED
        self.deterministic = options.deterministic
        self.sealed = Split.TEST if Split.TEST in options.splits else None
        values = {"seed": "0", "seconds": f"{budget.amount or 0:g}", "threads": "1", "out": "out"}
        self.by_hand = filled(options.train, values)
        if budget.amount is not None:
            text = f"{budget.amount:g} seconds of wall time"
        else:
            most = (
                f"{budget.slowdown:g} times as long as the starting program, and " if budget.slowdown else ""
            )
            text = f"the program's own, at most {most}{budget.max_seconds:g} seconds"
        self.budget = Budget(text, budget.amount, budget.max_seconds)

    @cached_property
    def _repository(self) -> Repository:
        return Repository(Path.cwd())

    def prepare(self, cache: Path) -> Dataset:
        """Check the repository, and run the `prepare` command if that was not done; see `Task.prepare`.

        It runs outside the sandbox, like any command of the user's, in a copy of the latest commit.
        """
        refuse_own_scorer(self._repository, self._options)
        return prepare(self._repository, self._options, self._config, cache)

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Check an edit by the rules on programs in Python; other languages by what holds for any text."""
        check(before, after, before)
        for path, text in after.items():
            if text != before.get(path) and "\0" in text:
                raise Refused(f"{path} holds NUL bytes")

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        """A hash that ignores comments and layout of Python files."""
        return fingerprint(sources)

    def growth(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        """Net size that an edit adds: of Python as `edit.python.net_size`, of other files in lines."""
        others = [{k: v for k, v in side.items() if not k.endswith(".py")} for side in (before, after)]
        return net_size(before, after) + super().growth(*others)

    def guard(self, metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]]) -> str:
        """The first of `task.guards` that a trial breaks."""
        guards = map(Guard.parse, self._options.guards)
        return next(filter(None, (guard.broken(metrics, baseline) for guard in guards)), "")

    def places(self) -> Sequence[Place]:
        """The devices of this machine that the configuration names; the CPU's, if the task wants no GPU."""
        found = devices(self._config, self._options)
        return [Place(name, device_name(where)) for name, where in found.items()]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        """Make the measurer of one place."""
        where = devices(self._config, self._options)[place.name]
        around = make_environment(self._options, self._config, self._repository.root, where)
        commands = Commands(self._options, self._budget, self.metric, trusted.resolve(), data.path.resolve())
        made = CommandMeasurer(commands, around, sandbox, place, say)
        made.stages.link_held_out()
        return made

    def prompt(self) -> PromptText:
        """The words for a language model."""
        options, best = self._options, "lower" if self.metric.direction is Direction.MINIMIZE else "higher"
        role = (
            "You are a careful researcher and engineer. A program is run again and again, under one budget, "
            f"and you improve its {options.metric} ({options.unit}; {best} is better), one change at a time."
        )
        rules = [
            f"Edit only these files: {', '.join(options.editable)}. Files can be neither added nor deleted.",
            f"The command stays as it is: {options.train}",
            "There is no network. Only packages that are installed can be imported.",
            *(f"In each trial must hold: {guard}." for guard in options.guards),
            *(f"This must pass before anything is run: {command}" for command in options.checks),
        ]
        scoring = [
            f"What the program leaves in its output folder is scored by `{options.score}`, which you cannot "
            "change, on data that the program cannot read. What it prints counts for nothing."
            if options.score
            else f"The program says its own {options.metric}: leave how it is measured and said as it is."
        ]
        return PromptText(role, rules, self.budget.text, {}, scoring)

    def warnings(self, data: Dataset) -> Sequence[str]:
        """Warns of what makes scores doubtful, as far as the repository shows it."""
        found = doubts_about_direction(self._options)
        return [*found, *doubts_about_repository(self._repository, self._options)]
