"""Is the starting script tuned? Optuna over all of its knobs, at its own budget, against it.

    python -m benchmarks.baseline                    100 trainings, then 8 fresh seeds each; about 20 minutes
    python -m benchmarks.baseline --trials 10 --seeds 2

Optuna (Gaussian process, expected improvement under constraints) begins with the script's own values and
trains each suggestion once, with the same seed. A suggestion that takes more than `--slower` times the
start's time, or has more than `--larger` times its parameters, breaks a constraint: more of either is no
better tuning, it is another budget. The best few by that one number are then trained on fresh seeds beside
the start, since the best of a hundred noisy numbers flatters. The table says what is left of the gain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import optuna
from scipy.stats import ttest_rel

from autoresearch.config import CONFIGS
from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import Choice, Knob, Range, read_knobs, set_knobs

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "nanomodel/train.py"
SOURCE = (ROOT / SCRIPT).read_text()
FINALISTS = 3


@dataclass(frozen=True)
class Run:
    """What one training came to: bits per byte, seconds of training, millions of parameters."""

    score: float
    seconds: float
    parameters: float


class Lab:
    """Trains the script with other values of its knobs."""

    def __init__(self, folder: Path, cache: Path, budget: Path) -> None:
        self._folder, self._cache, self._budget = folder, cache, budget
        self._lock, self._count = threading.Lock(), 0

    def train(self, values: Mapping[str, object], seed: int) -> Run | None:
        """One training and scoring in a process of its own; None if it fails."""
        with self._lock:
            self._count += 1
            place = self._folder / str(self._count)
        shutil.copytree(ROOT / "nanomodel", place / "nanomodel", ignore=shutil.ignore_patterns("__pycache__"))
        edits = set_knobs(SCRIPT, SOURCE, dict(values), 0)
        (place / SCRIPT).write_text(apply({SCRIPT: SOURCE}, edits)[SCRIPT] if edits else SOURCE)
        command = [
            sys.executable,
            "-m",
            "nanomodel.bench",
            "--budget",
            str(self._budget),
            "--cache",
            str(self._cache),
        ]
        command += ["--device", "cpu", "--threads", "1", "--first-seed", str(seed), "--json", "run.json"]
        done = subprocess.run(command, cwd=place, capture_output=True)
        if done.returncode:
            return None
        [run] = json.loads((place / "run.json").read_text())["runs"]
        shutil.rmtree(place)
        return Run(run["val_bpb"], run["train"], run["parameters"] / 1e6)


def suggested(trial: optuna.Trial, knobs: Sequence[Knob]) -> dict[str, object]:
    """A value for each knob; a range is searched by position, so that rounding is the script's."""
    found: dict[str, object] = {}
    for knob in knobs:
        if isinstance(knob.space, Range):
            found[knob.name] = knob.space.value(trial.suggest_float(knob.name, 0.0, 1.0))
        else:
            at = trial.suggest_categorical(knob.name, range(len(knob.space.options)))
            found[knob.name] = knob.space.options[at]
    return found


def position(knob: Knob) -> float | int:
    """Where the script's own value lies, as `suggested` names it."""
    if isinstance(knob.space, Choice):
        return knob.space.options.index(knob.value)
    return knob.space.unit(float(knob.value))


def search(lab: Lab, knobs: Sequence[Knob], options: argparse.Namespace) -> list[dict[str, object]]:
    """Let Optuna tune; the best few of what keeps to the constraints, best first."""
    with ThreadPoolExecutor(options.workers) as pool:  # as many beside each other as later
        starts = list(pool.map(lambda _: lab.train({}, 0), range(options.workers)))
    assert None not in starts, "the starting script fails"
    start = max((run for run in starts if run), key=lambda run: run.seconds)
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=options.seed, n_startup_trials=10))
    study.enqueue_trial({knob.name: position(knob) for knob in knobs})
    lock = threading.Lock()

    def once(number: int) -> None:
        with lock:
            trial = study.ask()
            values = suggested(trial, knobs)
        run = lab.train(values, 0)
        with lock:
            trial.set_user_attr("values", values)
            if run is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                return
            slower = run.seconds / (options.slower * start.seconds) - 1
            larger = run.parameters / (options.larger * start.parameters) - 1
            trial.set_constraint("slower", slower)
            trial.set_constraint("larger", larger)
            over = max(slower, larger) > 0
            trial.set_user_attr("over", over)
            study.tell(trial, run.score)
            about = f"{run.score:.4f}  {run.seconds:5.1f} s  {run.parameters:.2f} M"
            print(f"{number:4d}  {about}{'  over budget' if over else ''}", flush=True)

    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(once, range(options.trials)))
    kept = [t for t in study.trials if t.value is not None and not t.user_attrs["over"]]
    kept.sort(key=lambda t: t.value or 0.0)
    return [t.user_attrs["values"] for t in kept[:FINALISTS]]


def main() -> None:
    """Search, train the finalists on fresh seeds beside the start, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="trainings of the search")
    parser.add_argument("--seeds", type=int, default=8, help="fresh seeds of the start and each finalist")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--budget", default="cpu", help="a name in configs/budget")
    parser.add_argument("--slower", type=float, default=1.25, help="most time, in multiples of the start's")
    parser.add_argument(
        "--larger", type=float, default=1.1, help="most parameters, in multiples of the start's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of Optuna")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    budget = CONFIGS / "budget" / f"{options.budget}.yaml"
    knobs = read_knobs(SOURCE, 0)
    with tempfile.TemporaryDirectory(prefix="baseline-") as folder:
        prepare = [
            sys.executable,
            "-m",
            "autoresearch",
            "prepare",
            f"budget={options.budget}",
            f"runs={folder}",
        ]
        subprocess.run([*prepare, "executor.device=cpu"], cwd=ROOT, check=True)
        [cache] = (path.parent for path in Path(folder).glob("cache/*/meta.json"))
        lab = Lab(Path(folder), cache, budget)
        finalists = search(lab, knobs, options)
        named = {"start": {}, **{f"finalist {i + 1}": values for i, values in enumerate(finalists)}}
        jobs = [(name, seed) for seed in range(1000, 1000 + options.seeds) for name in named]
        with ThreadPoolExecutor(options.workers) as pool:
            runs = list(pool.map(lambda job: lab.train(named[job[0]], job[1]), jobs))
    scores = {
        name: [run.score for job, run in zip(jobs, runs, strict=True) if run and job[0] == name]
        for name in named
    }
    start = scores["start"]
    print(f"\n{options.trials} trainings over {len(knobs)} knobs; {options.seeds} fresh seeds each")
    print(f"start        {mean(start):.4f}  noise {stdev(start):.4f}")
    for name in list(named)[1:]:
        interval = ttest_rel(start, scores[name]).confidence_interval()
        gain = mean(start) - mean(scores[name])
        between = f"[{interval.low:+.4f}, {interval.high:+.4f}]"
        print(f"{name:11s}  {mean(scores[name]):.4f}  gain {gain:+.4f} {between}")
        moved = {k.name: named[name][k.name] for k in knobs if named[name][k.name] != k.value}
        print(f"             {moved}")


if __name__ == "__main__":
    main()
