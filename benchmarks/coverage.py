"""Do the 95% intervals of mean differences cover the truth? Simulated trainings whose true gain is known.

    python benchmarks/coverage.py [--draws 2000] [--seed 0]

Draws losses of two programs on documents of unequal length, cut into pieces, whose gains differ from document
to document; seeds add noise to whole scores, to documents and to pieces. Prints the coverage of the interval
by `judge.documents` and, beside it, of one that takes pieces for independent. The programs are trained on the
same seeds (as a candidate and its incumbent are) or on others (as in a claim). Exits with 1 if the first
interval covers the truth too rarely or too often in any world.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.judge.noise.documents import Items, document_variance, seed_variance, total

GAIN = 0.01
RUNS = (2, 3, 4, 8)
LOW, HIGH = 0.925, 0.98
"""Least and largest coverage; 2,000 draws leave an error of 0.5%."""
Losses = dict[int, NDArray[np.float64]]


@dataclass(frozen=True)
class World:
    """Standard deviations in bits per byte.

    Attributes:
        documents: How many were scored.
        gain: Of the true gain, over documents.
        seed: Of a score from seed to seed; two programs share 0.9 of its variance on a common seed.
        both: Of what differs by seed and document.
        pieces: Pieces of all documents together.
    """

    documents: int
    gain: float
    seed: float
    both: float = 0.003
    pieces: int = 130

    def draw(self, rng: np.random.Generator, runs: int, paired: bool) -> tuple[Losses, Losses, Items]:
        """Losses of two programs by seed, `runs` each, the second one better by `GAIN` on average."""
        length = rng.lognormal(0, 0.4, self.documents)
        pieces = np.maximum(1, length / length.sum() * self.pieces).astype(int)
        owner = np.repeat(np.arange(self.documents), pieces)
        weights = rng.uniform(2000, 3000, len(owner))
        level = rng.normal(1.8, 0.15, self.documents)[owner] + rng.normal(0, 0.2, len(owner))
        gain = GAIN + rng.normal(0, self.gain, self.documents)[owner] + rng.normal(0, 0.01, len(owner))

        def noise() -> NDArray[np.float64]:
            document = rng.normal(0, self.both, self.documents)[owner]
            return np.asarray(rng.normal(0, self.seed) + document + rng.normal(0, 0.005, len(owner)))

        def program(level: NDArray[np.float64], seeds: range) -> Losses:
            shared, own = math.sqrt(0.9), math.sqrt(0.1)
            return {seed: weights * (level + shared * common[seed] + own * noise()) for seed in seeds}

        seeds = range(runs), range(runs) if paired else range(runs, 2 * runs)
        common = {seed: noise() for seed in {*seeds[0], *seeds[1]}}
        return program(level, seeds[0]), program(level - gain, seeds[1]), Items(weights, owner)


WORLDS = {
    "documents differ, beside seeds": World(17, 0.008, 0.005),
    "documents differ, little else": World(17, 0.008, 0.001, both=0.001),
    "documents differ much": World(17, 0.025, 0.003),
    "ten documents that differ": World(10, 0.008, 0.002),
    "forty documents that differ": World(40, 0.008, 0.002),
    "documents are alike": World(17, 0.0, 0.005),
    "documents are alike, little else": World(40, 0.0, 0.0005, both=0.0005),
}


def half_widths(before: Losses, after: Losses, items: Items) -> tuple[float, float, float]:
    """The measured gain, and half of its interval by whole documents and by pieces."""
    size = items.weights.sum()
    scores = [{seed: float(x.sum() / size) for seed, x in runs.items()} for runs in (before, after)]
    gain = float(np.mean(list(scores[0].values())) - np.mean(list(scores[1].values())))
    seeds = seed_variance(*scores)
    by_document = document_variance(before, after, items)
    by_piece = document_variance(before, after, Items(items.weights, np.arange(len(items.weights))))
    return gain, total([seeds, by_document]).half_width, total([seeds, by_piece]).half_width


def coverage(world: World, runs: int, paired: bool, draws: int, seed: int) -> tuple[float, float]:
    """How often the true gain is covered, by whole documents and by pieces."""
    rng, hits = np.random.default_rng((seed, runs, paired)), np.zeros(2)
    for _ in range(draws):
        gain, *widths = half_widths(*world.draw(rng, runs, paired))
        hits += [abs(gain - GAIN) <= width for width in widths]
    share = hits / draws
    return float(share[0]), float(share[1])


def rows(draws: int, seed: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """A row for each world and kind of seeds: the coverage at each number of runs."""
    for name, world in WORLDS.items():
        for paired in (False, True):
            row = [coverage(world, runs, paired, draws, seed) for runs in RUNS]
            yield f"{name}, {'common' if paired else 'other'} seeds", row


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="differences for each figure")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'trainings of each side':46s}" + "".join(f"{runs:>14d}" for runs in RUNS))
    found = []
    for name, row in rows(options.draws, options.seed):
        print(f"{name:46s}" + "".join(f"{whole:8.1%} ({part:.0%})" for whole, part in row), flush=True)
        found += [whole for whole, _ in row]
    print("in brackets: pieces taken for independent")
    if not all(LOW <= share <= HIGH for share in found):
        raise SystemExit(f"The coverage goes from {min(found):.1%} to {max(found):.1%}.")


if __name__ == "__main__":
    main()
