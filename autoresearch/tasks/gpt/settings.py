"""The settings of trainings and scorings: as configured, for one place, and for one trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from autoresearch.config import Options
from autoresearch.execute.sandbox import Limits, Sandbox
from autoresearch.types import TextRequest

LARGEST_COPY = 1 << 28
"""In tokens. With a larger budget the candidate counts by itself, since a copy would take too much memory."""
TRYOUT_SCORE_SECONDS, TRYOUT_SCORING = 20.0, 3.0
"""Seconds that scoring a few windows may take; more where a whole scoring took more than a third of that."""


class TaskOptions(Options):
    """The configuration group `task`: which files may change, and which modules train, serve and score."""

    name: str
    editable: tuple[str, ...] = Field(min_length=1)
    package: str
    train: str
    serve: str
    score: str
    prepare: str
    questions: int = Field(ge=0, le=1_000_000)


class BudgetOptions(Options):
    """The configuration group `budget`: what a trial may use, and its scale."""

    kind: Literal["seconds", "tokens"]
    amount: float = Field(gt=0, allow_inf_nan=False)
    memory_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    vocab: int = Field(ge=256, le=65536)
    context: int = Field(ge=8, le=65536)
    validation_tokens: int = Field(ge=1024)
    compile: bool
    startup_seconds: float = Field(gt=0, allow_inf_nan=False)
    max_seconds: float = Field(gt=0, allow_inf_nan=False)
    slowdown: float | None = Field(gt=1, allow_inf_nan=False)
    score_seconds: float = Field(gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class TrainingBudget:
    """What a training may use.

    Attributes:
        kind: "seconds", "tokens", or (to try a candidate out) "steps".
        amount: How many.
        max_seconds: Limit on the time of a budget that is not of seconds, as `execute.load.Clock` counts it.
        max_cpu_seconds: Limit on its CPU time; None: there is none.
        reference: CPU seconds of `execute.load`'s fixed computation at the baseline; 0: unknown.
        source: Where the limits come from, in words.
    """

    kind: str
    amount: float
    max_seconds: float
    max_cpu_seconds: float | None = None
    reference: float = 0.0
    source: str = "budget.max_seconds"

    def limited(self, slowdown: float | None, baseline: Mapping[str, float], cpus: int) -> TrainingBudget:
        """The same budget with the limits of a trial.

        Args:
            slowdown: Largest multiple of the baseline's time; None: there is no such limit.
            baseline: See `TrialSpec.baseline`.
            cpus: Cores that a training computes on; 0: on a GPU, where CPU time says little.
        """
        if self.kind == "seconds":
            return self
        most = replace(self, max_cpu_seconds=cpus * self.max_seconds if cpus else None)
        if slowdown is None or "train_seconds" not in baseline:
            return most
        if most.max_cpu_seconds is not None and "cpu_seconds" in baseline:
            limit = min(most.max_cpu_seconds, slowdown * baseline["cpu_seconds"] + 1)
            most = replace(most, max_cpu_seconds=limit, reference=baseline.get("reference_seconds", 0.0))
        if (limit := slowdown * baseline["train_seconds"] + 1) >= self.max_seconds:
            return most
        source = f"budget.slowdown: {slowdown:g} times the slowest baseline"
        return replace(most, max_seconds=limit, source=source)

    @property
    def late_after(self) -> float:
        """Seconds on the runner's clock after which a submission is late.

        The harness submits with a hundredth of a budget of seconds to spare. The tolerance allows for a busy
        machine, and is too small to gain anything by training in it.
        """
        return self.amount + max(0.25, 0.005 * self.amount) if self.kind == "seconds" else self.max_seconds

    def fraction(self, seconds: float, tokens: int, steps: int = 0) -> float:
        """Share used, in [0, 1]."""
        used = {"seconds": seconds, "tokens": tokens, "steps": steps}[self.kind]
        return min(1.0, max(0.0, used / self.amount))


@dataclass(frozen=True)
class Settings:
    """How candidates are trained and scored at one place.

    Attributes:
        train: Module of the training script.
        serve: Module of the model server.
        score: Module of the scorer.
        trusted: A tree with the scorer's package, which no candidate can write.
        budget: What a training may use.
        context: Tokens that the model reads at a time in scoring.
        compile: Whether candidates may compile.
        startup_seconds: Limit on everything before the clock starts.
        score_seconds: Limit on scoring.
        slowdown: Limit on the time of a training, in multiples of the slowest baseline; None: there is none.
        limits: How much of the host one candidate process may use.
        device: "cpu", "cuda", "auto", or one of several GPUs, such as "cuda:1", which is then the only one
            shown.
        threads: CPU threads of a training and of the scorer.
        serve_threads: CPU threads of a model server.
        max_bytes: Largest submission.
        probes: Windows on which both model servers are compared; at least 8.
        questions: Positions to ask about blind, where a trial is to be scored so.
        editable: The files in which a candidate may differ from the trusted tree.
        standby: Folder where the next trial's processes wait, started near the end of the one before; None:
            each trial starts its own.
        compiled: Folder for the compile cache of the starting script; None: keep none.
        score_alone: Whether no other candidate's process runs while a model is scored.
    """

    train: str
    serve: str
    score: str
    trusted: Path
    budget: TrainingBudget
    context: int
    compile: bool
    startup_seconds: float
    score_seconds: float
    limits: Limits
    slowdown: float | None = None
    device: str = "cpu"
    threads: int = 1
    serve_threads: int = 1
    max_bytes: int = 4 * 10**9
    probes: int = 128
    questions: int = 500
    editable: tuple[str, ...] = ()
    standby: Path | None = None
    compiled: Path | None = None
    score_alone: bool = False


@dataclass(frozen=True)
class LaunchOptions:
    """Options for starting a candidate's processes; the same for every trial.

    Attributes:
        sandbox: The sandbox for them.
        settings: Their modules, threads and limits.
        gpu: Whether they may use the GPU.
        only: The only GPU that they see; empty: those that the runner sees.
        before_script: Called with the folder of a trainer before a script runs in it.
    """

    sandbox: Sandbox
    settings: Settings
    gpu: bool
    only: str
    before_script: Callable[[Path], None]


@dataclass(frozen=True)
class TrialPlan:
    """What to do with a candidate.

    Attributes:
        seed: Random seed of the training.
        budget: What the training may use.
        compile: Whether it may compile.
        startup_seconds: Limit on everything before the clock starts.
        splits: The splits to score on.
        probes: Windows to ask the witness about.
        tryout: Whether to score only a few windows, and to leave waiting processes for a trial.
        submission: File that keeps the submitted weights; if it exists, it is scored and nothing is trained.
        questions: Positions to ask about blind, before the first split is scored.
        question_seed: Seed of these positions; None: new ones.
        share: (i, n): score only the i-th of n shares of the first split; None: all of it.
        usual_score_seconds: What scoring took in the slowest trial here so far; 0: not known.
        text: What the scored model is to write; None: nothing.
        slices: Name -> slice that the scorer sums up besides; see `nanomodel.scoring.slices`.
    """

    seed: int
    budget: TrainingBudget
    compile: bool
    startup_seconds: float
    splits: tuple[str, ...]
    probes: int
    tryout: bool = False
    submission: Path | None = None

    @property
    def submitted(self) -> bool:
        """Whether an earlier trial has left its weights, so that only the scoring is to be done."""
        return self.submission is not None and self.submission.exists()

    questions: int = 0
    question_seed: int | None = None
    share: tuple[int, int] | None = None
    usual_score_seconds: float = 0.0
    text: TextRequest | None = None
    slices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def counted(self) -> bool:
        """Whether the candidate gets a copy of exactly its budget of tokens."""
        return self.budget.kind == "tokens" and self.budget.amount <= LARGEST_COPY

    def score_seconds(self, most: float) -> float:
        """Limit on scoring, given that of a trial; shorter for a tryout, since trials wait for it."""
        most *= 2 if self.questions else 1
        usual = max(TRYOUT_SCORE_SECONDS, TRYOUT_SCORING * self.usual_score_seconds)
        return min(most, usual) if self.tryout else most
