"""Is the portfolio as good as the best of its members, whichever that is? Synthetic surfaces, several seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.portfolio
    OMP_NUM_THREADS=1 python -m benchmarks.portfolio --surfaces 4 --experiments 20

The surfaces are those of `benchmarks.proposers`: scripts with 11 or 13 knobs that somebody has tuned already.
A stand-in for a model proposes changes of code: each adds a line that gains with a chance that falls as a
search matures, and otherwise loses. In the world "knobs" its ideas hardly ever gain, in "ideas" they often
do, "both" lies between, and in "model" nearly all early ones gain. The table shows the share of the gap
between start and optimum that is left (1 is no progress; below 0 ideas have gained more than the knobs
could), by the true score, with its standard error over surfaces, and for the portfolio the paired difference
to the best single member.

Measured (32 surfaces, 30 experiments each):

    world             random          optuna         thinker       portfolio   portfolio - best
    knobs        0.97 ± 0.02     0.37 ± 0.02     0.96 ± 0.02     0.44 ± 0.04   +0.07 ± 0.04 (optuna)
    both         0.97 ± 0.02     0.37 ± 0.02     0.86 ± 0.02     0.42 ± 0.04   +0.06 ± 0.04 (optuna)
    ideas        0.97 ± 0.02     0.37 ± 0.02     0.75 ± 0.04     0.39 ± 0.04   +0.02 ± 0.04 (optuna)
    model        0.97 ± 0.02     0.37 ± 0.02     0.68 ± 0.04     0.34 ± 0.04   -0.03 ± 0.04 (optuna)

The portfolio beats the stand-in in every world. Optuna is the best member in all four; where ideas gain often
the portfolio is as good, since each gains what the other cannot, and where they hardly do it pays for finding
that out, by two standard errors.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint
from random import Random
from typing import Any

import numpy as np

from autoresearch.propose import PROPOSERS, create_proposer
from autoresearch.propose.base import Check, Context, Proposer
from autoresearch.types import Category, Cost, Edit, Proposal
from benchmarks.proposers import GAP, Surface, search

WORLDS = {"knobs": 0.02, "both": 0.15, "ideas": 0.4, "model": 0.9}
"""World -> chance that an early idea gains."""

MATURES = 40.0
"""Experiments after which that chance has fallen to a third."""

IDEA = re.compile(r"^IDEA_\d+ = (\S+)\n", re.MULTILINE)


class Thinker(Proposer):
    """Proposes lines `IDEA_N = GAIN`; a model as far as the portfolio knows.

    Args:
        chance: That an early idea gains.
    """

    name = "thinker"
    reads_ideas = True

    def __init__(self, *, chance: float) -> None:
        self.chance = chance

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        """One idea."""
        number = len(context.history)
        draw = Random(f"{context.seed} {number} idea")
        good = draw.random() < self.chance * np.exp(-number / MATURES)
        gain = draw.uniform(0.05, 0.25) * GAP if good else -draw.uniform(0.0, 0.5) * GAP
        first = context.sources["train.py"].splitlines()[0]
        edit = Edit("train.py", first, f"{first}\nIDEA_{number} = {gain:.6f}")
        cost = Cost(1, dollars=0.05)
        return [Proposal(f"idea {number}", Category.ARCHITECTURE, (edit,), "thinker:model", cost=cost)]


class World(Surface):
    """A surface on which ideas gain too."""

    def true(self, script: str) -> float | None:
        """True score; see `Surface.true`."""
        found = super().true(IDEA.sub("", script))
        return None if found is None else found - sum(float(gain) for gain in IDEA.findall(script))


def make(name: str, chance: float) -> Proposer:
    """A single member, or the portfolio of Optuna and the stand-in for a model."""
    members: dict[str, dict[str, Any]] = {
        "random": {"name": "random"},
        "optuna": {"name": "optuna"},
        "thinker": {"name": "thinker", "chance": chance},
    }
    chosen = [members[name]] if name in members else [members["optuna"], members["thinker"]]
    settings = {"floor": 0.05, "control": 0.05, "discount": 0.97, "device_hour": 2.0}
    return create_proposer("portfolio", column=0, members=chosen, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="seed of the first surface")
    parser.add_argument("--surfaces", type=int, default=32)
    parser.add_argument("--experiments", type=int, default=30)
    options = parser.parse_args()
    PROPOSERS._shipped["thinker"] = EntryPoint("thinker", f"{__name__}:Thinker", PROPOSERS.group)
    names = ("random", "optuna", "thinker", "portfolio")
    print("world   " + "".join(f"{name:>16s}" for name in names) + "   portfolio - best")
    for world, chance in WORLDS.items():
        matters = {"thinker": chance, "portfolio": chance}
        seeds = range(options.first, options.first + options.surfaces)
        left = {n: _left(n, matters.get(n, 0.0), seeds, options.experiments) for n in names}
        cells = [f"{x.mean():.2f} ± {x.std(ddof=1) / len(x) ** 0.5:.2f}" for x in left.values()]
        best = min(names[:-1], key=lambda name, left=left: left[name].mean())  # type: ignore[misc]
        more = left["portfolio"] - left[best]
        difference = f"{more.mean():+.2f} ± {more.std(ddof=1) / len(more) ** 0.5:.2f} ({best})"
        print(f"{world:8s}" + "".join(f"{cell:>16s}" for cell in cells) + f"   {difference}", flush=True)


@cache
def _left(name: str, chance: float, seeds: range, experiments: int) -> np.ndarray:
    """Share of the gap that is left on each surface."""
    found = [
        search(World(**vars(Surface.draw(seed))), make(name, chance), experiments, seed)[-1] for seed in seeds
    ]
    return np.array(found)


if __name__ == "__main__":
    main()
