"""How quickly do proposers that tune knobs find a gain? Synthetic scripts whose true score is known.

    OMP_NUM_THREADS=1 python -m benchmarks.proposers
    OMP_NUM_THREADS=1 python -m benchmarks.proposers --surfaces 8 --experiments 12 30 --proposers local random

Each surface is a script with 11 or 13 knobs that somebody has tuned already: each knob is off its best value
by about a sixth of its space, a few knobs matter much and most little, some interact, and one diverges
(crashes) when it goes too far one way. Scores are noisy; a simple judge screens with one training and
confirms with up to eight, and keeps what is better by two standard errors. The table shows what share of the
gap between start and optimum is left at the incumbent, by its true score: 1 is no progress, 0 the optimum.

Measured (16 surfaces, --first 100; mean and standard error; `random` and the rest draw from the whole space):

    share of the gap left after    12             30             100
    random                         1.00           0.96 ± 0.04    0.96 ± 0.04
    tpe                            0.89 ± 0.04    0.71 ± 0.06    0.47 ± 0.05
    gp                             0.78 ± 0.06    0.56 ± 0.06    0.26 ± 0.04
    local                          0.70 ± 0.05    0.43 ± 0.04    0.24 ± 0.03
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import Choice, read_knobs, read_values
from autoresearch.edit.rules import check as check_rules
from autoresearch.propose import create_proposer
from autoresearch.propose.base import Context, Proposer
from autoresearch.tasks.gpt.task import GptTask
from autoresearch.tasks.gpt.words import prompt_text
from autoresearch.types import Experiment, Measurement, Outcome, Proposal, State, Trial, Verdict, VerdictKind

NOISE = 0.005
GAP = 0.04
START = 1.7
CONFIRMATIONS = 8

SCRIPT = """\
DEPTH = 4  # 2..8
MLP_RATIO = 4  # 2..6
SOFTCAP = 15.0  # 5..30 log
MATRIX_LR = 0.02  # x5
EMBED_LR = 0.02  # x5
HEAD_LR = 0.004  # x5
SCALAR_LR = 0.02  # x5
WEIGHT_DECAY = 0.05  # 0..0.3
MOMENTUM = 0.95  # 0.8..0.98
BETA1 = 0.8  # 0.5..0.95
WARMUP = 0.0  # 0..0.2
"""
CHOICES = """\
ACTIVATION = "relu2"  # relu2 | gelu | swiglu
TIE = False  # True | False
"""


@dataclass(frozen=True)
class Surface:
    """A script and its true score; see the top of the file."""

    script: str
    best: np.ndarray
    curvature: np.ndarray
    prices: dict[str, dict[str, float]]
    cliff: tuple[int, float]

    @classmethod
    def draw(cls, seed: int) -> Surface:
        """A random surface; every other one has two categorical knobs."""
        random = np.random.default_rng(seed)
        script = SCRIPT + (CHOICES if seed % 2 else "")
        knobs = read_knobs(script, 0)
        start = np.array([k.space.unit(k.value) for k in knobs if not isinstance(k.space, Choice)])
        best = np.clip(start + random.normal(0, 1 / 6, start.size), 0, 1)
        weights = np.exp(random.normal(0, 1, start.size))
        curvature = np.diag(weights)
        for _ in range(3):
            i, j = random.choice(start.size, 2, replace=False)
            curvature[i, j] = curvature[j, i] = random.uniform(-0.3, 0.3) * np.sqrt(weights[i] * weights[j])
        lowest = np.linalg.eigvalsh(curvature)[0]
        curvature += np.eye(start.size) * max(0.02 - lowest, 0)
        off = start - best
        curvature *= GAP / (off @ curvature @ off)
        prices = {}
        for knob in knobs:
            if isinstance(knob.space, Choice):
                others = [o for o in knob.space.options if o != knob.value]
                better = random.random(len(others)) < 0.25
                cost = np.where(
                    better, -random.uniform(0.002, 0.01), random.uniform(0.005, 0.04, len(others))
                )
                prices[knob.name] = {repr(o): float(c) for o, c in zip(others, cost, strict=True)}
        return cls(
            script, best, curvature, prices, (int(random.integers(start.size)), random.choice([-1, 1]))
        )

    def true(self, script: str) -> float | None:
        """True score of a script in bits per byte above the optimum; None if it diverges."""
        values = read_values(script, 0)
        knobs = read_knobs(self.script, 0)
        off = (
            np.array([k.space.unit(values[k.name]) for k in knobs if not isinstance(k.space, Choice)])
            - self.best
        )
        index, direction = self.cliff
        if off[index] * direction > 0.4:
            return None
        bowl = float(off @ self.curvature @ off)
        prices = sum(costs.get(repr(values[name]), 0.0) for name, costs in self.prices.items())
        return 0.3 * (1 - np.exp(-bowl / 0.3)) + prices

    @property
    def floor(self) -> float:
        """True score of the best script."""
        return sum(min(0.0, *costs.values()) for costs in self.prices.values())


def search(surface: Surface, proposer: Proposer, experiments: int, seed: int) -> list[float]:
    """Share of the gap left after each experiment."""
    random = np.random.default_rng(10_000 + seed)
    script, start = surface.script, surface.true(surface.script)
    scores = [start + random.normal(0, NOISE) for _ in range(3)]
    history = [_experiment(0, None, scores, False)]
    left = []
    for number in range(1, experiments + 1):
        mean = float(np.mean(scores))
        context = Context(
            "bench",
            "",
            {"train.py": script},
            {"train.py": surface.script},
            tuple(history),
            START + mean,
            NOISE,
            seed=seed,
            task=prompt_text(""),
            metric=GptTask.metric,
        )

        def check(found: Proposal, parent: str = script) -> None:
            new = apply({"train.py": parent}, found.edits)
            check_rules({"train.py": parent}, new, ["train.py"])

        found = proposer.ask(context, check)[0]
        candidate = apply({"train.py": script}, found.edits)["train.py"]
        kept, seen = _judge(surface.true(candidate), scores, random)
        effect = float(np.mean(scores) - np.mean(seen[1:])) if kept else None
        history.append(_experiment(number, found, seen, kept, effect))
        if kept:
            script, scores = candidate, seen[1:]
        left.append((surface.true(script) - surface.floor) / (start - surface.floor))
    return left


def _judge(
    true: float | None, incumbent: list[float], random: np.random.Generator
) -> tuple[bool, list[float]]:
    """Screen with one training, confirm with up to eight; the screening does not count among them."""
    if true is None:
        return False, []
    screen = true + random.normal(0, NOISE)
    if np.mean(incumbent) - screen < NOISE * np.sqrt(1 + 1 / len(incumbent)):
        return False, [screen]
    runs: list[float] = []
    while len(runs) < CONFIRMATIONS:
        runs.append(true + random.normal(0, NOISE))
        z = (np.mean(incumbent) - np.mean(runs)) / (NOISE * np.sqrt(1 / len(runs) + 1 / len(incumbent)))
        if len(runs) > 1 and (z >= 2 or z < 1):
            return bool(z >= 2), [screen, *runs]
    return False, [screen, *runs]


def _experiment(
    number: int, found: Proposal | None, scores: list[float], kept: bool, effect: float | None = None
) -> Experiment:
    commit = f"c{number}"
    results = [Measurement(Outcome.OK, START + score) for score in scores] or [Measurement(Outcome.CRASH)]
    trials = tuple(Trial(i, number, "screen", i, commit, 0, 20, result) for i, result in enumerate(results))
    kind = VerdictKind.KEEP if kept else VerdictKind.DISCARD if scores else VerdictKind.CRASH
    return Experiment(number, State.RECORDED, "c0", 0, commit, found, Verdict(kind, effect), trials=trials)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surfaces", type=int, default=16)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--experiments", type=int, nargs="+", default=[12, 30, 100])
    parser.add_argument("--proposers", nargs="+", default=["random", "tpe", "gp", "local"])
    options = parser.parse_args()
    print("share of the gap left after:" + "".join(f"{n:>16d}" for n in options.experiments))
    for name in options.proposers:
        began, rows = time.monotonic(), []
        for seed in range(options.first, options.first + options.surfaces):
            rows.append(search(Surface.draw(seed), make(name), max(options.experiments), seed))
        table = np.array(rows)
        columns = [table[:, n - 1] for n in options.experiments]
        cells = [f"{left.mean():.2f} ± {left.std() / len(table) ** 0.5:.2f}" for left in columns]
        pace = (time.monotonic() - began) / table.size
        print(
            f"{name:28s}" + "".join(f"{cell:>16s}" for cell in cells) + f"   {pace:.2f} s a proposal",
            flush=True,
        )


def make(name: str) -> Proposer:
    """The control arm, or the Optuna proposer with one of its samplers."""
    if name == "random":
        return create_proposer("random", column=0)
    return create_proposer("optuna", column=0, sampler=name)


if __name__ == "__main__":
    main()
