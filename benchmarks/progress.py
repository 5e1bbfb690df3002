"""How far does a night come on several places, by the true means of scripts, beside greedy waves?

    python -m benchmarks.progress --worlds 12 --places 1 4 16

Searches in the worlds of `benchmarks/judge.py`, whose truth is known, for 8 hours of trainings of 5 minutes:
96 on each place. The default judge keeps every place busy. A greedy wave trains one candidate at each place,
all on the tip and with the same seed, and keeps the best if it scores better than the tip did, as in the run
with 16 GPUs that was published (910 experiments in 8 hours). Progress is in standard deviations of the noise;
each figure is the median over the worlds, its ratio to one place too. False: the share of keeps that gain
nothing, over all worlds. Proposals take no time, and authors never learn from what others tried.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from autoresearch.judge import create_judge
from benchmarks.judge import Nature, Outcome, Places, Script, World

HOURS, TRAINING = 8.0, 5 / 60
SEED = 0
"""Of every training of a wave."""


@dataclass
class Night:
    """What came of one search.

    Attributes:
        progress: How much better the tip is than the start.
        hours: How long it took.
        experiments: Candidates that were begun.
        keeps: Changes that were kept.
        false: Those of them that gain nothing.
        claimed: The gain that the scores show, as the search itself would say.
    """

    progress: float
    hours: float
    experiments: int
    keeps: int
    false: int
    claimed: float


def judged(world: World, seed: int, places: int) -> Night:
    """A night with the default judge."""
    nature, start = Nature(world, seed, False), Script(luck=[0.0] * max(1, world.documents))
    items = {s: nature.items(start, s) for s in range(world.baselines)}
    scores = [(s, math.fsum(parts)) for s, parts in items.items()]
    judge = create_judge("default", scores, tau=world.luck * world.unit)
    if world.documents:
        judge.with_items([1 / world.documents] * world.documents, items)
    if world.steady:
        judge.use_steady_machine()
    out = Outcome(cover={"keep": []})
    run = Places(judge, nature, start, places, out)
    run.run(round(places * HOURS / TRAINING))
    report = judge.report()
    gain = (report.baseline.mean - report.incumbent.mean) / world.unit
    return Night(-run.tip.mean, run.clock * TRAINING, run.drawn, out.keeps, out.false, gain)


def waves(world: World, seed: int, places: int) -> Night:
    """A night of greedy waves."""
    nature, tip = Nature(world, seed, False), Script(luck=[0.0] * max(1, world.documents))
    first = best = nature.run(tip, SEED).score or world.unit * world.level
    keeps = false = experiments = 0
    for _ in range(round(HOURS / TRAINING)):
        wave = [nature.candidate(tip) for _ in range(places)]
        experiments += places
        scores = [nature.run(script, SEED).score for script in wave]
        score, index = min((s, i) for i, s in enumerate([*scores, math.inf]) if s is not None)
        if score < best:
            best, tip = score, wave[index]
            keeps, false = keeps + 1, false + (tip.gain <= 0)
    return Night(-tip.mean, HOURS, experiments, keeps, false, (first - best) / world.unit)


def line(name: str, nights: list[Night], alone: list[Night]) -> str:
    """A row of the table."""
    hourly, single = ([n.progress / n.hours for n in found] for found in (nights, alone))
    ratio = median(a / b for a, b in zip(hourly, single, strict=True) if b > 0)
    keeps = sum(n.keeps for n in nights)
    return (
        f"{name:18}{median(hourly):12.2f}{ratio:10.2f}{fmean(n.experiments / n.hours for n in nights):14.0f}"
        f"{fmean(n.keeps for n in nights):8.1f}{sum(n.false for n in nights) / max(1, keeps):9.1%}"
        f"{median(n.claimed - n.progress for n in nights):14.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--places", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="only worlds that look like the real task")
    options = parser.parse_args()
    rng, worlds = random.Random(options.seed), list[World]()
    while len(worlds) < options.worlds:
        world = World.draw(rng)
        if world.real or not options.real:
            worlds.append(world)
    titles = ("progress/h", "of alone", "experim./h", "kept", "false", "claimed - true")
    widths = (12, 10, 14, 8, 9, 15)
    print(" " * 18 + "".join(f"{title:>{w}}" for title, w in zip(titles, widths, strict=True)))
    alone = [judged(world, i, 1) for i, world in enumerate(worlds)]
    for places in options.places:
        nights = alone if places == 1 else [judged(w, i, places) for i, w in enumerate(worlds)]
        print(line(f"judge, {places}", nights, alone), flush=True)
        greedy = [waves(w, i, places) for i, w in enumerate(worlds)]
        print(line(f"greedy waves, {places}", greedy, alone), flush=True)


if __name__ == "__main__":
    main()
