"""How far runs of two programs on a common seed differ by chance: the spread of pairs, learned on line.

A candidate and the incumbent share much of a seed's luck, so their difference on a common seed scatters less
than single runs do. How much less depends on the task and on the edit. It is estimated by empirical Bayes on
a grid of spreads, from all that a search shows:

- each screening run: most candidates do little, so the differences on common seeds cannot scatter by more;
- the differences of one candidate over several seeds;
- with losses by document: how differently parent and child behave on single documents. Whether that predicts
  the spread of the pairs, and how strictly, is learned as well.

Candidates differ in their spread, so what others showed is a prior for the next one (`HETEROGENEITY`), and
candidates of another kind count half (a power prior, Ibrahim & Chen 2000). By the prior seeds may share
nothing; then runs are compared as if independent. Pure Python, since it is asked at every decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

from autoresearch.judge.noise.spread import updated

LOWEST, HIGHEST = -11, 2
"""The grid of spreads, in half octaves of the spread of independent runs: from 1/45 of it to twice."""

LEAST = 1e-4
"""Spreads less probable than this are left out."""

GRID = range(LOWEST, HIGHEST + 1)

HETEROGENEITY = (0.01, 0.03, 0.09, 0.2, 0.34, 0.2, 0.09, 0.03, 0.01)
"""How the spread of one candidate is distributed around the common one, in half octaves from -4 to 4."""

MARGIN = len(HETEROGENEITY) // 2

UNLIKE_OTHERS = 0.05
"""Share of candidates about which the others say nothing."""

SAME = 1e-9
"""A gap is none if it is at most this share of the noise."""

POWERS = (0.0, 0.75)
"""A candidate's spread is taken to follow this power of how differently it behaves on single documents."""

POWER_PRIOR = (0.5, 0.5)

EFFECTS = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Standard deviations, in noise units, of the normal distributions whose mixture is what candidates do."""

SQUARES = tuple(size * size for size in EFFECTS)

EFFECTS_PRIOR = 0.8
"""Candidates that each of EFFECTS has had before any is known."""

OTHER_KINDS = 0.5
"""Weight of what candidates of another kind showed."""

MAX_RATIO = 8.0
"""A candidate's behaviour on single documents is taken to differ by at most this factor from the typical."""


def prior_weight(step: int) -> float:
    """Prior weight of a spread of this many half octaves beside that of independent runs.

    About half of it is on independent runs, so that no more than usual is kept before pairs are known.
    """
    if step >= 0:
        return (8.0, 1.6, 0.05)[step]
    return 1.0 if step > -9 else 0.5


@dataclass
class Pairs:
    """What the candidates so far showed of the spread of pairs.

    Attributes:
        scale: Spread of a pair of independent runs (root 2 times the noise) at which `logs` are kept.
        logs: Kind of edit -> for each of POWERS the log likelihood of each spread of the grid.
        effects: How many candidates probably had an effect of each of EFFECTS.
        candidates: Candidates with losses by document.
        log_spread: Sum over them of the log of how differently they behave on single documents.
    """

    scale: float = 0.0
    logs: dict[str, list[list[float]]] = field(default_factory=dict)
    effects: list[float] = field(default_factory=lambda: [EFFECTS_PRIOR] * len(EFFECTS))
    candidates: int = 0
    log_spread: float = 0.0

    def __post_init__(self) -> None:
        self._rows: dict[tuple[str, int], list[list[float]]] = {}  # what `_posterior` has found since `add`

    def add(self, kind: str, gaps: Sequence[float], spread: float, sigma: float, sampling: float) -> None:
        """Learn from a candidate that has its verdict.

        Args:
            kind: Kind of its edit.
            gaps: Score of the incumbent minus its own, on each common seed.
            spread: How differently it behaves on single documents (standard error over them of one gap); 0 if
                that is not known.
            sigma: The noise of single runs.
            sampling: Variance that the choice of documents adds to the mean gap.
        """
        if sigma <= 0 or max(map(abs, gaps), default=0.0) <= SAME * sigma:
            return  # a program that does the same says nothing about others
        self._anchor(math.sqrt(2) * sigma)
        steps = self._steps(spread)
        self._count_effect(kind, gaps, spread, sigma, sampling)
        logs = self.logs.setdefault(kind, [[0.0] * len(GRID) for _ in POWERS])
        known: dict[float, list[float]] = {}
        for power, row in zip(POWERS, logs, strict=True):
            shift = power * steps
            if shift not in known:
                known[shift] = self._likelihood(gaps, shift, sigma, sampling)
            for i, value in enumerate(known[shift]):
                row[i] += value
        if spread > 0:
            self.candidates += 1
            self.log_spread += math.log(spread)
        self._rows = {}

    def as_prior(self, weight: float) -> Pairs:
        """What these candidates say of those of another search; each counts by `weight`."""
        logs = {kind: [[weight * x for x in row] for row in rows] for kind, rows in self.logs.items()}
        met = math.fsum(self.effects)
        effects = [EFFECTS_PRIOR * len(EFFECTS) * count / met for count in self.effects]
        mean = self.log_spread / max(1, self.candidates)
        return Pairs(self.scale, logs, effects, min(1, self.candidates), mean)

    def predict(self, kind: str, spread: float, sigma: float) -> list[tuple[float, float]]:
        """(Variance of a gap, probability) for a candidate of which no pair is known yet."""
        moved = _half_octaves(math.sqrt(2) * sigma / self.scale) if self.scale else 0
        steps = self._steps(spread)
        rows = self._posterior(kind, moved)
        if steps == 0:
            at, weights = 0, [math.fsum(column) for column in zip(*rows, strict=True)]
        else:
            at, weights = -_MOST, [0.0] * (len(rows[0]) + 2 * _MOST)
            for power, row in zip(POWERS, rows, strict=True):
                first = _MOST + round(power * steps)
                for i, mass in enumerate(row):
                    weights[first + i] += mass
        unit = 2 * sigma * sigma * 2.0 ** (LOWEST - MARGIN + at)
        return [(unit * 2.0**i, weight) for i, weight in enumerate(weights) if weight > LEAST]

    def _posterior(self, kind: str, moved: int) -> list[list[float]]:
        """Probability of each power and of each spread of one candidate, `moved` half octaves further on."""
        key = kind if kind in self.logs else "", moved
        if key in self._rows:
            return self._rows[key]
        logs: list[list[float]] = []
        for p, share in enumerate(POWER_PRIOR):
            row = [math.log(share * prior_weight(step)) for step in GRID]
            for name, known in self.logs.items():
                weight, values = 1.0 if name == kind else OTHER_KINDS, known[p]
                for i in range(len(row)):
                    row[i] += weight * values[min(max(i + moved, 0), len(values) - 1)]
            logs.append(row)
        top = max(map(max, logs))
        masses = [[math.exp(value - top) for value in row] for row in logs]
        total = sum(map(sum, masses))
        found = [[0.0] * (len(GRID) + 2 * MARGIN) for _ in POWERS]
        anyhow = math.fsum(map(prior_weight, GRID))
        for p, (row, wide) in enumerate(zip(masses, found, strict=True)):
            row = [
                (1 - UNLIKE_OTHERS) * mass
                + UNLIKE_OTHERS * total * POWER_PRIOR[p] * prior_weight(step) / anyhow
                for step, mass in zip(GRID, row, strict=True)
            ]
            for i, mass in enumerate(row):
                if mass > 1e-9 * total:
                    for j, share in enumerate(HETEROGENEITY):
                        wide[i + j] += mass / total * share
        self._rows[key] = found
        return found

    def _likelihood(self, gaps: Sequence[float], shift: float, sigma: float, sampling: float) -> list[float]:
        """Log likelihood of each common spread, the candidate's own being `shift` half octaves beside it."""
        k = len(gaps)
        mean = math.fsum(gaps) / k
        ss = math.fsum((gap - mean) ** 2 for gap in gaps)
        own = []
        for step in range(LOWEST - MARGIN, HIGHEST + MARGIN + 1):
            variance = self.scale**2 * 2.0 ** (step + shift)
            level = sum(self._levels(mean, variance / k + sampling, sigma))
            inside = -0.5 * (k - 1) * math.log(variance) - 0.5 * ss / variance
            own.append(inside + math.log(max(level, 1e-300)))
        top = max(own)
        masses = [math.exp(value - top) for value in own]
        return [
            math.log(max(1e-12, sum(map(mul, masses[i : i + len(HETEROGENEITY)], HETEROGENEITY))))
            for i in range(len(GRID))
        ]

    def _levels(self, mean: float, variance: float, sigma: float) -> list[float]:
        """Likelihood of a mean gap by each of EFFECTS, times how often that is met."""
        half, unit, exp, root = -0.5 * mean * mean, sigma * sigma, math.exp, math.sqrt
        around = [variance + square * unit for square in SQUARES]
        return [count * exp(half / v) / root(v) for count, v in zip(self.effects, around, strict=True)]

    def _count_effect(
        self, kind: str, gaps: Sequence[float], spread: float, sigma: float, sampling: float
    ) -> None:
        """Share a candidate out to EFFECTS, by what its mean gap says."""
        mean, found = math.fsum(gaps) / len(gaps), [0.0] * len(EFFECTS)
        for variance, weight in updated(self.predict(kind, spread, sigma), gaps):
            levels = self._levels(mean, variance / len(gaps) + sampling, sigma)
            total = sum(levels) or 1.0
            found = [old + weight * level / total for old, level in zip(found, levels, strict=True)]
        self.effects = [old + new for old, new in zip(self.effects, found, strict=True)]

    def _steps(self, spread: float) -> float:
        """How far a candidate's behaviour on documents is from the typical, in half octaves of variance."""
        if spread <= 0 or not self.candidates:
            return 0.0
        ratio = spread / math.exp(self.log_spread / self.candidates)
        return 2 * math.log2(min(max(ratio, 1 / MAX_RATIO), MAX_RATIO))

    def _anchor(self, scale: float) -> None:
        """Keep the grid around the noise as it is known now."""
        if not self.scale:
            self.scale = scale
        moved = _half_octaves(scale / self.scale)
        self._rows = {}
        if moved:
            self.scale *= 2.0 ** (moved / 2)
            for rows in self.logs.values():
                for row in rows:
                    row[:] = [row[min(max(i + moved, 0), len(row) - 1)] for i in range(len(row))]


def _half_octaves(ratio: float) -> int:
    return round(2 * math.log2(ratio))


_MOST = _half_octaves(MAX_RATIO)
