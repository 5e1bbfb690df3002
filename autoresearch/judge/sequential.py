"""Screen, confirm, refresh: what the judges share that know the noise.

One run screens a candidate. Only promising ones get more runs, until they are stopped or their evidence is
enough; how much is enough, the subclass says. The incumbent is run again on fresh seeds, so that it has at
least as many runs as the candidate. Nothing is kept on its screening run: at least two further runs stand
behind every keep, and a control run of the incumbent beside them (see `incumbent`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from autoresearch.judge.base import Baseline, Judge, Kept, Report
from autoresearch.judge.documents import Variance, paired_variance
from autoresearch.judge.evidence import (
    Evidence,
    SizeTerms,
    expected_gain,
    kept_gains,
    shrink,
    simplification,
    surprising,
    why_stop,
)
from autoresearch.judge.incumbent import Incumbent, Machine
from autoresearch.judge.noise import Comparison, Noise, Pool, Runs, common_luck, compare
from autoresearch.judge.pairs import Pairs
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm, Levels, Verdict, VerdictKind

MIN_RUNS = 3
"""A screening run and two confirmations."""

PLANNED_RUNS = 2
"""Candidate runs planned at a time, so that free devices have something to do."""


EARLIER_DF, EARLIER_PAIRS = 6, 0.5
"""What an earlier search found counts like so many degrees of freedom, and so much for each of its pairs."""

LEAST_RATIO, MOST_RATIO = 0.005, 5.0
"""Beyond these ratios of the variances, of the baselines and of an earlier search, the noise is another."""


class Wait(StrEnum):
    """What a candidate that would be kept still waits for; the values are written to JSON."""

    NOTHING = ""
    THOROUGH_RUN = "look"
    CONTROL_RUN = "check"


class Sequential(Judge):
    """Shared by `default` and `strict`; see those for the arguments."""

    min_baselines = 2

    # The JSON of older versions lacks these.
    waits_for: Wait = Wait.NOTHING
    spread: float = 0.0
    """How differently the candidate behaves on single documents, by its first run; 0 if that is not known."""
    controls: Sequence[int] = ()
    """Seeds of the incumbent's runs that were made beside the current candidate's."""

    def __init__(self, baseline: Baseline, tau: float, options: dict[str, float]) -> None:
        for key, least in (("refresh", 2), ("heartbeat", 2), ("limit", MIN_RUNS)):
            if options[key] != int(options[key]) or options[key] < least:
                raise ValueError(f"{key} must be a whole number >= {least}, not {options[key]}")
        for key in ("price", "margin"):
            if not 0 <= options[key] < math.inf:
                raise ValueError(f"{key} must be >= 0, not {options[key]}")
        super().__init__(baseline, tau, options)
        self.incumbent = Incumbent(dict(self.baseline))
        self.runs: Runs = {}
        self.pool = Pool()
        self.pairs = Pairs()
        self.weights: Sequence[float] = ()
        self.items: dict[int, tuple[float, ...]] = {}
        self.keeps: list[Kept] = []
        self.gain_ratio = 1.0
        self.inspected = False
        self.screens = 0

    @abstractmethod
    def _accept(self, view: Comparison, unselected: Comparison, scale: float) -> Evidence | None:
        """The evidence if it is enough to keep the current candidate, else None.

        Args:
            view: All its runs against the incumbent.
            unselected: Its confirmation runs only, which were not selected for being good.
            scale: Mean size of a real gain.
        """

    def with_items(self, weights: Sequence[float], runs: Mapping[int, Sequence[float]]) -> None:
        """Say what the scores are made of, so that the error of each difference over documents is known."""
        self.weights = tuple(weights)
        self.incumbent.items = {seed: tuple(parts) for seed, parts in runs.items()}

    def learn_from(self, earlier: Judge) -> bool:
        """Take the noise of an earlier search as a prior, unless the baselines speak against it."""
        if not isinstance(earlier, Sequential):
            return False
        own, theirs = self._noise(), earlier._noise()
        if not LEAST_RATIO < own.variance / theirs.variance < MOST_RATIO:
            return False
        df = min(EARLIER_DF, int(theirs.df))
        self.pool = Pool(df * theirs.variance, df)
        self.pairs = earlier.pairs.as_prior(EARLIER_PAIRS)
        return True

    # Requests

    def _plan(self) -> list[TrialRequest]:
        if self.runs:
            return self._confirmation()
        if self.incumbent.due(int(self.options["heartbeat"])):
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        seeds = list(self.incumbent.runs)
        missing = 0 if self.incumbent.failing else max(0, int(self.options["refresh"]) - len(seeds))
        requests = [TrialRequest(Arm.INCUMBENT, self._new_seed()) for _ in range(missing)]
        self.screens += 1
        return [*requests, TrialRequest(Arm.SCREEN, seeds[self.screens % len(seeds)])]

    def _confirmation(self) -> list[TrialRequest]:
        """The next trials of a screened candidate, on seeds on which the incumbent has run or will."""
        if self.waits_for == Wait.CONTROL_RUN or self.incumbent.outliers:
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        free = [seed for seed in self.incumbent.runs if seed not in self.runs]
        if self.waits_for == Wait.THOROUGH_RUN:
            return [TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed(), thorough=True)]
        requests: list[TrialRequest] = []
        n = len(self.incumbent.runs)
        for k in range(len(self.runs), len(self.runs) + PLANNED_RUNS):
            if n < k + 1 and not self.incumbent.failing:
                free.append(self._new_seed())
                requests.append(TrialRequest(Arm.INCUMBENT, free[-1]))
                n += 1
            requests.append(TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed()))
        return requests

    # Answers

    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        if request.arm == Arm.INCUMBENT:
            return self._incumbent_ran(request.seed, observation)
        self.incumbent.runs_since += 1
        self.inspected |= request.thorough
        self.candidates += request.arm == Arm.SCREEN
        self.incumbent.survived += request.arm == Arm.SCREEN
        if observation.score is None:
            self._end_candidate()
            return self._failed_candidate()
        self.runs[request.seed] = observation.score
        if len(observation.items) == len(self.weights) > 1:
            self.items[request.seed] = observation.items
        return self._screen() if request.arm == Arm.SCREEN else self._decide()

    def _incumbent_ran(self, seed: int, observation: Observation) -> Verdict | None:
        """After a run of the incumbent: has the machine changed, and may a candidate that waited be kept?"""
        drifts, score = self.incumbent.drifts, observation.score
        if len(observation.items) == len(self.weights) > 1:
            self.incumbent.items[seed] = observation.items
        self.pool = self.incumbent.add(seed, score, self.pool, is_start=not self.keeps)
        if not self.runs:
            return None
        if self.incumbent.drifts > drifts:
            self._start_over()
            return None
        if score is not None:
            self.controls = [*self.controls, seed]
        return self._decide() if self.waits_for == Wait.CONTROL_RUN else None

    def _screen(self) -> Verdict | None:
        """After the first run: is the candidate worth a second?"""
        noise = self._noise()
        self.spread = self._sampling(self.runs).error if self.items else 0.0
        view = self._compare(noise, self.runs)
        terms = self._terms(noise)
        self.gain_ratio = expected_gain(self.keeps, noise.sigma) / view.error
        if why := why_stop(view, 1, math.inf, terms, self.complexity):
            return self._discard(view, why)
        self.confirmed += 1
        return None

    def _decide(self) -> Verdict | None:
        """After a further run: keep, discard, or go on."""
        k, noise = len(self.runs), self._noise()
        scale, terms = expected_gain(self.keeps, noise.sigma), self._terms(noise)
        view, unselected = self._compare(noise, self.runs), self._compare(noise, self._unselected())
        self.waits_for = Wait.NOTHING
        if k >= MIN_RUNS:
            evidence = self._accept(view.plus(-terms.price), unselected.plus(-terms.price), scale)
            if evidence and not self.inspected and surprising(view.gain, self.keeps, self.incumbent.mean):
                self.waits_for = Wait.THOROUGH_RUN
                return None
            if evidence or terms.simplifies(unselected):
                if not self._same_machine(noise, -terms.price if evidence else terms.margin):
                    return None
                if evidence:
                    return self._keep(view, evidence, scale)
                return self._keep_simplification(unselected, terms, scale)
        if not (why := why_stop(view, k, self.options["limit"], terms, self.complexity)):
            return None
        if terms.price and self._accept(view, unselected, scale):
            why = f"the gain does not pay for the size it adds ({self.complexity:+g})"
        return self._discard(view, why)

    def _same_machine(self, noise: Noise, bonus: float) -> bool:
        """Whether the machine is known to be the same; if not, asks for a control run or starts over."""
        found = self.incumbent.machine(self.controls, self.runs, noise, bonus)
        if found is Machine.UNCLEAR:
            self.waits_for = Wait.CONTROL_RUN
        elif found is Machine.CHANGED:
            old = list(self.incumbent.before(self.controls))
            self.pool = self.incumbent.give_up(old, self.pool, is_start=not self.keeps)
            self._start_over()
        return found is Machine.SAME

    def _start_over(self) -> None:
        """Screen the candidate again: it is unknown which of its runs are older than the machine's change."""
        self.candidates -= 1
        self.confirmed -= 1
        self._requests.clear()
        self._forget_candidate()

    def _restore(self, keeps: int, runs: dict[int, float]) -> None:
        """The incumbent before starts from its runs; it is run again before the next candidate."""
        self._end_candidate()
        self.pool = self.pool.with_runs(self.incumbent.runs)
        left = len(self.keeps) - keeps
        self.incumbent.step_back(runs, left / len(self.keeps), int(self.options["heartbeat"]))
        self.keeps = self.keeps[:left]

    # Verdicts

    def _keep(self, view: Comparison, evidence: Evidence, scale: float) -> Verdict:
        k, pairs = len(self.runs), self._measured(self.runs)
        gain, interval = shrink(view.gain, view.widened, scale, evidence.doubt)
        keep = Kept(view.gain, view.widened, gain, interval, k, evidence.doubt, suspicious=self.inspected)
        bias = view.gain - gain
        self.incumbent.sampling_bias += bias * view.sampling_share
        sampling = view.error**2 * view.sampling_share
        self.incumbent.sampling_variance += sampling * (1 - view.sampling_share)
        self._replace_incumbent(self.runs, bias * view.own_share * k, keep)
        reason = f"kept after {k} runs: gain {gain:.3g}, {evidence.words}"
        if keep.suspicious:
            reason += "; much larger than earlier gains, so one more thorough run confirmed it"
        return Verdict(VerdictKind.KEEP, gain, interval, evidence.value, k, reason, None, len(pairs), pairs)

    def _keep_simplification(self, unselected: Comparison, terms: SizeTerms, scale: float) -> Verdict:
        k, pairs = len(self.runs) - 1, self._measured(self._unselected())
        keep = simplification(unselected, terms, scale, k)
        self.incumbent.sampling_variance += unselected.error**2 * unselected.sampling_share
        bias = unselected.gain - keep.effect
        self._replace_incumbent(self._unselected(), bias * unselected.own_share * k, keep)
        reason = f"kept after {k} runs: a simplification ({self.complexity:+g}), no worse than the margin"
        found = (keep.effect, keep.interval, unselected.z, k, reason, None, len(pairs), pairs)
        return Verdict(VerdictKind.KEEP, *found)

    def _discard(self, view: Comparison, why: str) -> Verdict:
        k, pairs = len(self.runs), self._measured(self.runs)
        self._end_candidate()
        found = (view.gain, view.interval, view.z, k, why, None, len(pairs), pairs)
        return Verdict(VerdictKind.DISCARD, *found)

    def _replace_incumbent(self, runs: Runs, selection_bias: float, keep: Kept) -> None:
        """These runs of the candidate become the incumbent's."""
        self._learn_pairs()
        self.pool = self.pool.with_runs(self.incumbent.runs)
        self.incumbent.replace(runs, self.items, selection_bias)
        self.keeps.append(keep)
        self._forget_candidate()

    def _end_candidate(self) -> None:
        """The candidate is discarded; its runs still tell about the noise."""
        self._learn_pairs()
        self.pool = self.pool.with_runs(self.runs)
        self._forget_candidate()

    def _learn_pairs(self) -> None:
        """What its runs tell about the spread of pairs."""
        inc = self.incumbent.runs
        gaps = [inc[seed] - score for seed, score in self.runs.items() if seed in inc]
        sampling = self._sampling(self.runs)
        self.pairs.add(self.kind, gaps, self.spread, self._noise().sigma, sampling.value)

    def _forget_candidate(self) -> None:
        self.runs, self.items, self.spread = {}, {}, 0.0
        self.inspected, self.controls, self.waits_for = False, (), Wait.NOTHING

    # Estimates

    def _compare(self, noise: Noise, runs: Runs) -> Comparison:
        inc, sampling = self.incumbent, self._sampling(runs)
        return compare(
            noise,
            inc.runs,
            runs,
            pairs=self.pairs.predict(self.kind, self.spread, noise.sigma),
            tau=sampling.error,
            tau_df=sampling.df,
            selection_bias=inc.selection_bias,
        )

    def _sampling(self, runs: Runs) -> Variance:
        """What the choice of documents adds to the difference of these runs and the incumbent's.

        It follows from the contributions of documents on the common seeds. Where those are not known, it is
        `tau` as given.
        """
        seeds = [seed for seed in runs if seed in self.items and seed in self.incumbent.items]
        if not seeds:
            return Variance(self.tau**2, math.inf)
        before = self.incumbent.items
        gaps = [[b - a for b, a in zip(before[s], self.items[s], strict=True)] for s in seeds]
        return paired_variance(gaps, self.weights)

    def _measured(self, runs: Runs) -> tuple[tuple[int, float, float], ...]:
        """Seed, score of the incumbent and score of the candidate, on each common seed."""
        inc = self.incumbent.runs
        return tuple((seed, inc[seed], score) for seed, score in runs.items() if seed in inc)

    def expected(self, seed: int) -> tuple[float, float]:
        """What the incumbent scores on a seed, and how far a candidate scatters around its gain over that."""
        pairs = self.pairs.predict("", 0.0, self._noise().sigma)
        typical = math.exp(0.5 * math.fsum(w * math.log(v) for v, w in pairs))
        return self.incumbent.runs.get(seed, self.incumbent.mean), typical

    def _unselected(self) -> Runs:
        return dict(list(self.runs.items())[1:])

    def _noise(self) -> Noise:
        """The noise by all that is known, the current runs included."""
        pool = self.pool.with_runs(self.incumbent.runs).with_runs(self.runs)
        return pool.noise(next(iter(self.baseline.values())))

    def _terms(self, noise: Noise) -> SizeTerms:
        return SizeTerms.of(self.complexity, self.options["price"], self.options["margin"], noise.sigma)

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
        return state | {"keeps": [asdict(keep) for keep in self.keeps], "pairs": asdict(self.pairs)}

    def _load(self, state: dict[str, Any]) -> None:
        super()._load(state)
        self.pool = Pool(state["pool"]["ss"], state["pool"]["df"])  # older states hold more
        self.pairs = Pairs(**state.get("pairs", {}))
        self.items = {seed: tuple(parts) for seed, parts in state.get("items", ())}
        self.weights = tuple(state.get("weights", ()))
        self.incumbent = Incumbent.from_dict(state["incumbent"])
        self.keeps = [Kept(**(keep | {"interval": tuple(keep["interval"])})) for keep in state["keeps"]]
