"""Screen, confirm, refresh: what the judges share that know the noise.

One run screens a candidate. Only promising ones get more runs, until they are stopped or their evidence is
enough; how much is enough, the subclass says. The incumbent is run again on fresh seeds, so that it has at
least as many runs as the candidate. Nothing is kept on its screening run: at least two further runs stand
behind every keep, and a control run of the incumbent beside them (see `incumbent`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace

from autoresearch.judge.base import Kept
from autoresearch.judge.noise.spread import Comparison, Noise, Runs
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.judge.sequential.candidates import MERGED_RUNS, Candidate, Earlier, Wait
from autoresearch.judge.sequential.estimates import CHECKED_RUNS, MIN_RUNS, Estimates
from autoresearch.judge.sequential.evidence import (
    Evidence,
    SizeTerms,
    expected_gain,
    log_evidence,
    log_stays,
    shrink,
    simplification,
    surprising,
    why_stop,
)
from autoresearch.judge.sequential.incumbent import Machine
from autoresearch.types import Arm, Verdict, VerdictKind

STAYS, GONE = math.log(20), math.log(0.5)
"""Log odds that a gain remains on top of what was kept since: least for a keep, and least to go on."""


class Sequential(Estimates):
    """Shared by `default` and `strict`; see those for the arguments."""

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

    # Answers

    def checked(
        self, number: int, seed: int, candidate: Observation, incumbent: Observation
    ) -> list[tuple[int, Verdict]]:
        """Take the runs of the caller's check; see `Judge.checked`."""
        c = self.active[number]
        if c.waits_for is not Wait.PASS or candidate.score is None or incumbent.score is None:
            return []
        c.add(seed, candidate.score, self._items(candidate), None)
        c.inspected = c.checked = True
        self.incumbent.runs_since += 1
        return self._with_levels(self._read(TrialRequest(Arm.INCUMBENT, seed), incumbent))

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
        c.add(request.seed, observation.score, self._items(observation), earlier)
        return self._screen(c) if request.arm is Arm.SCREEN else self._decide(c)

    def _incumbent_ran(self, seed: int, observation: Observation) -> None:
        """After a run of the incumbent: has the machine changed?"""
        drifts, score = self.incumbent.drifts, observation.score
        if items := self._items(observation):
            self.incumbent.items[seed] = items
        self.pool = self.incumbent.add(seed, score, self.pool, is_start=not self.keeps)
        if self.incumbent.drifts > drifts:
            self._start_over()
        elif score is not None:
            for c in self.active.values():
                if c.seeds:
                    c.controls = [*c.controls, seed]

    def _items(self, observation: Observation) -> tuple[float, ...]:
        """What documents contribute to a score, if they are those of the baseline."""
        return observation.items if len(observation.items) == len(self.weights) > 1 else ()

    def _screen(self, c: Candidate) -> Verdict | None:
        """After the first run: is the candidate worth a second?"""
        noise = self._noise()
        runs = self._runs(c)
        c.spread = self._sampling(c, runs).error if c.gaps(self.incumbent.items, c.seeds) else 0.0
        view = self._compare(noise, c, runs)
        terms = self._terms(noise, c)
        c.gain_ratio, c.z = expected_gain(self.keeps, noise.sigma) / view.error, view.z
        if why := why_stop(view, 1, math.inf, terms, c.complexity):
            return self._discard(c, view, why)
        self.confirmed += 1
        return None

    def _decide(self, c: Candidate) -> Verdict | None:
        """After a further run: keep, discard, or go on."""
        if c.waits_for is Wait.PASS:
            return None
        runs, noise = self._runs(c), self._noise()
        k = len(runs)
        scale, terms = expected_gain(self.keeps, noise.sigma), self._terms(noise, c)
        view, unselected = self._compare(noise, c, runs), self._compare(noise, c, _but_the_first(runs))
        c.waits_for, c.z = Wait.NOTHING, view.z
        must_pass = self._must_pass(c)
        if k >= (CHECKED_RUNS if must_pass else MIN_RUNS):
            evidence = self._accept(c, view.plus(-terms.price), unselected.plus(-terms.price), scale)
            surprise = evidence and surprising(view.gain, self.keeps, self.incumbent.mean)
            if surprise and not (c.inspected or must_pass):
                c.waits_for = Wait.THOROUGH_RUN
                return None
            if evidence or terms.simplifies(unselected):
                if c.behind or not c.runs:
                    return None  # first it must run on top of the present incumbent
                if c.past:
                    evidence, why = self._on_top(c, noise, view, evidence, terms)
                    if why:
                        here = self._compare(noise, c, self._here(c))
                        return self._discard(c, here, f"on top of what was kept since: {why}")
                    if why is None:
                        return None
                if must_pass:  # first: its runs tell of surprises and of the machine, too
                    c.waits_for = Wait.PASS
                    return None
                if not self._same_machine(c, noise, -terms.price if evidence else terms.margin):
                    return None
                if evidence:
                    if c.past and len(c.runs) >= MERGED_RUNS:  # gains shrink with what was kept meanwhile
                        view = self._compare(noise, c, self._here(c))
                    return self._keep(c, view, evidence, scale)
                return self._keep_simplification(c, unselected, terms, scale)
        if not (why := why_stop(view, k, self.options["limit"], terms, c.complexity)):
            return None
        if terms.price and self._accept(c, view, unselected, scale):
            return self._discard(c, view, f"the gain does not pay for the size it adds ({c.complexity:+g})")
        return self._discard(c, view, f"could not be confirmed: {why}")

    def _must_pass(self, c: Candidate) -> bool:
        """Whether the caller will check a candidate before it is kept."""
        return self.holds and not c.passed

    def _on_top(
        self, c: Candidate, noise: Noise, view: Comparison, evidence: Evidence | None, terms: SizeTerms
    ) -> tuple[Evidence | None, str | None]:
        """Whether a candidate that would be kept does so on top of what was kept since it was begun, too.

        Returns:
            The evidence, with this doubt; and why it is not kept, empty if it is, None if a run must tell.
        """
        k = len(c.runs)
        if evidence is None:  # a simplification
            here = self._compare(noise, c, self._here(c))
            return None, why_stop(here, k, math.inf, terms, c.complexity) if k >= MERGED_RUNS else None
        scale, before = expected_gain(self.keeps, noise.sigma), c.seen_before(self.incumbent.mean)
        found = view, self._compare(noise, c, before), self._compare(noise, c, self._here(c))
        stays = log_stays(c.moves, *(log_evidence(each.z, scale / each.error) for each in found))
        spent = k >= MERGED_RUNS and len(c.seeds) >= self.options["limit"]
        if stays < GONE or (stays < STAYS and spent):
            return evidence, f"its gain is probably lost there, by {k} runs"
        doubt = min(1.0, evidence.doubt + 1 / (1 + math.exp(min(stays, 700.0))))
        return replace(evidence, doubt=doubt), None if stays < STAYS else ""

    def _same_machine(self, c: Candidate, noise: Noise, bonus: float) -> bool:
        """Whether the machine is known to be the same; if not, asks for a control run or starts over."""
        found = self.incumbent.machine(c.controls, self._runs(c), noise, bonus)
        if found is Machine.UNCLEAR:
            c.waits_for = Wait.CONTROL_RUN
        elif found is Machine.CHANGED:
            if not (old := list(self.incumbent.before(c.controls))):
                return True  # on none of the kinds of devices there is anything to compare with
            self.pool = self.incumbent.give_up(old, self.pool, is_start=not self.keeps)
            self._start_over()
        return found is Machine.SAME

    def _start_over(self) -> None:
        """Screen candidates again: it is unknown which of their runs are older than the machine's change."""
        over = [c for c in self.active.values() if c.seeds]
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
        self.pool = self.pool.with_runs(*self.incumbent.by_device(self.incumbent.runs))
        left = len(self.keeps) - keeps
        self.incumbent.step_back(runs, left / len(self.keeps), int(self.options["heartbeat"]))
        self.keeps = self.keeps[:left]

    # Verdicts

    def _keep(self, c: Candidate, view: Comparison, evidence: Evidence, scale: float) -> Verdict:
        k, pairs = len(c.seeds), self._measured(c, self._runs(c))
        gain, interval = shrink(view.gain, view.widened, scale, evidence.doubt)
        surprise = c.inspected and surprising(view.gain, self.keeps, self.incumbent.mean)
        keep = Kept(view.gain, view.widened, gain, interval, k, evidence.doubt, suspicious=surprise)
        bias = view.gain - gain
        self.incumbent.sampling_bias += bias * view.sampling_share
        sampling = view.error**2 * view.sampling_share
        self.incumbent.sampling_variance += sampling * (1 - view.sampling_share)
        self._replace_incumbent(c, c.runs, bias * view.own_share, keep)
        reason = f"kept after {k} runs: gain {gain:.3g}, {evidence.words}"
        if keep.suspicious:
            reason += "; much larger than earlier gains, so one more thorough run confirmed it"
        return Verdict(VerdictKind.KEEP, gain, interval, evidence.value, k, reason, None, len(pairs), pairs)

    def _keep_simplification(
        self, c: Candidate, unselected: Comparison, terms: SizeTerms, scale: float
    ) -> Verdict:
        runs = _but_the_first(self._runs(c))
        k, pairs = len(runs), self._measured(c, runs)
        keep = simplification(unselected, terms, scale, k)
        self.incumbent.sampling_variance += unselected.error**2 * unselected.sampling_share
        bias = unselected.gain - keep.effect
        here = {seed: score for seed, score in c.runs.items() if seed in runs}
        self._replace_incumbent(c, here, bias * unselected.own_share, keep)
        reason = f"kept after {k} runs: a simplification ({c.complexity:+g}), no worse than the margin"
        found = (keep.effect, keep.interval, unselected.z, k, reason, None, len(pairs), pairs)
        return Verdict(VerdictKind.KEEP, *found)

    def _discard(self, c: Candidate, view: Comparison, why: str) -> Verdict:
        k, pairs = len(c.seeds), self._measured(c, self._runs(c))
        self._end(c)
        found = (view.gain, view.interval, view.z, k, why, None, len(pairs), pairs)
        return Verdict(VerdictKind.DISCARD, *found)

    def _replace_incumbent(self, c: Candidate, runs: Runs, bias: float, keep: Kept) -> None:
        """A candidate takes the incumbent's place; the others go on, on top of it.

        Args:
            c: The candidate.
            runs: Of it, on top of the incumbent before: earlier ones are of another program.
            bias: How much too low each of these is expected to be because of selection.
            keep: What is reported.
        """
        self._learn_pairs(c)
        inc, before = self.incumbent, replace(self.incumbent)
        self.pool = self.pool.with_runs(*inc.by_device(inc.runs))
        inc.replace(runs, c.items, bias * len(runs))
        self.keeps.append(keep)
        self._forget(c)
        self._requests.drop(lambda request: request.arm is Arm.INCUMBENT)
        for other in self.active.values():
            other.move(before)
        for request in self._requests.under_way:
            self.earlier.setdefault(request.number, Earlier.of(before, request.seed))

    def _end(self, c: Candidate) -> None:
        """A candidate is not kept; its runs still tell about the noise."""
        self._learn_pairs(c)
        self.pool = self.pool.with_runs(*self.incumbent.by_device(self._runs(c)))
        self._forget(c)

    def _learn_pairs(self, c: Candidate) -> None:
        """What the runs of a candidate tell about the spread of pairs."""
        runs = self._runs(c)
        gaps = [before - score for _, before, score in self._measured(c, runs)]
        sampling = self._sampling(c, runs)
        self.pairs.add(c.kind, gaps, c.spread, self._noise().sigma, sampling.value)

    def _forget(self, c: Candidate) -> None:
        alone = not self.many
        self.active.pop(c.number, None)
        self._requests.drop(lambda request: alone or request.candidate == c.number)
        under_way = {request.number for request in self._requests.under_way}
        self.earlier = {number: run for number, run in self.earlier.items() if number in under_way}


def _but_the_first(runs: Runs) -> Runs:
    """Without the screening run, which was selected for being good."""
    return dict(list(runs.items())[1:])
