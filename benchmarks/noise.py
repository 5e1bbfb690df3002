"""What makes the score of a training vary: a small factorial experiment on the CPU profile.

    python -m benchmarks.noise [--levels 3] [--seeds 8] [--budget cpu] [--keep runs/noise.jsonl]

Trains the starting script, in this process and through the harness, with every combination of a few seeds
for its initial weights, for which tokens are drawn, and for their order. The analysis of variance splits the
variance of the score into these three and what they have in common. Beside it: the same training with another
number of threads, and what another sample of validation documents of this size would change in the difference
of two trainings. `--seeds` compares passages that are spread evenly over the corpus, as a search draws them,
with passages drawn one by one: the noise of whole trainings, every source of chance of which has one seed.
A budget of tokens makes the result independent of the machine's speed. Takes levels^3 + 1 trainings, and two
for each of `--seeds`; `--keep` goes on with a file of earlier ones.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoresearch.judge.noise.documents import Items, document_variance
from benchmarks.trainings import Training, prepared, trained
from nanomodel.bench import read_budget
from nanomodel.data import Prepared
from nanomodel.scoring.bits_per_byte import Score

FACTORS = ("initial weights", "which tokens", "their order")
COLUMNS = ("nats", "bytes", "documents", "counts")
"""Of a score, as they are kept, in its own order."""


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
    parser.add_argument("--seeds", type=int, default=0, help="of whole trainings, for each way of drawing")
    parser.add_argument("--budget", default="cpu", help="a name in configs/budget, with tokens")
    parser.add_argument("--amount", type=int, help="tokens of a training, if not those of the budget")
    parser.add_argument(
        "--keep", help="file of the trainings, one JSON line each; those in it are not repeated"
    )
    options = parser.parse_args()
    budget = read_budget(options.budget)
    budget |= {"amount": options.amount or budget["amount"]}
    cache = prepared(budget)
    levels = options.levels * 3 if len(options.levels) == 1 else options.levels
    grid = itertools.product(*(range(1, n + 1) for n in levels))
    plan = [Training(init, which, order) for init, which, order in grid]
    threads = replace(plan[0], threads=2)
    searched = [Training(seed, seed) for seed in range(1, options.seeds + 1)]
    singly = [replace(training, spread=False) for training in searched]
    scores = dict(measured([*plan, threads, *searched, *singly], cache, budget, options.keep))
    table = np.array([scores[training].bits_per_byte for training in plan]).reshape(levels)
    print(f"{len(plan)} trainings, {budget['amount']} tokens each: mean {table.mean():.4f}")
    rows = components(table)
    rows["all of it: one training"] = math.sqrt(math.fsum(sd**2 for sd in rows.values()))
    rows["two threads instead of one"] = abs(scores[plan[0]].bits_per_byte - scores[threads].bits_per_byte)
    rows["other validation documents, in a difference"] = documents([scores[t] for t in plan])
    for name, sd in rows.items():
        print(f"{name:46s} {sd:.5f}")
    for name, trainings in (("spread evenly", searched), ("drawn one by one", singly)):
        if len(trainings) > 1:
            values = [scores[training].bits_per_byte for training in trainings]
            print(f"passages {name}, {len(values)} seeds: mean {mean(values):.4f}, sd {stdev(values):.5f}")


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
