"""The task `kernel`: make a function faster with exactly the same behaviour.

The repository holds a specification (frozen) and a kernel (editable), a function in C, C++ or Python. The
score is the logarithm of the speed-up over the specification's reference: its noise is the same for slow and
fast kernels, which that of a ratio is not. See docs/kernels.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from autoresearch.config import Config, Options, parse
from autoresearch.edit.python import fingerprint, net_size
from autoresearch.edit.rules import check
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Measurer, Place
from autoresearch.execute.places import device, places
from autoresearch.execute.places import fingerprint as device_name
from autoresearch.execute.sandbox import Limits, Sandbox
from autoresearch.execute.sandbox import gpu as gpus
from autoresearch.tasks.base import Budget, Dataset, PromptText, Task, Trust
from autoresearch.tasks.kernel.measurer import KernelMeasurer, KernelSettings
from autoresearch.tasks.kernel.process import Setup
from autoresearch.types import Direction, Metric, Split

C_LIKE = (".c", ".cc", ".cpp", ".cxx", ".h", ".hpp")
TOKENS = re.compile(
    r"""(?P<comment>/\*.*?\*/|//(?:\\\n|[^\n])*)|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<gap>\s+)"""
    r"""|(?P<open>/\*)|(?P<word>\w+)|(?P<sign>.)""",
    re.DOTALL,
)
"""Of a C file: comments, literals, white space, a comment that does not end, and the rest."""
PAIRS = {")": "(", "]": "[", "}": "{"}
ROLE = (
    "You are a performance engineer. A program measures a function again and again, and asks you for one "
    "faster version at a time."
)
RULES = (
    "The function must return the same results as the reference for all inputs that the specification "
    "allows, small, large and odd ones included: hidden inputs are checked, and every timed result.",
    "Inputs cannot be written. Nothing that is kept from call to call helps: every input is new.",
    "What counts is the CPU time of all its threads and processes, so threads gain nothing.",
    "No network, no files. C and C++ are compiled with fixed flags; Python may import NumPy and what the "
    "task allows.",
)
SCORING = (
    "The score is the logarithm to the base 2 of the speed-up over the reference: +1 is twice as fast. It is "
    "the median over many pairs of runs on new inputs of random sizes, timed from outside the process.",
    "A wrong result makes the candidate invalid, and so does work that its CPU time does not show.",
)
FACTS = {
    "speedup": "speed-up over the reference by CPU time: {}",
    "wall_speedup": "the same by the wall clock: {}",
    "candidate_ms": "CPU time of a run: {} ms",
    "reference_ms": "CPU time of a run of the reference: {} ms",
    "calls": "",
    "memory_mb": "",
    "startup_cpu_seconds": "",
}


class KernelOptions(Options):
    """The group `task`; see configs/task/kernel.yaml."""

    name: str
    editable: tuple[str, ...] = Field(min_length=1)
    spec: str
    function: str = Field(pattern=r"^[A-Za-z_]\w*$")
    frozen: tuple[str, ...]
    flags: tuple[str, ...]
    packages: tuple[str, ...]


class KernelBudget(Options):
    """The group `budget`; see configs/budget/kernel.yaml."""

    kind: Literal["own"]
    pairs: int = Field(ge=4, le=10_000)
    batch_seconds: float = Field(gt=0, le=60)
    checks: int = Field(ge=1, le=10_000)
    load_seconds: float = Field(gt=0)
    max_seconds: float = Field(gt=0)
    memory_mb: int = Field(ge=1, le=16_384)


class KernelTask(Task):
    """Implements `tasks.base.Task` for a function with a reference."""

    metric = Metric(
        "log2_speedup", "doublings of the reference's speed", Direction.MAXIMIZE, digits=3, ratio=False
    )
    trust = Trust.SERVED

    def __init__(self, config: Config) -> None:
        """Check the groups `task` and `budget`.

        Raises:
            UserError: If a value is wrong.
        """
        self._config = config
        self._task = task = parse(KernelOptions, config.task, "task")
        self._own = own = parse(KernelBudget, config.budget, "budget")
        if task.spec in task.editable:
            raise UserError(
                f"task.spec: {task.spec} is editable too.", "Candidates must not change what is right."
            )
        if not hasattr(os, "memfd_create"):
            raise UserError("task=kernel needs Linux: it times processes by what its kernel counts.")
        self.name, self.editable = task.name, task.editable
        self.frozen = (task.spec, *task.frozen, *task.editable)
        text = f"{own.pairs} pairs of runs, {own.batch_seconds:g} s of the reference each"
        self.budget = Budget(text, None, own.max_seconds)
        self.by_hand = f"{'cc' if self._compiled else 'python'} {task.editable[0]}"

    @property
    def _compiled(self) -> bool:
        return self.editable[0].endswith(C_LIKE)

    def prepare(self, cache: Path) -> Dataset:
        """Nothing is prepared: inputs are drawn anew in each trial."""
        cache.mkdir(parents=True, exist_ok=True)
        return Dataset(
            cache, {"inputs": self._task.spec}, frozenset({Split.VALIDATION}), "new inputs for each run"
        )

    def validate(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Check an edit; C is only checked for what cannot be a program: the compiler says the rest."""
        check(before, after, self.editable)
        super().validate(before, after)
        for path, text in after.items():
            if path.endswith(C_LIKE):
                _check_c(path, text)
        kernel, name = self.editable[0], self._task.function
        if not re.search(rf"\b{name}\b", after.get(kernel, "")):
            raise Refused(f"{kernel} does not hold the function {name}")

    def fingerprint(self, sources: Mapping[str, str]) -> str:
        """A hash that ignores comments and layout."""
        return fingerprint({path: _normal(path, text) for path, text in sources.items()})

    def growth(self, before: Mapping[str, str], after: Mapping[str, str]) -> int:
        """Net lines that an edit adds, without comments and empty lines."""

        def lines(sources: Mapping[str, str]) -> int:
            return sum(
                len(_code(text).split("\n")) for path, text in sources.items() if path.endswith(C_LIKE)
            )

        return lines(after) - lines(before) + net_size(before, after)

    def places(self) -> Sequence[Place]:
        """The devices of this machine that the configuration names."""
        return [Place(name, device_name(where)) for name, where in places(self._config).items()]

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        """Make the measurer of one place; each has a core of its own, as far as there are enough."""
        task, own, known = self._task, self._own, places(self._config)
        gpu = device(self._config) == "cuda"
        cores = sorted(os.sched_getaffinity(0))
        number = list(known).index(place.name)
        index = known[place.name].partition(":")[2]
        settings = KernelSettings(
            kernel=task.editable[0],
            spec=task.spec,
            function=task.function,
            flags=task.flags,
            trusted=trusted.resolve(),
            pairs=own.pairs,
            batch_seconds=own.batch_seconds,
            checks=own.checks,
            load_seconds=own.load_seconds,
            max_seconds=own.max_seconds,
            wall=gpu,
        )
        setup = Setup(
            sandbox=sandbox,
            limits=Limits(**self._config.sandbox["limits"]),
            packages=task.packages,
            memory=2 * own.memory_mb << 20,
            core=None if gpu else cores[number % len(cores)],
            gpu=gpu,
            only=gpus.named(int(index)) if gpu and index else "",
        )
        return KernelMeasurer(settings, setup, place, say)

    def prompt(self) -> PromptText:
        """The words for a language model."""
        return PromptText(ROLE, RULES, self.budget.text, FACTS, SCORING)


def _normal(path: str, text: str) -> str:
    """A C file without comments and layout, which still ends preprocessor lines; other files as they are."""
    if not path.endswith(C_LIKE):
        return text
    return "\n".join(" ".join(line.split()) for line in _code(text).split("\n"))


def _code(text: str) -> str:
    """A C file without comments and empty lines."""
    kept = "".join(" " if found["comment"] else found[0] for found in TOKENS.finditer(text))
    return "\n".join(line for line in kept.split("\n") if line.strip())


def _check_c(path: str, text: str) -> None:
    """Refuse what is no C program at first sight.

    Raises:
        Refused: If a comment does not end, or brackets do not match.
    """
    opened: list[tuple[str, int]] = []
    for found in TOKENS.finditer(text):
        line = text.count("\n", 0, found.start()) + 1 if found["open"] or found["sign"] else 0
        if found["open"]:
            raise Refused(f"{path}, line {line}: the comment does not end")
        sign = found["sign"] or ""
        if sign in "([{" and sign:
            opened.append((sign, line))
        elif sign in PAIRS and (not opened or opened.pop()[0] != PAIRS[sign]):
            raise Refused(f"{path}, line {line}: {sign!r} closes nothing")
    if opened:
        raise Refused(f"{path}, line {opened[-1][1]}: {opened[-1][0]!r} is not closed")
