"""The task seam: what is improved, and how a candidate is measured.

A task is looked up by name (`tasks.create_task`), so that the framework imports none of them. It owns
everything that belongs to the thing improved: which files may change, the rules on an edit in its language,
the data, the budget, the metric, and the words that tell a person or a model about it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Measurer, Place
from autoresearch.execute.sandbox import Sandbox, visible
from autoresearch.judge.guards import SPREAD
from autoresearch.types import GuardMetric, Metric, Split


class Trust(StrEnum):
    """Who computes the score."""

    SERVED = "served"
    """The candidate only answers questions; a scorer that it cannot touch computes the score."""

    ARTIFACT = "artifact"
    """A frozen scorer reads what the candidate left behind."""

    PRINTED = "printed"
    """The candidate prints its own score; nothing checks it."""


TRUST = {
    Trust.SERVED: "A scorer outside the candidate's reach computes each score from answers of its model.",
    Trust.ARTIFACT: "A frozen scorer computes each score, from files that the candidate leaves behind.",
    Trust.PRINTED: "Candidates say their own scores, and nothing checks them: read what is kept.",
}
"""What a level of trust means, for a person."""


@dataclass(frozen=True)
class Dataset:
    """Prepared data.

    Attributes:
        path: Where it lies; candidates see only what the task hands them.
        about: Its description as JSON values, recorded in the journal: hash, sizes, what the corpus is.
        splits: The splits to score on.
        sizes: How large they are, in one line for a person.
    """

    path: Path
    about: Mapping[str, Any]
    splits: frozenset[Split]
    sizes: str = ""


@dataclass(frozen=True)
class Budget:
    """What a trial may use.

    Attributes:
        text: In words, such as "300 seconds of wall time".
        seconds: Duration of a trial without start and scoring, if the budget fixes it.
        max_seconds: Limit on that duration.
    """

    text: str
    seconds: float | None
    max_seconds: float


@dataclass(frozen=True)
class PromptText:
    """What a task says about itself to a language model.

    Attributes:
        role: Who the model is and what it improves, one sentence or two.
        rules: What an edit may and may not do, one line each.
        budget: What every candidate may use, such as "300 seconds of wall time".
        facts: Name of a measured number -> a phrase for it, with `{}` for the value, or an empty one to hide
            it; a number without a phrase is shown with its name. "curve" stands for the latest curve of the
            incumbent.
    """

    role: str
    rules: Sequence[str]
    budget: str
    facts: Mapping[str, str]
    scoring: Sequence[str] = ()


@dataclass(frozen=True)
class Limit:
    """Something that a candidate may not use more of.

    Attributes:
        name: The metric of a measurement that tells how much was used, such as "train_seconds".
        text: What it is, in words and with its unit, such as "seconds of training".
        most: The limit.
    """

    name: str
    text: str
    most: float


class Task(Protocol):
    """One kind of thing to improve, set up by a configuration: the constructor takes a `Config`.

    A subclass defines at least the attributes without a default, `prepare` and `measurer`.

    Attributes:
        name: As in `task=NAME`.
        metric: The number that is improved.
        trust: Who computes it.
        editable: The files that may change: paths or globs, relative to the repository.
        frozen: Folders and files that a trial needs, from the candidate's commit; the editable ones may be
            among them.
        budget: What every trial may use.
        by_hand: The command by which a person measures the starting script without the framework.
        deterministic: Whether the same seed gives the same score.
        sealed: The split for the final claim; None if the task has no such split.
        elsewhere: What the sealed split is, if it is of other data than the search by intention, such as
            "data=books": a smaller gain there is no sign that the search exploits its validation data.
        packages: Installed packages on whose versions a score depends.
        writes: Whether what a candidate leaves can write text; see `TrialSpec.text`.
        brief_fixed: Why the brief of a search cannot be edited while it goes on; empty if it can.
        trial_cost: What its trials may pay for language models, in words; empty if they ask none.
        scale_rule: How `scaled` and `scaled_budget` make it larger, in words; empty if they cannot.
        guard_words: What the definition of a devised guard may say, for a language model; empty: there are
            none.
    """

    name: str
    metric: Metric
    trust: Trust
    editable: tuple[str, ...]
    frozen: tuple[str, ...]
    budget: Budget
    by_hand: str
    deterministic: bool = False
    sealed: Split | None = None
    elsewhere: str = ""
    packages: tuple[str, ...] = ()
    writes: bool = False
    brief_fixed: str = ""
    trial_cost: str = ""
    scale_rule: str = ""
    guard_words: str = ""

    def prepare(self, cache: Path) -> Dataset:
        """Make the data ready, if it is not yet; shows progress on stderr.

        Raises:
            UserError: If that fails.
        """

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Check an edit by the rules of the task's language, in milliseconds.

        Args:
            before: The parent's editable files: path -> text.
            after: The candidate's.

        Raises:
            Refused: With the reason, for the author of the edit.
        """
        if self.fingerprint(before) == self.fingerprint(after):
            raise Refused("nothing is changed")

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        """A text that is equal for two programs that do the same."""
        return hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()

    def growth(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        """Net lines of code that an edit adds."""
        return sum(
            len(text.splitlines()) - len(before.get(path, "").splitlines()) for path, text in after.items()
        )

    def shares(self, split: Split, data: Mapping[str, Any]) -> int:
        """Into how many disjoint shares a split can be divided that can each be scored alone.

        Args:
            split: The split.
            data: `Dataset.about`.

        Returns:
            1 if it can only be scored as a whole, 0 if it is too small to tell anything.
        """
        return 0

    def scaled(self, sources: Mapping[str, str], scale: float, rates: float = 1.0) -> Mapping[str, str]:
        """The editable files, made larger by the task's declared rule.

        Args:
            sources: path -> text.
            scale: Factor of the scale, above 0; 1 changes nothing.
            rates: By which all learning rates are multiplied; not given if that is 1.

        Returns:
            The files that change: path -> text.

        Raises:
            Refused: If the rule does not fit these files, or there is none.
        """
        raise Refused(f"the task {self.name} declares no rule by which it grows")

    def scaled_budget(self, scale: float) -> Sequence[str]:
        """Overrides of the configuration that give a larger scale its budget."""
        return ()

    def guard(self, metrics: Mapping[str, float], baseline: Sequence[Mapping[str, float]]) -> str:
        """What further metrics of a candidate say against it, in words; empty if nothing.

        Args:
            metrics: Of one of its trials.
            baseline: Of each trial of the starting point.
        """
        return ""

    def guard_metrics(self) -> Sequence[GuardMetric]:
        """The further metrics that guards can be; `guards.metrics` names those of a search."""
        return ()

    def devised(self, name: str, text: str, definition: Mapping[str, Any]) -> GuardMetric:
        """A guard that was proposed as data, once it is known to be one.

        Args:
            name: Its name.
            text: What it measures, in words.
            definition: As `guard_words` describes it.

        Raises:
            Refused: If it is none.
        """
        raise Refused(f"the task {self.name} has no guards that can be devised")

    def places(self) -> Sequence[Place]:
        """Where this machine can run trials of the task."""
        return [Place("cpu", "cpu")]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        """Make the measurer of one place.

        Args:
            place: One of `places`.
            data: From `prepare`.
            sandbox: How candidates are confined.
            trusted: The tree of the starting commit, which no candidate can write.
            say: Tells a person something.
        """

    def prompt(self) -> PromptText:
        """The words for a language model."""
        files = ", ".join(self.editable)
        return PromptText(f"You improve {files}.", [f"Edit only {files}."], self.budget.text, {})

    def about(self, data: Dataset) -> Sequence[str]:
        """Sections for a language model about data, scale and interfaces; the same in all of a search."""
        return ()

    def limits(self, baseline: Mapping[str, float]) -> Sequence[Limit]:
        """The limits of a trial, besides the guards of the search.

        Args:
            baseline: The largest value of each metric in the trials of the starting script.
        """
        return ()

    def warnings(self, data: Dataset) -> Sequence[str]:
        """Warnings for a person, before the search begins."""
        return []


def chosen_guards(task: Task, chosen: Sequence[str]) -> list[GuardMetric]:
    """The guards that a configuration names.

    Args:
        task: Of the search.
        chosen: Names, each with or without its margin: "rare", or "rare:0.002" where a loss of 0.2% is none.

    Raises:
        UserError: If the task has none of a name, or a margin is no share.
    """
    known = {guard.name: guard for guard in (*task.guard_metrics(), SPREAD)}
    found: dict[str, GuardMetric] = {}
    for name, _, margin in (text.partition(":") for text in chosen):
        if name not in known:
            there = ", ".join(f"{guard.name} ({guard.text})" for guard in known.values())
            raise UserError(
                f"guards.metrics: the task {task.name} has no guard {name!r}.", f"It has: {there}."
            )
        found[name] = replace(known[name], margin=_share(name, margin)) if margin else known[name]
    return list(found.values())


def _share(name: str, text: str) -> float:
    with suppress(ValueError):
        if 0 <= (share := float(text)) < 1:
            return share
    raise UserError(
        f"guards.metrics: the margin of {name}, {text}, is no share.", f"For example: {name}:0.002"
    )


def requested(guards: Sequence[GuardMetric]) -> tuple[GuardMetric, ...]:
    """The guards that a trial must be asked for."""
    return tuple(guard for guard in guards if guard.definition)


def refuse_visible(path: str) -> None:
    """Refuse data that candidates could read themselves.

    Args:
        path: A file, a folder or a glob.

    Raises:
        UserError: If it lies in a folder that every sandbox shows.
    """
    fixed = Path(*itertools.takewhile(lambda part: not set(part) & set("*?["), Path(path).parts)).resolve()
    for root in (root.resolve() for root in visible.roots()):
        if fixed.is_relative_to(root):
            raise UserError(
                f"Candidates could read {path}, and so the data that they are scored on.",
                f"Move it out of {root}, which every sandbox shows.",
            )
