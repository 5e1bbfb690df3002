"""What does stopping screening runs early save, and what does it cost? Three rules on the same curves.

    python -m benchmarks.early_stopping [--searches 20] [JOURNAL.db | CURVES.jsonl ...]
    OMP_NUM_THREADS=1 python -m benchmarks.early_stopping --record CURVES.jsonl --seeds 2

Synthetic searches of 100 candidates each: a candidate has a true effect (most lose, some gain), a run adds
seed noise to its score, and candidate and incumbent share part of the luck of a seed (a correlation of 0.62,
as measured). The gap between their training losses shows the effect in one of three ways (at once, late, or
early and then less), so that at 40% of the budget about one in six real effects has the wrong sign (two of
nine were measured); what the final difference does not share with it is noise that falls with the budget. A
candidate that passes the first look has two more runs (76% of the judge's runs are first ones), and is kept
if it truly gains; a keep that was stopped is a gain lost. Compared: the rule of
`judge.limits.early_stopping`, learned within each search from its own finished runs, with a tenth of the
would-be-stopped runs finished; Optuna's `WilcoxonPruner` with the steps of a curve as its instances; and the
median of earlier candidates at the same share of the budget.

With journals of recorded searches, each screening run is replayed in order against the other finished ones of
its search. `--record FILE` trains the starting script under the smallest budget with one of its rates or
shares changed at a time, on the seeds 1, 2, ..., goes on with what the file holds, and keeps score and curve
of each training; such a file (`FILE.jsonl`) is replayed like a journal, in 20 random orders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sqlite3
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean, median, stdev

from autoresearch.judge.limits.early_stopping import (
    CHECKPOINTS,
    SPARED,
    EarlyStop,
    Pair,
    loss_at,
    pair,
    stop_bars,
)
from autoresearch.types import Progress

CANDIDATES, CONFIRMING, POINTS = 100, 2, 40
CORRELATION = 0.62
NEEDED = 0.9
"""Gain that the first look asks for, in standard deviations of a paired difference."""

SMOKE_NOISE = 0.02
"""Of the smallest budget, if only one seed was recorded, in bits per byte."""

NATS = 3.0
"""Training loss for one unit of score."""

SHAPES = ((0.6, 1.0, 1.0), (0.25, -0.6, 1.0), (0.15, 2.0, 1.0))
"""Share of the candidates, and how much of the effect the gap shows at the beginning and at the end."""

Curve = list[tuple[float, float]]


@dataclass
class Run:
    """One screening run.

    Attributes:
        gain: True gain; of a recorded run the measured one.
        difference: Loss by the score, less that of the incumbent on the same seed.
        curve: Of the candidate.
        incumbent: Of the incumbent on the same seed.
        weight: How many runs it stands for.
    """

    gain: float
    difference: float
    curve: Curve
    incumbent: Curve
    weight: float = 1.0

    @cached_property
    def pair(self) -> Pair:
        """Its gaps and its difference."""
        return pair(self.curve, self.incumbent, self.difference, self.weight)

    @cached_property
    def levels(self) -> dict[float, float]:
        """Mean loss before each checkpoint."""
        found = {at: loss_at(self.curve, at) for at in CHECKPOINTS}
        return {at: loss for at, loss in found.items() if loss is not None}


@dataclass
class Count:
    """What a rule did: times in trainings."""

    time: float = 0.0
    saved: float = 0.0
    stopped: int = 0
    gains: float = 0.0
    lost: float = 0.0
    spared: list[float] = field(default_factory=list)


def synthetic(seed: int) -> list[Run]:
    """The screening runs of a search."""
    draw = Random(seed)
    paired = math.sqrt(2 * (1 - CORRELATION))
    found = []
    for _ in range(CANDIDATES):
        kind = draw.random()
        if kind < 0.25:
            gain = draw.expovariate(1 / 1.2)
        else:
            gain = -draw.expovariate(1 / (2.0 if kind < 0.85 else 10.0))
        chance, first, last = draw.random(), 1.0, 1.0
        for share, first, last in SHAPES:  # noqa: B007 (the one it ends with counts)
            if chance < share:
                break
            chance -= share
        own = draw.gauss(0, paired)
        base = [3.0 + 4.0 * math.exp(-5 * (i + 1) / POINTS) for i in range(POINTS)]
        luck, drift = draw.gauss(0, 1), draw.gauss(0, paired)
        curve, incumbent = [], []
        for i, level in enumerate(base):
            at = (i + 1) / POINTS
            shown = -gain * (first + (last - first) * at)
            noise = NATS * (at * own + (1 - at) * drift + draw.gauss(0, 0.5))
            incumbent.append((at, 100 * level + NATS * luck))
            curve.append((at, 100 * level + NATS * (luck + shown) + noise))
        found.append(Run(gain, own - gain, curve, incumbent))
    return found


def wrong_signs(runs: Sequence[Run]) -> float:
    """Share of the real effects whose gap has the wrong sign at 40% of the budget."""
    real = [run for run in runs if abs(run.gain) > 1]
    gaps = [run.pair.gaps[0.4] for run in real]
    return fmean(gap * run.gain > 0 for gap, run in zip(gaps, real, strict=True))


Rule = Callable[[Run, Sequence[Run]], float | None]
"""(A run, the finished runs before it) -> share of the budget at which it is stopped, if it is."""


def ours(needed: float, noise: float) -> Rule:
    """The rule of the product."""

    def stops(run: Run, before: Sequence[Run]) -> float | None:
        watch = EarlyStop((), stop_bars([b.pair for b in before], run.incumbent, needed, noise))
        for at, loss in run.curve:
            if watch(Progress(at, at, loss=loss)):
                return watch.share
        return None

    return stops


def median_rule(run: Run, before: Sequence[Run]) -> float | None:
    """Stop what is worse than the median of at least eight earlier candidates."""
    for at in CHECKPOINTS:
        levels = [b.levels[at] for b in before if at in b.levels]
        here = run.levels.get(at)
        if len(levels) >= 8 and here is not None and here > median(levels):
            return at
    return None


def wilcoxon(run: Run, before: Sequence[Run]) -> float | None:
    """Optuna's pruner, with the incumbent's run as the best trial so far."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=8))
    reached = dict(enumerate(loss for _, loss in run.incumbent))
    study.add_trial(optuna.trial.create_trial(value=fmean(reached.values()), intermediate_values=reached))
    trial = study.ask()
    for step, (at, loss) in enumerate(run.curve[: len(reached)]):
        trial.report(loss, step)
        if at >= CHECKPOINTS[0] and step % 4 == 3 and trial.should_prune():
            return at
    return None


def replay(runs: Sequence[Run], rule: Rule, needed: float, draw: Random, spares: bool) -> Count:
    """Carry out a search's screening runs with a rule."""
    count, finished = Count(), list[Run]()
    for run in runs:
        passes = run.difference <= -needed
        worth = run.gain if passes and run.gain > 0 else 0.0
        count.time += 1 + (CONFIRMING if passes else 0)
        count.gains += worth
        at = rule(run, finished)
        if at is not None and spares and draw.random() < SPARED:
            count.spared.append(worth)
            at, run = None, replace(run, weight=1 / SPARED)
        if at is None:
            finished.append(run)
            continue
        count.stopped += 1
        count.saved += 1 - at + (CONFIRMING if passes else 0)
        count.lost += worth
    return count


def recorded(path: str) -> tuple[list[Run], float]:
    """The screening runs of a recorded search whose incumbent ran on the same seed, and the noise."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        [[info]] = db.execute("SELECT value FROM notes WHERE key = 'info'").fetchall()
        sign = -1 if json.loads(info).get("metric", {}).get("direction") == "max" else 1
        experiments = {
            n: (c, p) for n, c, p in db.execute("SELECT number, commit_id, parent FROM experiments")
        }
        rows = db.execute(
            "SELECT experiment, arm, seed, commit_id, result FROM trials WHERE result IS NOT NULL"
        )
        trials = [(n, arm, seed, commit, json.loads(text)) for n, arm, seed, commit, text in rows]
    known = {
        (commit if arm == "incumbent" else experiments[n][0], seed): result
        for n, arm, seed, commit, result in trials
        if result["score"] is not None
    }
    found = []
    for n, arm, seed, _, result in trials:
        beside = known.get((experiments[n][1], seed))
        if arm == "screen" and result["score"] is not None and beside:
            difference = sign * (result["score"] - beside["score"])
            curves = ([(a, b) for a, b in r["curve"]] for r in (result, beside))
            found.append(Run(-difference, difference, *curves))
    return found, stdev(r["score"] for _, arm, _, _, r in trials if arm == "baseline" and r["score"])


CHANGED = {
    "MATRIX_LR": (0.25, 0.5, 0.7, 1.4, 2.0, 4.0),
    **dict.fromkeys(("EMBED_LR", "SCALAR_LR", "HEAD_LR", "FLOOR", "COOLDOWN", "WEIGHT_DECAY"), (0.5, 1.5)),
}
"""Knob of the starting script -> factors that are tried when curves are recorded."""


def record(path: Path, seeds: int) -> None:
    """Train variants of the starting script, and add what the file does not hold yet."""
    from benchmarks import noise as training
    from nanomodel import meter, train

    budget = training.read_budget("smoke")
    cache = training.prepared(budget)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(line["name"], line["seed"]) for line in lines}
    curve: Curve = []
    training.Runner.log = lambda self, m: curve.append((m["progress"], m["loss"]))  # type: ignore[method-assign]
    meter.LOG_EVERY = 0.05
    changes = [("", "", 1.0), *((f"{k} x{f}", k, f) for k, factors in CHANGED.items() for f in factors)]
    for seed, (name, knob, factor) in itertools.product(range(1, seeds + 1), changes):
        if (name, seed) in known:
            continue
        before = getattr(train, knob, None)
        if knob:
            setattr(train, knob, factor * before)
        curve.clear()
        score = training.trained(training.Training(seed, seed, seed), cache, budget).bits_per_byte
        if knob:
            setattr(train, knob, before)
        with path.open("a") as file:
            file.write(json.dumps({"name": name, "seed": seed, "score": score, "curve": curve}) + "\n")


def variants(path: str) -> tuple[list[Run], float]:
    """The recorded trainings of variants, beside that of the starting script on the same seed; the noise."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    start = {line["seed"]: line for line in lines if not line["name"]}
    found = []
    for line in lines:
        if line["name"] and (beside := start.get(line["seed"])):
            difference = line["score"] - beside["score"]
            curves = ([(a, b) for a, b in one["curve"]] for one in (line, beside))
            found.append(Run(-difference, difference, *curves))
    scores = [line["score"] for line in start.values()]
    return found, stdev(scores) if len(scores) > 1 else SMOKE_NOISE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("journals", nargs="*")
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if options.record:
        return record(options.record, options.seeds)
    needed = NEEDED * math.sqrt(2 * (1 - CORRELATION))
    made = [synthetic(seed) for seed in range(options.searches)]
    signs = fmean(map(wrong_signs, made))
    print(f"synthetic: {len(made)} searches; wrong sign at 40%: {signs:.0%} of the real effects")
    table(made, needed, 1.0, wilcoxon_of=max(1, len(made) // 10))
    for path in options.journals:
        runs, noise = variants(path) if path.endswith(".jsonl") else recorded(path)
        print(f"\n{Path(path).name}: {len(runs)} runs beside the incumbent's on the same seed")
        orders = [Random(i).sample(runs, len(runs)) for i in range(20)] if path.endswith(".jsonl") else [runs]
        if runs:
            told = {at: correlation(runs, at) for at in (0.3, 0.5, 0.7, 0.9)}
            print(
                "correlation of gap and difference: "
                + ", ".join(f"{a:.0%} {c:+.2f}" for a, c in told.items())
            )
            table(orders, NEEDED * noise * math.sqrt(2 * (1 - CORRELATION)), noise, wilcoxon_of=2)


def correlation(runs: Sequence[Run], at: float) -> float:
    """How much the gap at a share of the budget tells of the difference of the scores."""
    known = [(run.pair.gaps[at], run.difference) for run in runs if at in run.pair.gaps]
    return statistics.correlation(*zip(*known, strict=True)) if len(known) > 2 else math.nan


def table(searches: Sequence[Sequence[Run]], needed: float, noise: float, wilcoxon_of: int) -> None:
    """Print a row for each rule."""
    print(f"{'rule':22}{'stopped':>9}{'time saved':>12}{'gains lost':>12}{'lost by the spared':>20}")
    rules: list[tuple[str, Rule, Sequence[Sequence[Run]], bool]] = [
        ("paired gap", ours(needed, noise), searches, True),
        ("median", median_rule, searches, False),
        ("WilcoxonPruner", wilcoxon, searches[:wilcoxon_of], False),
    ]
    for name, rule, some, spares in rules:
        draw = Random(name)
        counts = [replay(runs, rule, needed, draw, spares) for runs in some]
        time, gains = sum(c.time for c in counts), sum(c.gains for c in counts)
        stopped, lost = sum(c.stopped for c in counts), sum(c.lost for c in counts)
        spared = [worth for c in counts for worth in c.spared]
        guess = f"{fmean(spared) * stopped / gains:19.1%}" if spared and gains else f"{'-':>19}"
        share = f"{lost / gains:11.1%}" if gains else f"{'-':>11}"
        runs = sum(map(len, some))
        print(f"{name:22}{stopped / runs:8.0%} {sum(c.saved for c in counts) / time:11.1%} {share} {guess}")


if __name__ == "__main__":
    main()
