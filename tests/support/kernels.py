"""Kernels for tests: a specification that takes a millisecond, an honest kernel, and a measurer for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoresearch.config import load
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import Sandbox, create_sandbox
from autoresearch.tasks import create_task
from autoresearch.tasks.kernel.task import KernelTask
from autoresearch.types import Measurement, Progress

SPEC = """import numpy as np

SIZES = (0, 2000)
TIMED = (2000, 2000)
TOLERANCE = (1e-9, 1e-12)


def inputs(rng, size):
    return [rng.random(size)]


def edges(rng):
    yield [np.array([0.0, 1e300, -1e-300])]


def reference(x):
    y = x
    for _ in range(400):
        y = 0.5 * np.sin(y) + x
    return y
"""
HONEST = """import numpy as np


def kernel(x):
    y = x
    for _ in range(400):
        y = 0.5 * np.sin(y) + x
    return y
"""
C_SPEC = """import numpy as np

SIZES = (0, 20000)
TIMED = (10000, 20000)
TOLERANCE = (0, 0)


def inputs(rng, size):
    return [rng.integers(0, 100, size)]


def reference(x):
    return sum(np.minimum(x, k) for k in range(8))
"""
C_SLOW = """#include <stdint.h>
/* eight passes over the data */
void kernel(const int64_t *x, int64_t *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = 0;
    for (int k = 0; k < 8; k++) {
        for (volatile int64_t i = 0; i < n; i++) out[i] += x[i] < k ? x[i] : k;
    }
}
"""
C_FAST = """#include <stdint.h>

void kernel(const int64_t *x, int64_t *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        int64_t sum = 0;
        for (int64_t k = 0; k < 8; k++) sum += x[i] < k ? x[i] : k;
        out[i] = sum;
    }
}
"""
SMALL = (
    *("task=kernel", "budget=kernel", "data=kernel", "name=x", "executor.device=cpu", "executor.workers=1"),
    *("budget.pairs=8", "budget.batch_seconds=0.002", "budget.checks=8", "budget.memory_mb=8"),
)


def make_task(*overrides: str) -> KernelTask:
    """The task at a scale at which a trial takes a second; of a Python kernel unless said otherwise."""
    python = "task.editable=[kernel.py]", "task.packages=[numpy]"
    task = create_task(load([*SMALL, *python, *overrides], {}))
    assert isinstance(task, KernelTask)
    return task


def write_tree(root: Path, kernel: str = HONEST, spec: str = SPEC, name: str = "kernel.py") -> Path:
    """A repository's files."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "spec.py").write_text(spec)
    (root / name).write_text(kernel)
    return root


def measure(
    place: Path,
    tree: Path,
    *overrides: str,
    trusted: Path | None = None,
    sandbox: Sandbox | None = None,
    progress: Callable[[Progress], None] = lambda sign: None,
    say: Callable[[str], None] = lambda text: None,
    **spec: Any,
) -> Measurement:
    """One trial of the kernel in `tree`, in a new folder below `place`."""
    task = make_task(*overrides)
    scratch = place / f"scratch{sum(1 for _ in place.iterdir())}"
    scratch.mkdir()
    data = task.prepare(place / "cache")
    made = task.measurer(task.places()[0], data, sandbox or create_sandbox("auto"), trusted or tree, say)
    try:
        return made.measure(tree, TrialSpec("test", 1, "", **{"seed": 5, **spec}), scratch, progress)
    finally:
        made.close()
