"""The incumbent: its runs, when to measure it again, and what selection did to its score.

Invariant: a score that won a selection is never believed as it stands. Its expected luck is added back,
fresh runs dilute what is left, and two re-runs in a row that are out of line replace all before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autoresearch.judge.noise import Noise, Pool, Runs, restless
from autoresearch.judge.stats import Z95, lambert, t_from_z, z_from_t
from autoresearch.types import Estimate

MISSES = 3
"""Failures in a row after which no more of its runs are waited for."""

DRIFT = 2.2
"""Least z of two re-runs in a row, on the same side, that show that the machine has changed. A steady one
does so once in 500 re-runs, and then all that is lost are the runs that were given up."""

RARE = 5.0
"""Log odds against a change of the machine when runs are given up for one. Most of the small ones are chance,
picked for looking like one; the starting point is not moved by those."""


@dataclass
class Incumbent:
    """What is known of the tip of the branch.

    Attributes:
        runs: Its scores by seed.
        correction: What selection is expected to have taken off the sum of `runs`.
        luck: What selection on this validation set is expected to have taken off, over all keeps.
        luck_variance: How unsure that is.
        since: Candidate runs since its last run.
        misses: Its failures in a row.
        suspects: Seeds of re-runs that were out of line.
        drifts: How often the machine was seen to have changed.
        survived: Candidates that failed to replace it.
        moved: How much the changes of the machine have probably added to a score, over all drifts.
        moved_variance: How unsure that is.
    """

    runs: Runs
    correction: float = 0.0
    luck: float = 0.0
    luck_variance: float = 0.0
    since: int = 0
    misses: int = 0
    suspects: list[int] = field(default_factory=list)
    drifts: int = 0
    survived: int = 0
    moved: float = 0.0
    moved_variance: float = 0.0

    @property
    def mean(self) -> float:
        """Its score on this validation set, without the luck of its seeds."""
        return self.mean_of(list(self.runs))

    def mean_of(self, seeds: Sequence[int]) -> float:
        """The same by the runs of some seeds, those among them that were selected."""
        return (math.fsum(self.runs[seed] for seed in seeds) + self.correction) / len(seeds)

    @property
    def failing(self) -> bool:
        """Whether it failed so often in a row that waiting for more of its runs is useless."""
        return self.misses >= MISSES

    def due(self, heartbeat: int) -> bool:
        """Whether it must be run again before the next candidate."""
        return bool(self.suspects) or self.since >= heartbeat

    def succeed(self, runs: Runs, correction: float) -> None:
        """A candidate's runs take its place."""
        self.runs, self.correction = runs, correction
        self.misses, self.suspects, self.survived = 0, [], 0

    def add(self, seed: int, score: float | None, pool: Pool) -> Pool:
        """Take a re-run, and hold it against the runs before it.

        Args:
            seed: Its seed.
            score: None if it failed.
            pool: The spread of everything but these runs.

        Returns:
            The pool, with the runs that were given up, if any.
        """
        self.since = 0
        if score is None:
            self.misses += 1
            if self.failing:
                self.suspects = []  # nobody can tell any more; asking on would never end
            return pool
        self.misses = 0
        old = {s: x for s, x in self.runs.items() if s not in self.suspects}
        suspects = [self.runs[s] for s in self.suspects]
        mean = self.mean_of(list(old))
        self.runs[seed] = score
        noise = pool.with_runs(old).noise(score)
        off = z_from_t((score - mean) / (noise.sigma * math.sqrt(1 + 1 / len(old))), noise.df)
        if not suspects:
            self.suspects = [seed] if abs(off) >= DRIFT else []
            return pool
        self.suspects = []
        if abs(off) < DRIFT or (suspects[0] - mean) * off <= 0:
            return pool
        return self.renew(list(old), pool)

    def renew(self, old: Sequence[int], pool: Pool) -> Pool:
        """Give up the runs of these seeds, since the machine has changed; gives the pool with them."""
        before, given_up = self.mean_of(old), {s: self.runs.pop(s) for s in old}
        pool = pool.with_runs(given_up)
        noise, by = pool.noise(before), math.fsum(self.runs.values()) / len(self.runs) - before
        variance = noise.variance * (1 / len(self.runs) + 1 / len(old))
        real = 1 / (1 + math.exp(RARE - min(700.0, z_from_t(by / math.sqrt(variance), noise.df) ** 2 / 2)))
        self.moved += real * by
        self.moved_variance += real * variance + real * (1 - real) * by * by
        self.suspects = []
        self.correction, self.survived = 0.0, 0  # nothing was selected, nothing survived on this machine
        self.drifts += 1
        return pool

    def estimate(self, noise: Noise, rate: float, scale: float) -> Estimate:
        """Its expected score on new data of the same kind, the luck of selection taken out.

        An incumbent with lucky runs is harder to replace, so one that has survived is likely to be one:
        with keeps arriving at `rate` times exp(-luck / scale) a candidate, luck has its most probable value
        where luck = variance * survived * rate / scale * exp(-luck / scale). It is as unsure as it is large.

        Args:
            noise: By all that is known.
            rate: Keeps a candidate.
            scale: Mean size of a real gain.
        """
        n = len(self.runs)
        variance = noise.variance * restless(self.runs, noise) / n
        luck = scale * lambert(variance * self.survived * rate / scale**2)
        half = t_from_z(Z95, noise.df) * math.sqrt(variance + self.luck_variance + luck**2)
        mean = self.mean + self.luck + luck
        return Estimate(mean, (mean - half, mean + half), n)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return vars(self) | {"runs": list(self.runs.items())}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Incumbent:
        """The inverse of `to_dict`."""
        return cls(**(data | {"runs": dict(data["runs"])}))
