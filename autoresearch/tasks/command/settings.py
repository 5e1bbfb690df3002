"""The settings of the task `command`: as configured, and what follows from them for one place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from autoresearch.config import Options
from autoresearch.execute.sandbox import Limits
from autoresearch.tasks.command.metrics import Guard, check_source
from autoresearch.types import Split

PLACEHOLDER = re.compile(r"\{(seed|seconds|out|data|threads)\}")


def _relative(path: str) -> str:
    """A path or glob inside the repository, as git spells it."""
    clean = path.removeprefix("./").rstrip("/")
    if not clean or clean.startswith(("/", "~")) or {"..", ".git"} & set(clean.split("/")):
        raise ValueError("must name files inside the repository, relative to its top")
    return clean


Inside = Annotated[str, AfterValidator(_relative)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CommandOptions(Options):
    """The configuration group `task`; configs/task/command.yaml says what each means."""

    name: str
    editable: tuple[Inside, ...] = Field(min_length=1)
    train: str = Field(min_length=1)
    score: str | None
    prepare: str | None
    splits: tuple[Split, ...] = Field(min_length=1)
    metric: Name
    unit: str = Field(min_length=1)
    direction: Literal["min", "max"]
    digits: int = Field(ge=0, le=12)
    items: bool
    metrics: Annotated[str, AfterValidator(check_source)]
    guards: tuple[Annotated[str, AfterValidator(lambda text: str(Guard.parse(text)))], ...]
    checks: tuple[str, ...]
    output: Inside | None
    output_mb: float = Field(gt=0, le=1e6)
    held_out: tuple[Inside, ...]
    inputs: tuple[Inside, ...]
    read_only: tuple[str, ...]
    env: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(=.*)?$")], ...]
    python: str | None
    packages: tuple[str, ...] | None
    gpu: bool
    deterministic: bool
    tryout_seconds: float = Field(ge=0, le=600)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if Split.VALIDATION not in self.splits or Split.TRAIN in self.splits:
            raise ValueError("needs validation among its splits, and not train")
        if self.score is None and (self.items or len(self.splits) > 1 or self.held_out):
            raise ValueError("needs a score command for items, held_out, and splits besides validation")
        return self


class CommandBudget(Options):
    """The configuration group `budget` of this task."""

    kind: Literal["own", "seconds"]
    amount: Seconds | None
    max_seconds: Seconds
    slowdown: float | None = Field(gt=1, allow_inf_nan=False)
    score_seconds: Seconds

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "seconds") != (self.amount is not None):
            raise ValueError("needs an amount if its kind is seconds, and none if it is own")
        return self

    def limit(self, baseline: Mapping[str, float]) -> float:
        """Seconds after which a training is ended, given the largest numbers of the baseline."""
        if self.amount is not None:
            return self.amount * 1.01 + 0.5
        if self.slowdown is None or "train_seconds" not in baseline:
            return self.max_seconds
        return min(self.max_seconds, self.slowdown * baseline["train_seconds"] + 1)


@dataclass(frozen=True)
class Environment:
    """What the commands of one place find around them.

    Attributes:
        checkout: Top folder of the repository, for what git does not hold.
        variables: Those that the user passes on.
        programs: Folders of programs, first on the PATH.
        read_only: What can be read besides the tree: an environment, inputs, further folders.
        own: Whether the repository has an interpreter of its own, so that our packages are none of its.
        packages: Of our packages those that `train` may import, by name; None: all.
        threads: CPU threads of a command.
        gpu: Whether the GPU is shown.
        only: The only GPU that is shown; empty: all.
        limits: How much of the host one process tree may use.
    """

    checkout: Path
    variables: Mapping[str, str]
    programs: tuple[Path, ...]
    read_only: tuple[Path, ...]
    own: bool
    packages: tuple[str, ...] | None
    threads: int
    gpu: bool
    only: str
    limits: Limits


def filled(command: str, values: Mapping[str, str]) -> str:
    """A command with its placeholders replaced by what stands for them, quoted for the shell."""
    return PLACEHOLDER.sub(lambda found: shlex.quote(values.get(found[1], "")), command)
