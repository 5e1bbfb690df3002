"""What the judges that know the noise have learned from all runs: the noise, the spread of pairs, the levels.

Here are the comparison of a candidate with the incumbent, the report, and the state as JSON; what follows
from them is in `decisions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autoresearch.judge.base import Baseline, Judge, Kept, Report
from autoresearch.judge.noise.documents import Variance, paired_variance
from autoresearch.judge.noise.pairs import Pairs
from autoresearch.judge.noise.spread import Comparison, Noise, Pool, Runs, common_luck, compare
from autoresearch.judge.sequential.candidates import Candidate, Earlier, earlier_from_dict
from autoresearch.judge.sequential.evidence import SizeTerms, expected_gain, kept_gains
from autoresearch.judge.sequential.in_flight import InFlight
from autoresearch.judge.sequential.incumbent import Incumbent
from autoresearch.types import Levels

MIN_RUNS = 3
"""A screening run and two confirmations."""

CHECKED_RUNS = 2
"""Where the caller checks what would be kept: its run in the check is one more."""

ONLY_CANDIDATE = ("runs", "items", "spread", "gain_ratio", "inspected", "controls", "waits_for")
"""What the JSON of older versions, which held one candidate, has of it beside its complexity and kind."""

EARLIER_DF, EARLIER_PAIRS = 6, 0.5
"""What an earlier search found counts like so many degrees of freedom, and so much for each of its pairs."""

LEAST_RATIO, MOST_RATIO = 0.005, 5.0
"""Beyond these ratios of the variances, of the baselines and of an earlier search, the noise is another."""


class Estimates(InFlight):
    """What `default` and `strict` know; see those for the arguments."""

    min_baselines = 2

    def __init__(self, baseline: Baseline, tau: float, options: dict[str, float]) -> None:
        for key, least in (("refresh", 2), ("heartbeat", 2), ("limit", MIN_RUNS)):
            if options[key] != int(options[key]) or options[key] < least:
                raise ValueError(f"{key} must be a whole number >= {least}, not {options[key]}")
        for key in ("price", "margin"):
            if not 0 <= options[key] < math.inf:
                raise ValueError(f"{key} must be >= 0, not {options[key]}")
        super().__init__(baseline, tau, options)
        self.incumbent = Incumbent(dict(self.baseline))
        self.active: dict[int, Candidate] = {}
        self.earlier: dict[int, Earlier] = {}
        self.pool = Pool()
        self.pairs = Pairs()
        self.weights: Sequence[float] = ()
        self.keeps: list[Kept] = []
        self.screens = 0

    def with_items(self, weights: Sequence[float], runs: Mapping[int, Sequence[float]]) -> None:
        """Say what the scores are made of, so that the error of each difference over documents is known."""
        self.weights = tuple(weights)
        self.incumbent.items = {seed: tuple(parts) for seed, parts in runs.items()}

    def use_steady_machine(self) -> None:
        """Look for no change of the machine."""
        self.incumbent.steady = True

    def learn_from(self, earlier: Judge) -> bool:
        """Take the noise of an earlier search as a prior, unless the baselines speak against it."""
        if not isinstance(earlier, Estimates):
            return False
        own, theirs = self._noise(), earlier._noise()
        if not LEAST_RATIO < own.variance / theirs.variance < MOST_RATIO:
            return False
        df = min(EARLIER_DF, int(theirs.df))
        self.pool = Pool(df * theirs.variance, df)
        self.pairs = earlier.pairs.as_prior(EARLIER_PAIRS)
        return True

    def _compare(self, noise: Noise, c: Candidate, runs: Runs) -> Comparison:
        inc, sampling = self.incumbent, self._sampling(c, runs)
        before = inc.levelled(inc.runs) | c.beside(inc.mean)
        return compare(
            noise,
            before,
            runs,
            pairs=self.pairs.predict(c.kind, c.spread, noise.sigma),
            tau=sampling.error,
            tau_df=sampling.df,
            selection_bias=inc.selection_bias,
            level_runs=inc.level_runs(before, runs),
        )

    def _sampling(self, c: Candidate, runs: Runs) -> Variance:
        """What the choice of documents adds to the difference of these runs of a candidate and the incumbent.

        It follows from the contributions of documents on the common seeds. Where those are not known, it is
        `tau` as given.
        """
        gaps = c.gaps(self.incumbent.items, list(runs))
        if not gaps:
            return Variance(self.tau**2, math.inf)
        return paired_variance(gaps, self.weights)

    def _measured(self, c: Candidate, runs: Runs) -> tuple[tuple[int, float, float], ...]:
        """Seed, score of the incumbent and score of the candidate, on each common seed."""
        inc = self.incumbent.levelled(self.incumbent.runs) | c.beside(self.incumbent.mean)
        return tuple((seed, inc[seed], score) for seed, score in runs.items() if seed in inc)

    def expected(self, seed: int) -> tuple[float, float]:
        """What the incumbent scores on a seed, and how far a candidate scatters around its gain over that."""
        pairs = self.pairs.predict("", 0.0, self._noise().sigma)
        typical = math.exp(0.5 * math.fsum(w * math.log(v) for v, w in pairs))
        return self.incumbent.runs.get(seed, self.incumbent.mean), typical

    def _runs(self, c: Candidate) -> Runs:
        """All runs of a candidate, as if measured on top of the present incumbent."""
        return c.seen_before(self.incumbent.mean) | self._here(c) if c.past else self._here(c)

    def _here(self, c: Candidate) -> Runs:
        """Those that are on top of it."""
        return self.incumbent.levelled(c.runs)

    def _noise(self) -> Noise:
        """The noise by all that is known, runs of candidates in flight included."""
        split = self.incumbent.by_device
        pool = self.pool.with_runs(*split(self.incumbent.runs))
        for c in self.active.values():
            pool = pool.with_runs(*split(self._runs(c)))
        return pool.noise(next(iter(self.baseline.values())))

    def _terms(self, noise: Noise, c: Candidate) -> SizeTerms:
        return SizeTerms.of(c.complexity, self.options["price"], self.options["margin"], noise.sigma)

    def _levels(self) -> Levels:
        noise = self._noise()
        rate = len(kept_gains(self.keeps)) / max(1, self.candidates)
        return self.incumbent.levels(self.baseline, noise, rate, expected_gain(self.keeps, noise.sigma))

    def report(self) -> Report:
        """Estimates without selection bias, and counts."""
        now = self._levels()
        return Report(
            judge=self.name,
            noise=now.noise,
            baseline=now.baseline,
            incumbent=now.incumbent,
            keeps=tuple(self.keeps),
            candidates=self.candidates,
            confirmed=self.confirmed,
            failed=self.failed,
            expected_false_keeps=sum(keep.doubt or 0.0 for keep in self.keeps),
            common_luck=common_luck(self.pairs.predict("", 0.0, now.noise), self._noise()),
            drifts=self.incumbent.drifts,
            tau=self.tau,
        )

    def _dump(self) -> dict[str, Any]:
        state = super()._dump() | {"pool": asdict(self.pool), "incumbent": self.incumbent.to_dict()}
        state |= {"active": [c.to_dict() for c in self.active.values()]}
        state |= {"earlier": [(number, asdict(run)) for number, run in self.earlier.items()]}
        keeps = [dict(vars(keep)) for keep in self.keeps]  # hundreds, and `asdict` copies in depth
        return state | {"keeps": keeps, "pairs": asdict(self.pairs)}

    def _load(self, state: dict[str, Any]) -> None:
        only = {key: state.pop(key) for key in ONLY_CANDIDATE if key in state}
        super()._load(state)
        self.pool = Pool(state["pool"]["ss"], state["pool"]["df"])  # older states hold more
        self.pairs = Pairs(**state.get("pairs", {}))
        self.weights = tuple(state.get("weights", ()))
        self.incumbent = Incumbent.from_dict(state["incumbent"])
        self.keeps = [Kept(**(keep | {"interval": tuple(keep["interval"])})) for keep in state["keeps"]]
        active = [Candidate.from_dict(values) for values in state.get("active", ())]
        if "active" not in state and only["runs"]:
            own = {"complexity": self.complexity, "kind": self.kind}
            active = [Candidate.from_dict({**own, "ordinal": self.candidates, **only})]
        self.active = {c.number: c for c in active}
        self.earlier = {number: earlier_from_dict(run) for number, run in state.get("earlier", ())}
