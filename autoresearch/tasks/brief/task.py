"""The task `brief`: what is improved is a brief, and a trial is a whole search that follows it.

The score is what an inner search gained, as its own judge claims it on the sealed split (`inner`). A brief is
text that a language model reads. It cannot compute its score; it could ask the model to cheat, and then the
model's program meets the sandbox and the scorer of the inner task like any other. The sealed split of this
task is another corpus or starting point (`task.elsewhere`): a brief must not only fit what selected it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from autoresearch.config import Config, Options, parse
from autoresearch.config.files import replaced
from autoresearch.config.roles import BRIEF, ROLES, split, together
from autoresearch.edit.patch import read_patch
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Measurer, Place
from autoresearch.execute.sandbox import Sandbox
from autoresearch.store.git.repository import Repository
from autoresearch.tasks import create_task
from autoresearch.tasks.base import Budget, Dataset, PromptText, Task, Trust
from autoresearch.tasks.brief.inner import Searches
from autoresearch.tasks.brief.measurer import BriefMeasurer
from autoresearch.tasks.brief.settings import (
    Connection,
    Spend,
    cap,
    check_settings,
    check_texts,
    connection,
    most_paid,
)
from autoresearch.text import count, quoted
from autoresearch.types import MODEL_DOLLARS, Direction, Metric, Split

MOST = 20_000
"""Characters of a brief: it is read with each proposal of an inner search."""
LONGEST = 30 * 86400.0
"""Seconds that an inner search may take where only its experiments are limited."""
FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class BriefOptions(Options):
    """The configuration group `task`; configs/task/brief.yaml says what each means."""

    name: str
    editable: tuple[str, ...] = Field(min_length=1, max_length=1 + len(ROLES))
    search: tuple[str, ...]
    shared: tuple[Connection, ...]
    elsewhere: tuple[str, ...]
    elsewhere_patch: str | None
    per_dollar: bool
    device_hour: float = Field(ge=0)
    evidence: str | None


class BriefBudget(Options):
    """The configuration group `budget` of this task."""

    kind: Literal["own"]
    experiments: int = Field(ge=1)
    minutes: float | None = Field(gt=0)
    dollars: float | None = Field(gt=0)
    total_dollars: float | None = Field(gt=0)

    @property
    def spend(self) -> Spend:
        """What one inner search may use."""
        return Spend(self.experiments, self.minutes, self.dollars)


class BriefTask(Task):
    """Implements `tasks.base.Task` for a brief in the repository around the current folder."""

    trust = Trust.ARTIFACT
    frozen = (".",)

    def __init__(self, config: Config) -> None:
        """Check the groups `task` and `budget`.

        Raises:
            UserError: If a value is wrong.
        """
        self.options = options = parse(BriefOptions, config.task, "task")
        self.limits_of_all = budget = parse(BriefBudget, config.budget, "budget")
        self.name, self.editable = options.name, options.editable
        folders, names = zip(*((Path(path).parent, Path(path).stem) for path in self.editable), strict=True)
        if len(names) > 1 and (len(set(folders)) > 1 or not {BRIEF} <= set(names) <= {BRIEF, *ROLES}):
            raise UserError(
                f"task.editable={list(self.editable)} is not one brief.",
                "It is one file, or brief.md and the files of its roles in the same folder.",
            )
        inner = check_settings(options.search, budget.spend)
        self._inner = [inner]
        self.connection = connection(options.search, options.shared, config.proposer)
        inner_task = create_task(inner)
        self.starts: dict[str, str] = {}
        if options.elsewhere_patch:
            patch = read_patch(Path(options.elsewhere_patch).expanduser())
            self.starts = {hashlib.sha256(patch.encode()).hexdigest()[:8]: patch}
        if options.elsewhere:
            other = check_settings(replaced(options.search, options.elsewhere), budget.spend)
            self._inner.append(other)
            same = all(getattr(other, key) == getattr(inner, key) for key in ("data", "task"))
            if same and other.choices.get("data") == inner.choices.get("data") and not self.starts:
                raise UserError(
                    f"task.elsewhere={list(options.elsewhere)} changes neither the corpus nor the task.",
                    'Name another corpus, such as ["data=tinystories"], or set task.elsewhere_patch.',
                )
        if inner_task.sealed is None:
            raise UserError(
                f"The task {inner_task.name} has no sealed split, so its searches claim no gain.",
                "docs/tasks.md says how a task gets one.",
            )
        unit = f"gain in {inner_task.metric.unit}" + (" per dollar" if options.per_dollar else "")
        self.metric = Metric("gain", unit, Direction.MAXIMIZE, inner_task.metric.digits, ratio=False)
        self.inner_metric = inner_task.metric
        self.sealed = Split.TEST if options.elsewhere or self.starts else None
        others = [*options.elsewhere, *(["another starting script"] if self.starts else [])]
        self.elsewhere = ", ".join(others)
        path = self.editable[0] if len(self.editable) == 1 else str(Path(self.editable[0]).parent)
        self.by_hand = " ".join(["autoresearch run", f"brief={path}", *options.search])
        if options.per_dollar and not options.device_hour and inner.proposer.get("max_dollars") is None:
            raise UserError(
                "task.per_dollar needs something that costs dollars.", "Price a device: task.device_hour=2"
            )
        each = [count(budget.experiments, "experiment")]
        each += [f"{budget.minutes:g} minutes"] if budget.minutes else []
        each += [f"${budget.dollars:g} for models"] if budget.dollars else []
        seconds = LONGEST if budget.minutes is None else 60 * budget.minutes
        self.trial_cost = most_paid(
            cap(options.search, budget.spend), budget.total_dollars, "budget.total_dollars"
        )
        self.budget = Budget(f"a search of at most {', '.join(each)}", None, seconds)

    def prepare(self, cache: Path) -> Dataset:
        """Read the evidence, and look for the text of the inner searches, which prepare it themselves."""
        for config in self._inner:
            check_texts(config, Repository(Path.cwd()))
        evidence = ""
        if self.options.evidence:
            try:
                evidence = Path(self.options.evidence).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"task.evidence cannot be read: {error}.", "Name a text file.") from None
        path = cache / "brief"
        path.mkdir(parents=True, exist_ok=True)
        key = json.dumps([self.options.search, self.options.elsewhere, *self.starts])
        splits = {Split.VALIDATION} | ({self.sealed} if self.sealed else set())
        about = {"key": hashlib.sha256(key.encode()).hexdigest()[:16], "evidence": evidence}
        return Dataset(path, about, frozenset(splits))

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Check a brief: it is text, and its front matter, which programs read, stays as it is."""
        super().validate(before, after)
        _check_models(before, after)
        for path, text in after.items():
            if not text.strip() or "\0" in text or len(text) > MOST:
                raise Refused(f"{path} must be a text of 1 to {MOST} characters")
            if front(text) != front(before.get(path, text)):
                raise Refused(f"the front matter of {path}, between its first lines of ---, stays as it is")

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        """A hash of the words: layout does not count."""
        words = [(path, text.split()) for path, text in sorted(sources.items())]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()

    def places(self) -> Sequence[Place]:
        """One place: an inner search uses all places of the machine itself."""
        return [Place("search", "an inner search")]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        """Make the measurer; inner searches lie in `inner` beside the trusted tree."""
        total, spend = self.limits_of_all.total_dollars, self.limits_of_all.spend
        folder = trusted.parent / "inner"
        cache, search = data.path.parent, self.options.search
        searches = Searches(folder, cache, search, spend, total, self.connection)
        return BriefMeasurer(self, place, searches, trusted)

    def prompt(self) -> PromptText:
        """The words for a language model."""
        role = (
            "You improve a brief: the instructions that a language model follows when it does research, one "
            "experiment after the other, to improve a program. The brief decides what it tries."
        )
        rules = [
            f"Edit only {', '.join(self.editable)}. It is Markdown for the model that does the research.",
            f"It has at most {MOST} characters; its front matter, if it has one, stays as it is.",
            "Say what to try, in which order, and what to leave; general advice changes nothing.",
            "Give no advice that holds for one corpus alone: the final claim is made on another.",
        ]
        scoring = [
            "A trial is a whole search that follows the brief, with its own seed. The score is what this "
            "search gained in the end, claimed on data that no one has seen; 0 if nothing holds.",
        ]
        facts = {
            "experiments": "experiments of an inner search: {}",
            "kept": "kept of them: {}",
            MODEL_DOLLARS: "dollars of an inner search: {}",
            "device_seconds": "seconds of devices of an inner search: {}",
            "gain_error": "standard error of the gain that an inner search claims: {}",
            "curve": "",
        }
        return PromptText(role, rules, self.budget.text, facts, scoring)

    def about(self, data: Dataset) -> Sequence[str]:
        """The evidence of earlier searches, as data."""
        evidence = str(data.about.get("evidence") or "")
        return [f"# What earlier searches found, by brief\n{quoted(evidence)}"] if evidence else []

    def warnings(self, data: Dataset) -> Sequence[str]:
        """Warns if the result cannot be claimed."""
        if self.sealed:
            return []
        return ["Nothing is claimed in the end: task.elsewhere names no other corpus or starting point."]


def _check_models(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Refuse roles that do not exist, and a role with another model: models cost money."""
    try:
        _, new = split(together(after))
        _, old = split(together({path: before.get(path, text) for path, text in after.items()}))
    except UserError as error:
        raise Refused(str(error)) from None
    for name, role in new.items():
        if role.model != (old[name].model if name in old else ""):
            raise Refused(f"the model of the role {name} cannot be chosen by an edit")


def front(text: str) -> str:
    """The front matter of a brief; empty if there is none."""
    found = FRONT.match(text)
    return found[0] if found else ""
