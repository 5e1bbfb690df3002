"""The incumbent: its runs, when to run it again, and whether the machine has changed since.

A candidate became the incumbent because its score was low, so that score is expected to be too low (selection
bias). It is never taken as it stands: the expected bias is added back, and fresh runs dilute what is left.

A machine that becomes faster makes every candidate look better than old runs of the incumbent. Runs of the
incumbent beside a candidate ("control runs") tell the two apart: on the same machine they score as its runs
before did; on a faster one they score as the candidate does. A machine that slows down makes no false gain;
two re-runs in a row that are out of line show it. In both cases the old runs are given up.

A change that was kept may gain at first and lose later on purpose, which looks like a slower machine. So its
re-runs never make the start's level worse, only better; the start's own re-runs move it both ways.

Where a faster machine makes no better score, as under a budget of tokens, nothing of this is looked for.

On several kinds of devices whose scores do not compare, each seed belongs to one kind. The incumbent has a
level on each, by its runs there, and every run counts by how far it is from the level on its kind.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from autoresearch.judge.noise.spread import (
    Z95,
    Noise,
    Pool,
    Runs,
    compare,
    excess_variance,
    t_from_z,
    z_from_t,
)
from autoresearch.types import Estimate, Levels

MAX_FAILURES = 3
"""After this many failures in a row no more runs of the incumbent are waited for."""

OUTLIER_Z = 2.2
"""Least z of two re-runs in a row, on the same side, that show that the machine has changed. On a steady
machine that happens once in 500 re-runs, and costs only the runs that are given up."""

PRIOR_LOG_ODDS = 5.0
"""Log odds against a change of the machine when runs are given up for one. Most of the small ones are chance,
selected for looking like a change; the baseline is not moved by those."""

SAME_LOG_ODDS, CHANGED_LOG_ODDS, MAX_CONTROLS = -0.5, -2.0, 3
"""Log odds of the control runs: from the first on the machine is the same; below the second it has changed;
between the two more control runs are needed, up to the third. Machines rarely change, so a single run need
not prove that this one did not. A stricter first bound costs more progress than it saves false keeps."""

STEADY_HEARTBEAT = 2
"""Where the machine cannot change the scores, the incumbent is run again after so many times the heartbeat:
its luck is all that fresh runs tell."""

RENAMED = {
    "correction": "selection_bias",
    "luck": "sampling_bias",
    "luck_variance": "sampling_variance",
    "since": "runs_since",
    "misses": "failures",
    "suspects": "outliers",
    "moved": "shift",
    "moved_variance": "shift_variance",
}
"""Attribute in the JSON of older versions -> attribute of today."""


class Machine(Enum):
    """Whether the machine is still the one on which the incumbent was run before."""

    SAME = "same"
    UNCLEAR = "unclear"
    CHANGED = "changed"


@dataclass
class Incumbent:
    """What is known of the tip of the branch.

    Attributes:
        runs: Its scores by seed.
        items: What documents contribute to these, by seed, where that is known.
        selection_bias: How much too low the sum of `runs` is expected to be because of selection.
        sampling_bias: How much too low its score is expected to be because changes were selected on this
            validation set, summed over all keeps.
        sampling_variance: Variance of that estimate.
        runs_since: Candidate runs since its last run.
        failures: Its failed runs in a row.
        failed: Its failed runs. In every estimate they count as the worst score that is known.
        outliers: Seeds of re-runs that were out of line.
        drifts: How often the machine was found to have changed.
        survived: Candidates that did not replace it.
        shift: How much the changes of the machine have probably added to a score, over all drifts.
        shift_variance: Variance of that estimate.
        steady: Whether a faster machine makes no better score; states of older versions do not say.
        devices: Kind of device of each seed that does not belong to the first one.
    """

    runs: Runs
    selection_bias: float = 0.0
    sampling_bias: float = 0.0
    sampling_variance: float = 0.0
    runs_since: int = 0
    failures: int = 0
    outliers: list[int] = field(default_factory=list)
    drifts: int = 0
    survived: int = 0
    shift: float = 0.0
    shift_variance: float = 0.0
    failed: int = 0
    items: dict[int, tuple[float, ...]] = field(default_factory=dict)
    steady: bool = False
    devices: dict[int, str] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Its score on this validation set, without selection bias."""
        return self.mean_of(list(self.runs))

    def mean_of(self, seeds: Sequence[int]) -> float:
        """The same from some of its runs; those that were selected must be among them."""
        return (math.fsum(self.runs[seed] for seed in seeds) + self.selection_bias) / len(seeds)

    def here(self, seed: int) -> list[int]:
        """The seeds of its runs on the kind of device that a seed belongs to."""
        kind = self.devices.get(seed)
        return [other for other in self.runs if self.devices.get(other) == kind]

    def level(self, seed: int) -> float:
        """Its score on the kind of device that a seed belongs to; on all if it was not run there."""
        if not self.devices or not (here := self.here(seed)):
            return self.mean
        mean = math.fsum(self.runs[other] for other in here) / len(here)
        return mean + self.selection_bias / len(self.runs)

    def levelled(self, runs: Runs) -> Runs:
        """Its runs, or a candidate's on top of it, as if it scored the same on every kind of device."""
        if not self.devices:
            return runs
        return {seed: score - self.level(seed) + self.mean for seed, score in runs.items()}

    def by_device(self, runs: Runs) -> list[Runs]:
        """The same runs, for each kind of device."""
        found: dict[str | None, Runs] = {}
        for seed, score in runs.items():
            found.setdefault(self.devices.get(seed), {})[seed] = score
        return list(found.values())

    def level_runs(self, before: Runs, runs: Runs) -> float | None:
        """How many runs tell its level for the comparison with a candidate; None: all."""
        if not self.devices:
            return None
        known = [self.devices.get(seed) for seed in before]
        shares = ((len(part) / len(runs), next(iter(part))) for part in self.by_device(runs))
        return 1 / math.fsum(
            share**2 / max(known.count(self.devices.get(seed)), 0.5) for share, seed in shares
        )

    @property
    def failing(self) -> bool:
        """Whether it failed so often in a row that it is useless to wait for more of its runs."""
        return self.failures >= MAX_FAILURES

    def due(self, heartbeat: int) -> bool:
        """Whether it must be run again before the next candidate."""
        return bool(self.outliers) or self.runs_since >= self._stretched(heartbeat)

    def _stretched(self, heartbeat: int) -> int:
        return heartbeat * (STEADY_HEARTBEAT if self.steady else 1)

    def replace(self, runs: Runs, items: dict[int, tuple[float, ...]], selection_bias: float) -> None:
        """A kept candidate takes its place, with these runs and what documents contribute to them."""
        self.runs, self.selection_bias = runs, selection_bias
        self.items = {seed: items[seed] for seed in runs if seed in items}
        self.failures, self.outliers, self.survived, self.failed = 0, [], 0, 0

    def step_back(self, runs: Runs, share: float, heartbeat: int) -> None:
        """An earlier incumbent takes its place again, and is due to be run.

        Args:
            runs: Its scores.
            share: Share of the kept changes that stay. The bias of selection on the validation set was summed
                over all of them.
            heartbeat: Candidate runs after which it is due.
        """
        self.replace(runs, {}, 0.0)
        self.sampling_bias *= share
        self.sampling_variance *= share
        self.runs_since = self._stretched(heartbeat)

    def add(self, seed: int, score: float | None, pool: Pool, *, is_start: bool = True) -> Pool:
        """Take a re-run, and compare it to the runs before it.

        Args:
            seed: Its seed.
            score: None if it failed.
            pool: The spread of everything but these runs.
            is_start: Whether it is the starting script.

        Returns:
            The pool, with the runs that were given up, if any.
        """
        self.runs_since = 0
        if score is None:
            self.failures += 1
            self.failed += 1
            if self.failing:
                self.outliers = []  # they cannot be checked any more; asking on would never end
            return pool
        self.failures = 0
        here = self.here(seed)
        self.outliers = [s for s in self.outliers if s in here]
        old = {s: self.runs[s] for s in here if s not in self.outliers}
        outliers = [self.runs[s] for s in self.outliers]
        if not old:  # its first run on this kind of device
            self.runs[seed] = score
            return pool
        mean = self.mean_of(list(old))
        self.runs[seed] = score
        noise = pool.with_runs(old).noise(score)
        z = z_from_t((score - mean) / (noise.sigma * math.sqrt(1 + 1 / len(old))), noise.df)
        if not outliers:
            self.outliers = [seed] if abs(z) >= OUTLIER_Z and not self.steady else []
            return pool
        self.outliers = []
        if abs(z) < OUTLIER_Z or (outliers[0] - mean) * z <= 0:
            return pool
        return self.give_up(list(old), pool, is_start=is_start)

    def give_up(self, old: Sequence[int], pool: Pool, *, is_start: bool = True) -> Pool:
        """Give up the runs of these seeds, since the machine has changed; returns the pool with them."""
        before, given_up = self.mean_of(old), {s: self.runs.pop(s) for s in old}
        self.items = {seed: parts for seed, parts in self.items.items() if seed in self.runs}
        pool = pool.with_runs(*self.by_device(given_up))
        now = [self.runs[seed] for seed in self.here(old[0])]
        noise, by = pool.noise(before), math.fsum(now) / len(now) - before
        variance = noise.variance * (1 / len(now) + 1 / len(old))
        z = z_from_t(by / math.sqrt(variance), noise.df)
        real = 1 / (1 + math.exp(PRIOR_LOG_ODDS - min(700.0, z**2 / 2)))
        if by > 0 and not is_start:
            real = 0.0
        self.shift += real * by
        self.shift_variance += real * variance + real * (1 - real) * by * by
        self.outliers = []
        self.selection_bias, self.survived = 0.0, 0  # on this machine nothing was selected yet
        self.drifts += 1
        return pool

    def before(self, controls: Collection[int]) -> Runs:
        """Its runs other than the control runs of the current candidate, on one kind of device.

        That is the kind of the latest control run beside which there are others; empty if there is none.
        """
        for control in reversed([*controls]):
            if old := {seed: self.runs[seed] for seed in self.here(control) if seed not in controls}:
                return old
        return {} if controls else dict(self.runs)

    def machine(self, controls: Collection[int], runs: Runs, noise: Noise, bonus: float) -> Machine:
        """Whether the machine has changed since the incumbent's older runs.

        The larger the candidate's gain, the more a single control run says.

        Args:
            controls: Seeds of the incumbent's runs beside the candidate.
            runs: The candidate's.
            noise: By all that is known.
            bonus: What is added to the candidate's gain before it is compared.
        """
        if self.steady or self.failing:
            return Machine.SAME  # if it fails, it will never be known, and waiting would end the search
        known = self.levelled(self.runs)
        old = {seed: score for seed, score in known.items() if seed not in controls}
        gain = compare(noise, old, runs, selection_bias=self.selection_bias).gain + bonus
        mean = (math.fsum(old.values()) + self.selection_bias) / len(old)
        new = [known[seed] for seed in controls]
        log_odds = math.fsum(gain * (x - mean + gain / 2) for x in new) / noise.variance
        if new and log_odds >= SAME_LOG_ODDS and not self.outliers:
            return Machine.SAME
        if len(new) < MAX_CONTROLS:
            return Machine.UNCLEAR
        return Machine.SAME if log_odds > CHANGED_LOG_ODDS else Machine.CHANGED

    def levels(self, baseline: Runs, noise: Noise, rate: float, scale: float) -> Levels:
        """Scores of baseline and incumbent without selection bias, as on the machine of now.

        Args:
            baseline: The runs of the first incumbent.
            noise: By all that is known.
            rate: Keeps per candidate.
            scale: Mean size of a real gain.
        """
        m = len(baseline)
        mean = math.fsum(baseline.values()) / m + self.shift
        half = t_from_z(Z95, noise.df) * math.sqrt(noise.variance / m + self.shift_variance)
        start = Estimate(mean, (mean - half, mean + half), m)
        worst = max(mean, *baseline.values(), *self.runs.values())
        return Levels(start, self._estimate(noise, rate, scale, worst), noise.sigma, round(noise.df))

    def _estimate(self, noise: Noise, rate: float, scale: float, worst: float) -> Estimate:
        """Its expected score on new data of the same kind, without selection bias.

        An incumbent with lucky runs is harder to replace, so one that has survived many candidates probably
        had such luck. With keeps arriving at `rate` times exp(-luck / scale) a candidate, luck has its most
        probable value where luck = variance * survived * rate / scale * exp(-luck / scale). Its standard
        error is taken to be as large as that value.
        """
        n = len(self.runs)
        variance = noise.variance * excess_variance(self.runs, noise) / n
        luck = scale * lambert_w(variance * self.survived * rate / scale**2)
        half = t_from_z(Z95, noise.df) * math.sqrt(variance + self.sampling_variance + luck**2)
        mean = (n * self.mean + self.failed * worst) / (n + self.failed) + self.sampling_bias + luck
        return Estimate(mean, (mean - half, mean + half), n)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        by_seed = {name: list(getattr(self, name).items()) for name in ("runs", "items", "devices")}
        return vars(self) | by_seed

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Incumbent:
        """The inverse of `to_dict`; reads what older versions wrote, too."""
        values = {RENAMED.get(key, key): value for key, value in data.items()}
        items = {seed: tuple(parts) for seed, parts in values.get("items", ())}
        devices = dict(values.get("devices", ()))
        return cls(**(values | {"runs": dict(values["runs"]), "items": items, "devices": devices}))


def lambert_w(a: float) -> float:
    """The x >= 0 with x exp(x) = a >= 0, by Newton's method on the logarithm of both sides."""
    x = math.log1p(a)
    for _ in range(6 if x > 0 else 0):
        x *= (1 + math.log(a) - math.log(x)) / (1 + x)
    return x
