"""What is chosen from a list: categories, verdicts, outcomes, arms, splits; the metric and its direction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from autoresearch.types.plain import Plain


class Category(StrEnum):
    """The kind of change that a proposal makes; shows which kinds gain."""

    ARCHITECTURE = "architecture"
    OPTIMIZER = "optimizer"
    SCHEDULE = "schedule"
    DATA = "data"
    REGULARIZATION = "regularization"
    THROUGHPUT = "throughput"
    SIMPLIFY = "simplify"
    KNOBS = "knobs"
    OTHER = "other"


class VerdictKind(StrEnum):
    """How an experiment ended."""

    KEEP = "keep"
    DISCARD = "discard"
    PRUNE = "prune"
    CRASH = "crash"
    INVALID = "invalid"


class Outcome(StrEnum):
    """How one trial ended."""

    OK = "ok"
    PRUNE = "prune"
    CRASH = "crash"
    INVALID = "invalid"


class State(StrEnum):
    """How far an experiment has come; each value is written before the step it announces."""

    PROPOSED = "proposed"
    COMMITTED = "committed"
    JUDGED = "judged"
    RECORDED = "recorded"


class Direction(StrEnum):
    """Which way a metric gets better."""

    MINIMIZE = "min"
    MAXIMIZE = "max"


@dataclass(frozen=True)
class Metric(Plain):
    """The number that a search improves.

    Attributes:
        name: A short identifier, for JSON, MLflow and commit trailers, such as "val_bpb".
        unit: The unit in words, such as "bits per byte".
        direction: Which way is better.
        digits: Decimals to print.
        per_item: Whether each measurement comes with the losses of single items, such as documents.
        ratio: Whether a share of a score means something: not on a logarithmic scale.
    """

    name: str
    unit: str
    direction: Direction = Direction.MINIMIZE
    digits: int = 4
    per_item: bool = False
    ratio: bool = True

    def share(self, gain: float, before: float) -> float | None:
        """A gain as a share of the score before it; None if that means nothing."""
        return gain / abs(before) if self.ratio and before else None

    def loss(self, score: float) -> float:
        """The score turned so that lower is better, as judges read it; the function is its own inverse."""
        return score if self.direction is Direction.MINIMIZE else -score

    def gain(self, before: float, after: float) -> float:
        """How much better `after` is than `before`; positive is better."""
        return self.loss(before) - self.loss(after)

    def change(self, effect: float) -> float:
        """What a gain does to the score: negative for a gain of a minimised metric."""
        return -self.loss(effect)

    def better(self, first: float, second: float) -> bool:
        """Whether the first score is better than the second."""
        return self.loss(first) < self.loss(second)

    def on(self, split: Split) -> str:
        """Name of the score on a further split among a measurement's metrics, such as "test_bpb"."""
        return f"{split}_{self.name.rpartition('_')[2]}"

    def text(self, score: float) -> str:
        """The score as it is printed."""
        return f"{round(score, self.digits) + 0.0:.{self.digits}f}"  # without the sign of a zero


class Arm(StrEnum):
    """What a trial is for."""

    BASELINE = "baseline"
    SCREEN = "screen"
    CONFIRM = "confirm"
    INCUMBENT = "incumbent"
    CLAIM = "claim"
    AUDIT = "audit"
    DIAGNOSE = "diagnose"


class Split(StrEnum):
    """Parts of a task's data. Candidates see only TRAIN; VALIDATION decides; TEST is sealed."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    HELD = "held"
    OTHER = "other"


REPORTED_SPLITS = (Split.HELD, Split.OTHER)
"""Splits that are scored besides VALIDATION, to report whether gains carry over. They decide nothing."""


class Fidelity(StrEnum):
    """How much of the budget a trial uses."""

    TRYOUT = "tryout"
    FULL = "full"
