"""`python -m nanomodel.bench`: measures a profile on this machine, as a table and as JSON.

    python -m nanomodel.bench --budget gpu_5min --cache FOLDER --seeds 3 --json bench.json
    python -m nanomodel.bench --seconds 20 --context 256 --no-compile
    python -m nanomodel.bench --kernels --budget gpu_5min

Needs only torch, numpy, a checkout and a prepared cache. Each training and each scoring is the command that a
person would type (`nanomodel.train`, `nanomodel.score`), in a separate process, so that its memory is free
before the next begins. Nothing runs in a sandbox. Not covered: judging a change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from nanomodel.standalone import compile_warnings

BUDGETS = Path(__file__).resolve().parent.parent / "configs" / "budget"
PHASES = ("import", "build", "warm-up", "train", "score")
COLUMNS = {
    "seed": "{:.0f}",
    "val_bpb": "{:.6f}",
    "tokens_per_second": "{:,.0f}",
    "mfu": "{:.1%}",
    "peak_memory_mb": "{:,.0f}",
    "steps": "{:,.0f}",
    "tokens": "{:,.0f}",
    **dict.fromkeys(PHASES, "{:.1f}"),
}


class BenchError(Exception):
    """There is no result; the message says why."""


def read_budget(name: str) -> dict[str, Any]:
    """A budget of `configs/budget`, by name, or any file like them: flat `key: value  # comment` lines.

    Raises:
        BenchError: If there is no such file.
    """
    path = Path(name) if name.endswith((".yaml", ".json")) else BUDGETS / f"{name}.yaml"
    try:
        text = path.read_text("utf-8")
    except OSError:
        known = ", ".join(sorted(p.stem for p in BUDGETS.glob("*.yaml")))
        raise BenchError(f"There is no budget {name}. There are: {known}") from None
    if path.suffix == ".json":
        return dict(json.loads(text))
    pairs = (line.partition("#")[0].partition(":") for line in text.splitlines())
    return {key.strip(): _value(value.strip()) for key, colon, value in pairs if colon}


def _value(text: str) -> Any:
    try:
        return json.loads(text)  # numbers, true, false and null are spelled alike
    except ValueError:
        return text


def bench(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train and score with every seed.

    Yields:
        After each seed, all results so far: the profile, the machine, warnings, one record for each seed, and
        mean and deviation of each number.

    Raises:
        BenchError: If a training or a scoring fails.
    """
    budget = read_budget(options.budget) if options.budget else {}
    runs: list[dict[str, Any]] = []
    warnings: list[str] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            about, run = one_seed(options, budget, seed, Path(folder))
        runs.append(run)
        print(f"seed {seed}: {run['val_bpb']:.6f} bits per byte", file=sys.stderr, flush=True)
        warnings += [f"seed {seed}: {text}" for text in about.pop("warnings")]
        yield {
            "profile": options.budget, **about, "warnings": warnings, "runs": runs, "summary": summary(runs)
        }  # fmt: skip


def one_seed(
    options: argparse.Namespace, budget: Mapping[str, Any], seed: int, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train and score once; about the training, and its numbers."""
    weights, trained, scored = (folder / name for name in ("weights.pt", "train.json", "score.json"))
    shared = ["--device", options.device, "--threads", str(options.threads)]
    shared += ["--context", str(options.context or budget.get("context", 256))]
    shared += ["--cache", str(Path(options.cache).resolve())] if options.cache else []
    command = ["train", *shared, "--seed", str(seed), "--no-score", "--out", str(weights)]
    kind, amount = _amount(options, budget)
    command += [f"--{kind}", str(amount), "--json", str(trained)]
    if "compile" in budget or not options.compile:
        command += ["--compile" if budget.get("compile") and options.compile else "--no-compile"]
    command += ["--vocab", str(budget["vocab"])] if "vocab" in budget else []
    begun = time.monotonic()
    _run(command, patience(budget, kind, amount))
    record = json.loads(trained.read_text())
    before_score = time.monotonic()
    shared += [] if options.cache else ["--cache", record["data"]["path"]]
    _run(["score", *shared, "--weights", str(weights), "--json", str(scored)], budget.get("score_seconds"))
    metrics, at = record["metrics"], record["at"]
    about = {name: record[name] for name in ("machine", "task", "data", "warnings")}
    return about, {
        "seed": seed,
        "val_bpb": json.loads(scored.read_text())["bits_per_byte"],
        **metrics,
        "import": at["connected"] - begun,
        "build": metrics["build_seconds"],
        "warm-up": metrics["warmup_seconds"],
        "train": at["submitted"] - at["started"],
        "score": time.monotonic() - before_score,
    }


def _amount(options: argparse.Namespace, budget: Mapping[str, Any]) -> tuple[str, float]:
    for kind in ("seconds", "tokens"):
        if (amount := getattr(options, kind)) is not None:
            return kind, amount
    if not budget:
        raise BenchError("Say how long to train: --budget NAME, --seconds N or --tokens N")
    return budget["kind"], budget["amount"]


def patience(budget: Mapping[str, Any], kind: str, amount: float) -> float | None:
    """Seconds after which a training counts as hanging, from the budget's limits; None if unknown."""
    start, most = budget.get("startup_seconds"), budget.get("max_seconds")
    if kind == "seconds":
        most = amount
    elif most and (kind, amount) != (budget["kind"], budget["amount"]):
        most = most * max(1.0, amount / budget["amount"]) if kind == budget["kind"] else None
    return start + most + 60 if start and most else None


def _run(command: Sequence[str], seconds: float | None) -> None:
    """Run one command of this package; its output goes to stderr, so that stdout holds only the result."""
    program = [sys.executable, "-m", f"nanomodel.{command[0]}", *command[1:]]
    # If the script sees a GPU, it takes the GPU's values of its knobs.
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"} if command[command.index("--device") + 1] == "cpu" else {}
    environment = {**os.environ, **hidden}
    try:
        done = subprocess.run(program, stdout=sys.stderr, timeout=seconds, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"nanomodel.{command[0]} was not done after {seconds:g} s") from None
    if done.returncode:
        raise BenchError(f"nanomodel.{command[0]} failed with exit code {done.returncode} (see above)")


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and, of two or more, standard deviation of every number that all runs have."""
    names = [name for name in runs[0] if name != "seed" and all(name in run for run in runs)]
    result = {}
    for name in names:
        values = [float(run[name]) for run in runs]
        result[name] = {"mean": mean(values)} | ({"sd": stdev(values)} if len(values) > 1 else {})
    return result


def table(result: Mapping[str, Any]) -> str:
    """The result for people: a row for each seed, then mean and deviation."""
    rows = [list(COLUMNS)]
    for run in result["runs"]:
        rows.append([f.format(run[name]) if name in run else "unknown" for name, f in COLUMNS.items()])
    for figure in ("mean", "sd"):
        numbers = {name: both[figure] for name, both in result["summary"].items() if figure in both}
        cells = [f.format(numbers[name]) if name in numbers else "" for name, f in COLUMNS.items()]
        rows += [[figure, *cells[1:]]] if numbers else []
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    machine = "  ".join(f"{name} {value}" for name, value in result["machine"].items())
    return "\n".join([machine, *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    if options.kernels:
        from nanomodel.kernels import compare

        times = compare(options.device, options.repeats)
        text = "\n".join(f"{name:24s} {f'{ms:.3f} ms' if ms else 'not here'}" for name, ms in times.items())
        _write(options.json, times)
        print(json.dumps(times, indent=1) if options.json == "-" else text)
        return
    result: dict[str, Any] = {}
    try:
        for result in bench(options):
            _write(options.json, result)  # after each seed, so that a later failure loses nothing
    except BenchError as error:
        print(table(result) if result else "", file=sys.stderr)
        raise SystemExit(str(error)) from None
    print(json.dumps(result, indent=1) if options.json == "-" else table(result))
    for warning in result["warnings"]:
        print(f"WARNING: {warning}", file=sys.stderr)
    if result["task"]["compile"] and any(compile_warnings(run) for run in result["runs"]):
        raise SystemExit(1)  # a script must not take this for the profile's speed


def _write(path: str | None, result: Mapping[str, Any]) -> None:
    if path and path != "-":
        Path(path).write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nanomodel.bench", description="Measure a profile.")
    parser.add_argument("--budget", help="a name in configs/budget, or a file like those (.yaml or .json)")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--seconds", type=float, help="train this long, whatever the budget says")
    amount.add_argument("--tokens", type=float, help="train on this many tokens, whatever the budget says")
    parser.add_argument(
        "--context", type=int, help="tokens read at a time in scoring (default: the budget's)"
    )
    parser.add_argument(
        "--cache", help="prepared data (default: $NANOMODEL_CACHE, or newest in ./runs/cache)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="do not use torch.compile")
    parser.add_argument("--json", help="write the result into this file as well; - for stdout instead")
    parser.add_argument("--kernels", action="store_true", help="time the attention kernels instead")
    parser.add_argument("--repeats", type=int, default=20, help="of each kernel (default: 20)")
    return parser


if __name__ == "__main__":
    main()
