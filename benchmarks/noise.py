"""What makes the score of a training vary: a small factorial experiment on the CPU profile.

    python -m benchmarks.noise [--levels 3] [--budget cpu] [--keep runs/noise.jsonl]

Trains the starting script, in this process and through the harness, with every combination of a few seeds
for its initial weights, for which tokens are drawn, and for their order. The analysis of variance splits the
variance of the score into these three and what they have in common. Beside it: the same training with another
number of threads, and what another sample of validation documents of this size would change in the difference
of two trainings. A budget of tokens makes the result independent of the machine's speed. Takes levels^3 + 1
trainings; `--keep` goes on with a file of earlier ones.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the script chooses the size of its model by the devices it sees
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.judge.documents import Items, document_variance
from nanomodel import harness, train
from nanomodel.bench import read_budget
from nanomodel.data import DataSpec, Prepared, prepare
from nanomodel.data.token_budget import PASSAGE, draw_tokens
from nanomodel.scoring.bits_per_byte import Score, cross_entropy, summed
from nanomodel.scoring.windows import Windows

ROOT = Path(__file__).resolve().parents[1]
FACTORS = ("initial weights", "which tokens", "their order")
COLUMNS = ("nats", "bytes", "documents", "counts")
"""Of a score, as they are kept, in its own order."""
ROWS = 16


@dataclass(frozen=True)
class Training:
    """One training: a seed for each factor.

    Attributes:
        init: Of the initial weights.
        which: Of the passages that are drawn.
        order: Of where in the sequence of passages the training begins; passages keep their neighbours.
        threads: CPU threads.
    """

    init: int
    which: int
    order: int
    threads: int = 1


class Runner:
    """Gives the harness one training, and takes its weights; see `nanomodel.runner.Runner`."""

    def __init__(self, training: Training, cache: Prepared, budget: Mapping[str, Any]) -> None:
        self.training, self.cache, self.budget = training, cache, budget
        self.weights: dict[str, torch.Tensor] = {}

    def task(self) -> Mapping[str, Any]:
        """The task message of the harness."""
        return {
            "seed": self.training.init,
            "device": "cpu",
            "threads": self.training.threads,
            "vocab": self.cache.vocab,
            "context": self.budget["context"],
            "budget": {"kind": "tokens", "amount": self.budget["amount"]},
            "compile": False,
            "ration": True,
        }

    def start(self) -> NDArray[np.uint16]:
        """The tokens that a training with these seeds reads."""
        amount = int(self.budget["amount"])
        count = -(-(amount + 1) // PASSAGE)
        drawn = draw_tokens(self.cache.tokens("train"), count * PASSAGE - 1, self.training.which)
        turn = int(np.random.default_rng((self.training.order, 1)).integers(count))
        return np.roll(drawn, turn * PASSAGE)[: amount + 1]

    def log(self, message: Mapping[str, Any]) -> None:
        """Do nothing: the harness prints the log."""

    def submit(self, weights: Path, metrics: Mapping[str, float]) -> None:
        """Keep the weights."""
        self.weights = torch.load(weights, weights_only=True)


def trained(training: Training, cache: Prepared, budget: Mapping[str, Any]) -> Score:
    """Train the starting script, and score it on the validation split as the scorer does."""
    runner, connect, home = Runner(training, cache, budget), harness.connect, Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        os.chdir(folder)
        harness.connect = lambda: harness.Run(runner)
        try:
            train.main()
        finally:
            harness.connect = connect
            os.chdir(home)
    model = train.build_model(cache.vocab, budget["context"])
    model.load_state_dict(runner.weights)
    windows = Windows(cache.tokens("validation"), cache.token_bytes, budget["context"])
    nats = np.empty((len(windows), windows.length), np.float32)
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(windows)), -(-len(windows) // ROWS)):
            logits = model.eval()(torch.from_numpy(windows.inputs(rows)))
            nats[rows] = cross_entropy(logits, torch.from_numpy(windows.targets(rows))).numpy()
    return summed(windows, nats, 0.0)


def components(scores: NDArray[np.float64]) -> dict[str, float]:
    """Standard deviation by source: [init, which, order] -> that of each factor, and of the rest.

    The expected mean square of a factor is the rest's variance plus its own times the number of trainings on
    each of its levels; interactions count as rest.
    """
    total, left, freedom = scores.mean(), float(((scores - scores.mean()) ** 2).sum()), scores.size - 1
    squares: list[tuple[str, float, int]] = []
    for axis, name in enumerate(FACTORS):
        if (levels := scores.shape[axis]) > 1:
            others = tuple(a for a in range(scores.ndim) if a != axis)
            each = scores.size // levels
            ss = float(((scores.mean(others) - total) ** 2).sum()) * each
            squares.append((name, ss / (levels - 1), each))
            left, freedom = left - ss, freedom - (levels - 1)
    rest = max(0.0, left / freedom) if freedom else 0.0
    found = {name: math.sqrt(max(0.0, (mean - rest) / each)) for name, mean, each in squares}
    return found | {"what these have in common": math.sqrt(rest)}


def documents(scores: Sequence[Score]) -> float:
    """What another sample of documents would change in the difference of two trainings, root mean square."""
    items = Items((scores[0].bytes * math.log(2)).astype(np.float64), scores[0].documents)
    pairs = itertools.pairwise(scores)
    found = [document_variance({0: a.nats}, {1: b.nats}, items).value for a, b in pairs]
    return math.sqrt(math.fsum(found) / len(found))


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--levels", type=int, nargs="+", default=[3], help="seeds of each factor: one or three numbers"
    )
    parser.add_argument("--budget", default="cpu", help="a name in configs/budget, with tokens")
    parser.add_argument(
        "--keep", help="file of the trainings, one JSON line each; those in it are not repeated"
    )
    options = parser.parse_args()
    budget = read_budget(options.budget)
    cache = prepared(budget)
    levels = options.levels * 3 if len(options.levels) == 1 else options.levels
    plan = [Training(*seeds) for seeds in itertools.product(*(range(1, n + 1) for n in levels))]
    scores = dict(measured([*plan, Training(1, 1, 1, threads=2)], cache, budget, options.keep))
    table = np.array([scores[training].bits_per_byte for training in plan]).reshape(levels)
    print(f"{len(plan)} trainings, {budget['amount']} tokens each: mean {table.mean():.4f}")
    rows = components(table)
    rows["all of it: one training"] = math.sqrt(math.fsum(sd**2 for sd in rows.values()))
    rows["two threads instead of one"] = abs(
        scores[plan[0]].bits_per_byte - scores[Training(1, 1, 1, threads=2)].bits_per_byte
    )
    rows["other validation documents, in a difference"] = documents([scores[t] for t in plan])
    for name, sd in rows.items():
        print(f"{name:46s} {sd:.5f}")


def prepared(budget: Mapping[str, Any]) -> Prepared:
    """The default corpus, prepared for a budget."""
    data = read_budget(str(ROOT / "configs/data/sotu.yaml")) | {"other_path": None}
    spec = DataSpec.from_dict(data | {key: budget[key] for key in ("vocab", "validation_tokens")})
    return prepare(spec, Path(tempfile.gettempdir()) / "noise-cache")


def measured(
    trainings: Sequence[Training], cache: Prepared, budget: Mapping[str, Any], keep: str | None
) -> Iterator[tuple[Training, Score]]:
    """Each training with its score; those that the file holds are read from it."""
    path = Path(keep) if keep else None
    lines = path.read_text().splitlines() if path and path.exists() else []
    known = {Training(**line["training"]): line for line in map(json.loads, lines)}
    for training in trainings:
        if training in known:
            line = known[training]
            nats, sizes, owners, counts = (np.array(line[name]) for name in COLUMNS)
            yield training, Score(nats, sizes, owners, counts, difference=0.0)
            continue
        score = trained(training, cache, budget)
        print(f"{training}: {score.bits_per_byte:.6f}", file=sys.stderr, flush=True)
        if path:
            line = {"training": vars(training)} | {name: getattr(score, name).tolist() for name in COLUMNS}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        yield training, score


if __name__ == "__main__":
    main()
