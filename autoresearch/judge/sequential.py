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
from dataclasses import asdict, replace
from typing import Any

from autoresearch.judge.base import Baseline, Judge, Kept, Report
from autoresearch.judge.candidates import MOST_IN_FLIGHT, PLANNED_RUNS, Candidate, Earlier, Wait, wanted
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

ONLY_CANDIDATE = ("runs", "items", "spread", "gain_ratio", "inspected", "controls", "waits_for")
"""What the JSON of older versions, which held one candidate, has of it beside its complexity and kind."""

EARLIER_DF, EARLIER_PAIRS = 6, 0.5
"""What an earlier search found counts like so many degrees of freedom, and so much for each of its pairs."""

LEAST_RATIO, MOST_RATIO = 0.005, 5.0
"""Beyond these ratios of the variances, of the baselines and of an earlier search, the noise is another."""


class Sequential(Judge):
    """Shared by `default` and `strict`; see those for the arguments."""

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

    @abstractmethod
    def _accept(
        self, c: Candidate, view: Comparison, unselected: Comparison, scale: float
    ) -> Evidence | None:
        """The evidence if it is enough to keep a candidate, else None.

        Args:
            c: The candidate.
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

    # Candidates in flight

    def use_places(self, places: int) -> None:
        """Hold many candidates in flight if there are several places."""
        self.places = places

    @property
    def many(self) -> bool:
        """Whether candidates are in flight beside each other."""
        return self.places > 1 or len(self.active) > 1

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Numbers of the candidates that were announced and have no verdict."""
        return tuple(self.active)

    @property
    def wants_candidate(self) -> bool:
        """With several places a new one is wanted when the others leave nothing to ask."""
        if not self.active or not self.many:
            return not self.active
        in_reach = len(self.active) < MOST_IN_FLIGHT * self.places
        return in_reach and not self._requests.planned and self._wanted() is None

    @property
    def behind(self) -> tuple[int, ...]:
        """Those that passed the screening, or wait for it, and were made for an incumbent before."""
        asked = {request.candidate for request in self._requests.under_way}
        return tuple(n for n, c in self.active.items() if c.behind and (c.runs or n not in asked))

    def candidate(self, complexity: float = 0.0, kind: str = "", number: int = 0) -> None:
        """Announce a candidate; see `Judge.candidate`."""
        if number and 0 in self.active:  # from a state of an older version, which did not number them
            self.active[number] = replace(self.active.pop(0), number=number)
            self._requests.rename(0, number)
        known = self.active.setdefault(number, Candidate(number))
        known.complexity, known.kind = float(complexity), kind

    def rebased(self, number: int, complexity: float | None = None) -> None:
        """Go on with a candidate on top of the present incumbent."""
        known = self.active[number]
        known.behind = False
        known.complexity = known.complexity if complexity is None else float(complexity)

    def withdraw(self, number: int) -> None:
        """Forget a candidate in flight; its runs still tell about the noise."""
        if number in self.active:
            self._end(self.active[number])

    # Requests

    def next(self) -> TrialRequest | None:
        """The next trial to run, or None if the judge must see answers, or a new candidate, first."""
        if self.many and not self._requests.planned:
            if (request := self._wanted() or self._wanted(PLANNED_RUNS)) is None:
                return None
            seed = request.seed
            if request.arm is Arm.SCREEN:
                seed = self._screening_seed()
            elif seed < 0:
                seed = self._new_seed()
            self._requests.plan([replace(request, seed=seed)])
        return super().next()

    def _wanted(self, ahead: int = 1) -> TrialRequest | None:
        """What to ask of the next free one of several places, with a seed below 0 for one to be chosen."""
        active, under_way = list(self.active.values()), self._requests.under_way
        return wanted(active, self.incumbent, under_way, self.options, self.places, ahead)

    def _screening_seed(self) -> int:
        """The incumbent's seeds in turn."""
        self.screens += 1
        return list(self.incumbent.runs)[self.screens % len(self.incumbent.runs)]

    def _plan(self) -> list[TrialRequest]:
        """At one place: a step for the only candidate."""
        c = next(iter(self.active.values()), None) or Candidate()
        self.number = c.number
        if c.runs:
            return self._confirmation(c)
        if self.incumbent.due(int(self.options["heartbeat"])):
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        n = len(self.incumbent.runs)
        missing = 0 if self.incumbent.failing else max(0, int(self.options["refresh"]) - n)
        requests = [TrialRequest(Arm.INCUMBENT, self._new_seed()) for _ in range(missing)]
        return [*requests, TrialRequest(Arm.SCREEN, self._screening_seed())]

    def _confirmation(self, c: Candidate) -> list[TrialRequest]:
        """The next trials of a screened candidate, on seeds on which the incumbent has run or will."""
        if c.waits_for is Wait.CONTROL_RUN or self.incumbent.outliers:
            return [TrialRequest(Arm.INCUMBENT, self._new_seed())]
        free = [seed for seed in self.incumbent.runs if seed not in c.runs]
        if c.waits_for is Wait.THOROUGH_RUN:
            return [TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed(), thorough=True)]
        requests: list[TrialRequest] = []
        n = len(self.incumbent.runs)
        for k in range(len(c.runs), len(c.runs) + PLANNED_RUNS):
            if n < k + 1 and not self.incumbent.failing:
                free.append(self._new_seed())
                requests.append(TrialRequest(Arm.INCUMBENT, free[-1]))
                n += 1
            requests.append(TrialRequest(Arm.CONFIRM, free.pop() if free else self._new_seed()))
        return requests

    # Answers

    def _read(self, request: TrialRequest, observation: Observation) -> list[tuple[int, Verdict]]:
        if request.arm is not Arm.INCUMBENT:
            verdict = self._take(request, observation)
            return [] if verdict is None else [(request.candidate, verdict)]
        self._incumbent_ran(request.seed, observation)
        decided = []
        for c in list(self.active.values()):
            if c.waits_for is Wait.CONTROL_RUN and (verdict := self._decide(c)) is not None:
                decided.append((c.number, verdict))
        return decided

    def _take(self, request: TrialRequest, observation: Observation) -> Verdict | None:
        earlier = self.earlier.pop(request.number, None)
        c = self.active.setdefault(request.candidate, Candidate(request.candidate))
        self.incumbent.runs_since += 1
        c.inspected |= request.thorough
        if request.arm is Arm.SCREEN:
            self.candidates += 1
            self.incumbent.survived += 1
            c.ordinal = self.candidates
        if observation.score is None:
            self._end(c)
            return self._failed_candidate()
        known = len(observation.items) == len(self.weights) > 1
        c.add(request.seed, observation if known else replace(observation, items=()), earlier)
        return self._screen(c) if request.arm is Arm.SCREEN else self._decide(c)

    def _incumbent_ran(self, seed: int, observation: Observation) -> None:
        """After a run of the incumbent: has the machine changed?"""
        drifts, score = self.incumbent.drifts, observation.score
        if len(observation.items) == len(self.weights) > 1:
            self.incumbent.items[seed] = observation.items
        self.pool = self.incumbent.add(seed, score, self.pool, is_start=not self.keeps)
        if self.incumbent.drifts > drifts:
            self._start_over()
        elif score is not None:
            for c in self.active.values():
                if c.runs:
                    c.controls = [*c.controls, seed]

    def _screen(self, c: Candidate) -> Verdict | None:
        """After the first run: is the candidate worth a second?"""
        noise = self._noise()
        c.spread = self._sampling(c, c.runs).error if c.items else 0.0
        view = self._compare(noise, c, c.runs)
        terms = self._terms(noise, c)
        c.gain_ratio, c.z = expected_gain(self.keeps, noise.sigma) / view.error, view.z
        if why := why_stop(view, 1, math.inf, terms, c.complexity):
            return self._discard(c, view, why)
        self.confirmed += 1
        return None

    def _decide(self, c: Candidate) -> Verdict | None:
        """After a further run: keep, discard, or go on."""
        k, noise = len(c.runs), self._noise()
        scale, terms = expected_gain(self.keeps, noise.sigma), self._terms(noise, c)
        view, unselected = self._compare(noise, c, c.runs), self._compare(noise, c, c.unselected)
        c.waits_for, c.z = Wait.NOTHING, view.z
        if k >= MIN_RUNS:
            evidence = self._accept(c, view.plus(-terms.price), unselected.plus(-terms.price), scale)
            if evidence and not c.inspected and surprising(view.gain, self.keeps, self.incumbent.mean):
                c.waits_for = Wait.THOROUGH_RUN
                return None
            if evidence or terms.simplifies(unselected):
                if c.behind or not c.here:
                    return None  # first it must run on top of the present incumbent
                if not self._same_machine(c, noise, -terms.price if evidence else terms.margin):
                    return None
                if evidence:
                    return self._keep(c, view, evidence, scale)
                return self._keep_simplification(c, unselected, terms, scale)
        if not (why := why_stop(view, k, self.options["limit"], terms, c.complexity)):
            return None
        if terms.price and self._accept(c, view, unselected, scale):
            why = f"the gain does not pay for the size it adds ({c.complexity:+g})"
        return self._discard(c, view, why)

    def _same_machine(self, c: Candidate, noise: Noise, bonus: float) -> bool:
        """Whether the machine is known to be the same; if not, asks for a control run or starts over."""
        found = self.incumbent.machine(c.controls, c.runs, noise, bonus)
        if found is Machine.UNCLEAR:
            c.waits_for = Wait.CONTROL_RUN
        elif found is Machine.CHANGED:
            old = list(self.incumbent.before(c.controls))
            self.pool = self.incumbent.give_up(old, self.pool, is_start=not self.keeps)
            self._start_over()
        return found is Machine.SAME

    def _start_over(self) -> None:
        """Screen candidates again: it is unknown which of their runs are older than the machine's change."""
        over = [c for c in self.active.values() if c.runs]
        numbers, alone = {c.number for c in over}, not self.many
        for c in over:
            self.candidates -= 1
            self.confirmed -= 1
            c.start_over()
        if over:
            self._requests.drop(lambda request: alone or request.candidate in numbers)

    def _restore(self, keeps: int, runs: dict[int, float]) -> None:
        """The incumbent before starts from its runs; it is run again before the next candidate."""
        for c in list(self.active.values()):
            self._end(c)
        self.pool = self.pool.with_runs(self.incumbent.runs)
        left = len(self.keeps) - keeps
        self.incumbent.step_back(runs, left / len(self.keeps), int(self.options["heartbeat"]))
        self.keeps = self.keeps[:left]

    # Verdicts

    def _keep(self, c: Candidate, view: Comparison, evidence: Evidence, scale: float) -> Verdict:
        k, pairs = len(c.runs), self._measured(c, c.runs)
        gain, interval = shrink(view.gain, view.widened, scale, evidence.doubt)
        keep = Kept(view.gain, view.widened, gain, interval, k, evidence.doubt, suspicious=c.inspected)
        bias = view.gain - gain
        self.incumbent.sampling_bias += bias * view.sampling_share
        sampling = view.error**2 * view.sampling_share
        self.incumbent.sampling_variance += sampling * (1 - view.sampling_share)
        self._replace_incumbent(c, c.runs, bias * view.own_share * k, keep)
        reason = f"kept after {k} runs: gain {gain:.3g}, {evidence.words}"
        if keep.suspicious:
            reason += "; much larger than earlier gains, so one more thorough run confirmed it"
        return Verdict(VerdictKind.KEEP, gain, interval, evidence.value, k, reason, None, len(pairs), pairs)

    def _keep_simplification(
        self, c: Candidate, unselected: Comparison, terms: SizeTerms, scale: float
    ) -> Verdict:
        k, pairs = len(c.runs) - 1, self._measured(c, c.unselected)
        keep = simplification(unselected, terms, scale, k)
        self.incumbent.sampling_variance += unselected.error**2 * unselected.sampling_share
        bias = unselected.gain - keep.effect
        self._replace_incumbent(c, c.unselected, bias * unselected.own_share * k, keep)
        reason = f"kept after {k} runs: a simplification ({c.complexity:+g}), no worse than the margin"
        found = (keep.effect, keep.interval, unselected.z, k, reason, None, len(pairs), pairs)
        return Verdict(VerdictKind.KEEP, *found)

    def _discard(self, c: Candidate, view: Comparison, why: str) -> Verdict:
        k, pairs = len(c.runs), self._measured(c, c.runs)
        self._end(c)
        found = (view.gain, view.interval, view.z, k, why, None, len(pairs), pairs)
        return Verdict(VerdictKind.DISCARD, *found)

    def _replace_incumbent(self, c: Candidate, runs: Runs, selection_bias: float, keep: Kept) -> None:
        """These runs of a candidate become the incumbent's; the others go on, on top of it."""
        self._learn_pairs(c)
        inc, before = self.incumbent, replace(self.incumbent)
        self.pool = self.pool.with_runs(inc.runs)
        inc.replace(runs, {s: x for s, x in c.items.items() if s not in c.beside}, selection_bias)
        self.keeps.append(keep)
        self._forget(c)
        self._requests.drop(lambda request: request.arm is Arm.INCUMBENT)
        shift = inc.mean - before.mean
        for other in self.active.values():
            other.move(before, shift)
        for request in self._requests.under_way:
            earlier = self.earlier.get(request.number) or Earlier.of(request.seed, before)
            self.earlier[request.number] = earlier.moved(shift)

    def _end(self, c: Candidate) -> None:
        """A candidate is not kept; its runs still tell about the noise."""
        self._learn_pairs(c)
        self.pool = self.pool.with_runs(c.runs)
        self._forget(c)

    def _learn_pairs(self, c: Candidate) -> None:
        """What the runs of a candidate tell about the spread of pairs."""
        inc = self.incumbent.runs | c.beside
        gaps = [inc[seed] - score for seed, score in c.runs.items() if seed in inc]
        sampling = self._sampling(c, c.runs)
        self.pairs.add(c.kind, gaps, c.spread, self._noise().sigma, sampling.value)

    def _forget(self, c: Candidate) -> None:
        alone = not self.many
        self.active.pop(c.number, None)
        self._requests.drop(lambda request: alone or request.candidate == c.number)
        under_way = {request.number for request in self._requests.under_way}
        self.earlier = {number: run for number, run in self.earlier.items() if number in under_way}

    # Estimates

    def _compare(self, noise: Noise, c: Candidate, runs: Runs) -> Comparison:
        inc, sampling = self.incumbent, self._sampling(c, runs)
        return compare(
            noise,
            inc.runs | {seed: score for seed, score in c.beside.items() if seed in runs},
            runs,
            pairs=self.pairs.predict(c.kind, c.spread, noise.sigma),
            tau=sampling.error,
            tau_df=sampling.df,
            selection_bias=inc.selection_bias,
        )

    def _sampling(self, c: Candidate, runs: Runs) -> Variance:
        """What the choice of documents adds to the difference of these runs of a candidate and the incumbent.

        It follows from the contributions of documents on the common seeds. Where those are not known, it is
        `tau` as given.
        """
        before = self.incumbent.items | c.beside_items
        seeds = [seed for seed in runs if seed in c.items and before.get(seed)]
        if not seeds:
            return Variance(self.tau**2, math.inf)
        gaps = [[b - a for b, a in zip(before[s], c.items[s], strict=True)] for s in seeds]
        return paired_variance(gaps, self.weights)

    def _measured(self, c: Candidate, runs: Runs) -> tuple[tuple[int, float, float], ...]:
        """Seed, score of the incumbent and score of the candidate, on each common seed."""
        inc = self.incumbent.runs | c.beside
        return tuple((seed, inc[seed], score) for seed, score in runs.items() if seed in inc)

    def expected(self, seed: int) -> tuple[float, float]:
        """What the incumbent scores on a seed, and how far a candidate scatters around its gain over that."""
        pairs = self.pairs.predict("", 0.0, self._noise().sigma)
        typical = math.exp(0.5 * math.fsum(w * math.log(v) for v, w in pairs))
        return self.incumbent.runs.get(seed, self.incumbent.mean), typical

    def _noise(self) -> Noise:
        """The noise by all that is known, runs of candidates in flight included."""
        pool = self.pool.with_runs(self.incumbent.runs)
        for c in self.active.values():
            pool = pool.with_runs(c.runs)
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
        return state | {"keeps": [asdict(keep) for keep in self.keeps], "pairs": asdict(self.pairs)}

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
            own = {"complexity": self.complexity, "kind": self.kind, "here": len(only["runs"])}
            active = [Candidate.from_dict({**own, "ordinal": self.candidates, **only})]
        self.active = {c.number: c for c in active}
        earlier = ((n, {**values, "items": tuple(values["items"])}) for n, values in state.get("earlier", ()))
        self.earlier = {number: Earlier(**values) for number, values in earlier}
