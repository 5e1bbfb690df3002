"""What two versions of the judge make of the same candidates on the real task: no change, and planted gains.

    python -m benchmarks.planted FOLDER
    python -m benchmarks.planted FOLDER --old REVISION --new HEAD --seeds 1 2 3 --candidates 40 --fresh 6

The starting script's HEAD_LR is divided by so much that taking that away gains six noise units. A search then
has candidates that change nothing: every other one is another program that does the same, the rest roll the
initial weights, so that they train differently and are as good on average. After a quarter, a half and three
quarters of them come planted gains of one, two and three noise units, in an order that the search's seed
draws. The noise unit and the gains are measured first, on common seeds. `--fresh` are searches whose first
candidate is the planted gain.

Trainings are real, in this process, each made once and kept in FOLDER, from where an interrupted run goes on.
The judges are whole, each in a process of its own revision's code. Left out is what a search does around the
judge: proposals, sandboxes, early stopping, the look at unseen text before a keep. For a whole search see
`benchmarks.no_change`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from autoresearch.edit.knobs import read_values, set_knobs
from autoresearch.types import Arm, VerdictKind
from benchmarks.no_change import SCRIPT, allowed, no_changes
from benchmarks.trainings import ROOT, Bank
from nanomodel.bench import read_budget

OLD = "0224d45057883c511901ea965b25b6fcea973009"
"""The judge before its measurement was mended."""
KNOB = "HEAD_LR"
FACTORS = (1.0, 1.15, 1.3, 1.5, 2.0, 3.0, 5.0)
"""By which the knob is divided, to find how much that loses."""
SEEDS = range(9001, 9006)
"""Of these trainings; a search's are others."""
BASELINES = 3
BUILT = "    model = build_model(run.vocab, run.context).to(run.device)\n"


@dataclass(frozen=True)
class Curve:
    """How much the script loses when the knob is divided.

    Attributes:
        losses: For each of `FACTORS`, made to ascend.
        noise: Standard deviation of the starting script's score over seeds.
    """

    losses: tuple[float, ...]
    noise: float

    def factor(self, units: float) -> float:
        """The factor that loses so many noise units."""
        return between(self.losses, FACTORS, units * self.noise)


@dataclass(frozen=True)
class Candidate:
    """A change, whatever the incumbent is.

    Attributes:
        name: What it does.
        change: The incumbent's text -> the candidate's.
        units: Its gain in noise units.
    """

    name: str
    change: Callable[[str], str]
    units: float = 0.0


@dataclass(frozen=True)
class Decided:
    """A candidate with its verdict.

    Attributes:
        candidate: The candidate.
        kept: Whether it was kept.
        trials: Trainings of the candidate.
        asked: Trainings that the judge asked for meanwhile, those of the incumbent among them.
        reason: What the judge says.
    """

    candidate: Candidate
    kept: bool
    trials: int
    asked: int
    reason: str


class JudgeProcess:
    """A judge of one version in a process of its own; see `benchmarks.judge_process`."""

    def __init__(self, tree: Path, bank: Path) -> None:
        command = [sys.executable, "-P", str(ROOT / "benchmarks/judge_process.py"), str(bank.resolve())]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, cwd=tree, env=environment, text=True
        )

    def tell(self, message: Any) -> None:
        """Send one message."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Read one message.

        Raises:
            SystemExit: If the process died.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The judge ended with {self._process.wait()}; its message stands above.")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def judged(
    tree: Path,
    bank: Bank,
    start: str,
    candidates: Sequence[Candidate],
    first_seed: int,
    trainings: float = math.inf,
) -> list[Decided]:
    """Let a version of the judge decide on candidates, one after the other.

    It ends after so many trainings, baselines included; a candidate that has no verdict then is left out.
    """
    judge, incumbent = JudgeProcess(tree, bank.folder), start
    decided: list[Decided] = []
    runs = {seed: bank.measure(start, seed) for seed in range(first_seed, first_seed + BASELINES)}
    judge.tell([(seed, run.score, run.number) for seed, run in runs.items()])
    left = trainings - len(runs)
    for candidate in candidates:
        text = candidate.change(incumbent)
        judge.tell({})
        asked = 0
        while "kind" not in (heard := judge.hear()):
            if not left:
                judge.close()
                return decided
            run = bank.measure(incumbent if heard["arm"] == Arm.INCUMBENT else text, heard["seed"])
            judge.tell((run.score, run.number))
            asked, left = asked + 1, left - 1
        kept = heard["kind"] == VerdictKind.KEEP
        decided.append(Decided(candidate, kept, heard["trials"], asked, heard["reason"]))
        incumbent = text if kept else incumbent
    judge.close()
    return decided


def divided(source: str, factor: float) -> str:
    """The script whose knob is the original's divided by a factor."""
    original = (ROOT / SCRIPT).read_text()
    rate = read_values(original, 0)[KNOB]
    assert isinstance(rate, float), f"{SCRIPT} has no {KNOB} to divide"
    for edit in set_knobs(SCRIPT, source, {KNOB: rate / factor}, 0):
        source = source.replace(edit.search, edit.replace)
    return source


def between(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """`ys` at `x`, by straight lines through points whose `xs` ascend.

    Raises:
        SystemExit: If `x` is beyond them.
    """
    for (x0, y0), (x1, y1) in itertools.pairwise(zip(xs, ys, strict=True)):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y0
    raise SystemExit(f"{x:.4f} is beyond what was measured, which ends at {xs[-1]:.4f}.")


def planted(curve: Curve, units: float) -> Candidate:
    """A gain of so many noise units, wherever the incumbent stands."""

    def change(source: str) -> str:
        original = read_values((ROOT / SCRIPT).read_text(), 0)[KNOB]
        now = read_values(source, 0)[KNOB]
        assert isinstance(original, float) and isinstance(now, float)
        factor = min(max(FACTORS[0], original / now), FACTORS[-1])
        left = between(FACTORS, curve.losses, factor) / curve.noise - units
        return divided(source, curve.factor(max(0.0, left)))

    return Candidate(f"{units:g} noise units", change, units)


def rolled(rows: int) -> Candidate:
    """Initial weights moved on by some rows: other weights of the same distribution."""
    inner = f"        [w.copy_(w.roll({rows}, 0)) for w in model.parameters() if w.ndim > 1]\n"
    after = BUILT + "    with torch.no_grad():\n" + inner
    return Candidate(f"initial weights rolled by {rows} rows", lambda text: text.replace(BUILT, after))


def nothing(source: str, count: int) -> list[Candidate]:
    """Candidates that change nothing: the same training, and another of the same kind, in turn.

    They are edits of `source`; of what was kept meanwhile, they take over the knob's value.
    """
    same = ((what, text) for what, text in no_changes(source) if allowed(source, text))
    found: list[Candidate] = []
    for number in range(count):
        if number % 2:
            found.append(rolled(number))
        else:
            what, text = next(same)
            found.append(Candidate(what, partial(moved, source, text)))
    return found


def moved(source: str, text: str, incumbent: str) -> str:
    """`text`, an edit of `source`, with the value that the knob has in the incumbent."""
    line = {name: next(li for li in t.splitlines() if li.startswith(KNOB)) for name, t in
            (("source", source), ("incumbent", incumbent))}  # fmt: skip
    return text.replace(line["source"], line["incumbent"])


def in_one_search(source: str, curve: Curve, count: int, seed: int) -> list[Candidate]:
    """Candidates of a search: those that change nothing, with planted gains among them."""
    candidates, units = nothing(source, count), [1.0, 2.0, 3.0]
    random.Random(seed).shuffle(units)
    for place, unit in zip((3, 2, 1), units, strict=True):
        candidates.insert(place * count // 4, planted(curve, unit))
    return candidates


def curve_of(bank: Bank, source: str) -> Curve:
    """Measure what dividing the knob loses, and print it."""
    scores = [[bank.measure(divided(source, f), seed).score for seed in SEEDS] for f in FACTORS]
    gaps = [[x - x0 for x, x0 in zip(row, scores[0], strict=True)] for row in scores]
    noise = stdev(scores[0])
    print(f"noise {noise:.4f} (seeds {SEEDS.start} to {SEEDS.stop - 1})", flush=True)
    for factor, row in zip(FACTORS[1:], gaps[1:], strict=True):
        error = stdev(row) / len(row) ** 0.5
        print(f"{KNOB} / {factor:g}: loses {mean(row):.4f} +- {error:.4f}, {mean(row) / noise:.2f} units")
    return Curve(tuple(itertools.accumulate(map(mean, gaps), max)), noise)


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A folder with the files of a revision."""
    with tempfile.TemporaryDirectory(prefix="judge-") as folder:
        archive = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def told(name: str, decided: Sequence[Decided]) -> str:
    """One row of the table."""
    empty = [d for d in decided if not d.candidate.units]
    gains = sorted((d for d in decided if d.candidate.units), key=lambda d: d.candidate.units)
    cells = [f"{d.candidate.units:g}: {'kept' if d.kept else 'discarded'} after {d.trials}" for d in gains]
    row = [name, f"{sum(d.kept for d in empty)} of {len(empty)}", "; ".join(cells)]
    return "| " + " | ".join([*row, str(BASELINES + sum(d.asked for d in decided))]) + " |"


def main() -> None:
    """Measure the curve, then let both judges decide, and print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where trainings are kept")
    parser.add_argument("--old", default=OLD, help="revision of the older judge")
    parser.add_argument("--new", default="HEAD", help="revision of the other judge (default: HEAD)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3], help="one search each")
    parser.add_argument("--candidates", type=int, default=40, help="that change nothing, in each search")
    parser.add_argument("--fresh", type=int, default=6, help="searches that begin with a planted gain")
    parser.add_argument("--budget", default="cpu", help="a name in configs/budget, with tokens")
    parser.add_argument("--amount", type=int, help="tokens of a training, if not those of the budget")
    options = parser.parse_args()
    budget = read_budget(options.budget)
    bank = Bank(options.folder, budget | {"amount": options.amount or budget["amount"]})
    source = (ROOT / SCRIPT).read_text()
    curve = curve_of(bank, source)
    with checked_out(options.old) as old, checked_out(options.new) as new:
        judges = {"new": new, "old": old}
        print(
            "\n| search, judge | no change: kept | planted, in noise units | trainings |\n|---|---|---|---|"
        )
        for (name, tree), seed in itertools.product(judges.items(), options.seeds):
            start = divided(source, curve.factor(6.0))
            candidates = in_one_search(start, curve, options.candidates, seed)
            decided = judged(tree, bank, start, candidates, 100 * seed)
            print(told(f"{seed}, {name}", decided), flush=True)
            for d in (d for d in decided if d.kept):
                print(f"<!-- {d.candidate.name}: {d.reason} -->", flush=True)
        print("\n| the first candidate gains | judge | kept | trainings of each |\n|---|---|---|---|")
        for (name, tree), units in itertools.product(judges.items(), (3.0, 2.0, 1.0)):
            start = divided(source, curve.factor(units))
            seeds = [1000 + 20 * number for number in range(options.fresh)]
            found = [judged(tree, bank, start, [planted(curve, units)], seed)[0] for seed in seeds]
            each = " ".join(f"{d.trials}{'' if d.kept else '-'}" for d in found)
            row = f"| {units:g} units | {name} | {sum(d.kept for d in found)} of {len(found)} | {each} |"
            print(row, flush=True)
    print(f"\n{len(bank)} trainings in {options.folder}")


if __name__ == "__main__":
    main()
