"""Is the portfolio as good as the best of its members, whichever that is? Synthetic surfaces, several seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.portfolio
    OMP_NUM_THREADS=1 python -m benchmarks.portfolio --surfaces 4 --experiments 20

The surfaces are those of `benchmarks.proposers`: scripts with 11 or 13 knobs that somebody has tuned already.
A stand-in for a model proposes changes of code: each adds a line that gains with a chance that falls as a
search matures, and otherwise loses. In the world "knobs" its ideas hardly ever gain, in "ideas" they often
do, and "both" lies between. The table shows the share of the gap between start and optimum that is
left (1 is no progress; below 0 ideas have gained more than the knobs could), by the true score, with its
standard error over surfaces, and for the portfolio the paired difference to the best single member.

Measured (8 surfaces, 30 experiments each):

    world             random          optuna         thinker       portfolio   portfolio - best
    knobs        0.99 ± 0.01     0.45 ± 0.04     0.95 ± 0.04     0.53 ± 0.07   +0.08 ± 0.08 (optuna)
    both         0.99 ± 0.01     0.45 ± 0.04     0.82 ± 0.05     0.61 ± 0.07   +0.16 ± 0.09 (optuna)
    ideas        0.99 ± 0.01     0.45 ± 0.04     0.72 ± 0.04     0.57 ± 0.08   +0.12 ± 0.09 (optuna)

Each member beats random, and the portfolio beats the stand-in in every world. Optuna was the best member in
all three, so the table does not show a world in which the model is best; within 30 experiments the portfolio
pays for finding out who is, by one to two standard errors.
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

WORLDS = {"knobs": 0.02, "both": 0.15, "ideas": 0.4}
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
    parser.add_argument("--surfaces", type=int, default=12)
    parser.add_argument("--experiments", type=int, default=40)
    options = parser.parse_args()
    PROPOSERS._shipped["thinker"] = EntryPoint("thinker", f"{__name__}:Thinker", PROPOSERS.group)
    names = ("random", "optuna", "thinker", "portfolio")
    print("world   " + "".join(f"{name:>16s}" for name in names) + "   portfolio - best")
    for world, chance in WORLDS.items():
        matters = {"thinker": chance, "portfolio": chance}
        left = {n: _left(n, matters.get(n, 0.0), options.surfaces, options.experiments) for n in names}
        cells = [f"{x.mean():.2f} ± {x.std(ddof=1) / len(x) ** 0.5:.2f}" for x in left.values()]
        best = min(names[:-1], key=lambda name, left=left: left[name].mean())  # type: ignore[misc]
        more = left["portfolio"] - left[best]
        difference = f"{more.mean():+.2f} ± {more.std(ddof=1) / len(more) ** 0.5:.2f} ({best})"
        print(f"{world:8s}" + "".join(f"{cell:>16s}" for cell in cells) + f"   {difference}", flush=True)


@cache
def _left(name: str, chance: float, surfaces: int, experiments: int) -> np.ndarray:
    """Share of the gap that is left on each surface."""
    found = [
        search(World(**vars(Surface.draw(seed))), make(name, chance), experiments, seed)[-1]
        for seed in range(surfaces)
    ]
    return np.array(found)


if __name__ == "__main__":
    main()
