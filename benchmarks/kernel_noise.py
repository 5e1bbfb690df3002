"""How noisy the speed-up of a kernel is: the same kernel again and again, quiet and beside busy loops.

    python -m benchmarks.kernel_noise [--trials 10] [--example kernel-c]

Prints the standard deviation of the logarithm (about the relative error) of three estimates of each trial:
the median of pairwise ratios of CPU times, which is the score; the same of wall times; and the ratio of all
wall time, as a stopwatch around a loop gives it. "itself" is the reference measured against itself.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from autoresearch.config import load
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.sandbox import create_sandbox
from autoresearch.tasks import create_task
from autoresearch.tasks.kernel import measurer
from autoresearch.tasks.kernel.timing import Pair, speedup

EXAMPLES = Path(__file__).parents[1] / "examples"
SPIN = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--example", default="kernel-c")
    parser.add_argument("--pairs", type=int, default=120)
    options = parser.parse_args()
    print(
        f"{'kernel':10} {'beside':14} {'load':>5} {'speed-up':>9} {'CPU':>8} {'wall':>8} {'total wall':>11}"
    )
    for itself in (True, False):
        for busy in (0, 2):
            spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
            try:
                found = trials(EXAMPLES / options.example, options.trials, options.pairs, itself=itself)
            finally:
                for process in spinning:
                    process.kill()
                    process.wait()
            errors = [stdev(math.log(estimate[i]) for estimate in found) for i in range(3)]
            name, beside = "itself" if itself else "kernel", f"{busy} busy loops" if busy else "nothing"
            figures = f"{mean(e[0] for e in found):9.3f} {errors[0]:8.4f} {errors[1]:8.4f} {errors[2]:11.4f}"
            print(f"{name:10} {beside:14} {os.getloadavg()[0]:5.1f} {figures}", flush=True)


def trials(example: Path, count: int, pairs: int, *, itself: bool) -> list[tuple[float, float, float]]:
    """Three estimates of the speed-up in each of some trials."""
    found: list[tuple[float, float, float]] = []

    def noted(timed: Sequence[Pair], *, wall: bool = False) -> float:
        if not wall:
            total = sum(p.reference.wall for p in timed) / sum(p.candidate.wall for p in timed)
            found.append((speedup(timed), speedup(timed, wall=True), total))
        return speedup(timed, wall=wall)

    given = ["task=kernel", "name=x", "executor.device=cpu", "executor.workers=1", f"budget.pairs={pairs}"]
    given += ["task.editable=[kernel.py]"] if itself or "numba" in example.name else []
    task = create_task(load(given, {}, own_file=False))
    measurer.speedup, before = noted, measurer.speedup
    try:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            tree.mkdir()
            for file in example.iterdir():
                (tree / file.name).write_bytes(file.read_bytes())
            if itself:
                (tree / "kernel.py").write_text("from spec import reference as kernel\n")
            data, place = task.prepare(Path(folder, "cache")), task.places()[0]
            made = task.measurer(place, data, create_sandbox("auto"), tree, print)
            for seed in range(count):
                scratch = Path(folder, f"scratch{seed}")
                scratch.mkdir()
                done = made.measure(tree, TrialSpec("noise", seed, "", seed), scratch, lambda sign: None)
                if done.score is None:
                    raise SystemExit(f"a trial failed: {done.reason}")
            made.close()
    finally:
        measurer.speedup = before
    return found


if __name__ == "__main__":
    main()
