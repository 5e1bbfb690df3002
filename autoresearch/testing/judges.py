"""The contract of judges as tests, and simulated searches to run a judge in.

A judge of your own passes the contract if this test class passes::

    from autoresearch.testing.judges import JudgeContract

    class TestMine(JudgeContract):
        def make(self, baseline, tau=0.0):
            return Mine(baseline, tau)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from autoresearch.judge.base import JUDGES, Baseline, Judge
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm, Outcome, Verdict, VerdictKind

SEEDS = range(4)
"""Each contract test runs this many simulated searches."""


def never(number: int, request: TrialRequest) -> bool:
    """No trial fails."""
    return False


@dataclass
class Simulation:
    """Candidates whose true gains are known; a score depends on candidate and seed alone.

    Attributes:
        gains: True gain of candidate 1, 2, ... over its parent, in standard deviations of the noise.
        sigma: The noise, in score units.
        level: Score of the starting point, in standard deviations of the noise.
        seed: Determines all chance.
        shock: Draws the noise of one run, with variance 1.
        failing: Whether a trial of candidate `number` fails.
        growth: Net growth of candidate 1, 2, ...; empty: not announced.
        tip: Number of the incumbent.
        progress: True total gain of each candidate that was begun.
    """

    gains: Sequence[float]
    sigma: float = 1.0
    level: float = 100.0
    seed: int = 0
    shock: Callable[[random.Random], float] = lambda rng: rng.gauss(0, 1)
    failing: Callable[[int, TrialRequest], bool] = never
    growth: Sequence[float] = ()
    tip: int = 0
    progress: dict[int, float] = field(default_factory=lambda: {0: 0.0})

    def baseline(self, count: int = 3) -> list[tuple[int, float]]:
        """Replicates of the starting point."""
        return [(seed, self.score(0, seed)) for seed in range(count)]

    def answer(self, number: int, request: TrialRequest) -> Observation:
        """Runs the requested trial while candidate `number` is judged."""
        if self.failing(number, request):
            return Observation.failed() if request.seed % 2 else Observation.stopped(0.4, loss=7.0)
        return Observation.finished(
            self.score(self.tip if request.arm == Arm.INCUMBENT else number, request.seed)
        )

    def build(self, number: int) -> None:
        """Candidate `number` stands on top of the incumbent of now."""
        self.progress[number] = self.progress[self.tip] + self.gains[number - 1]

    def begin(self, number: int, judge: Judge) -> None:
        """Candidate `number` is proposed on top of the incumbent."""
        self.build(number)
        if self.growth:
            judge.candidate(complexity=self.growth[number - 1])

    def end(self, number: int, verdict: Verdict) -> None:
        """Candidate `number` becomes the incumbent if it is kept."""
        if verdict.kind is VerdictKind.KEEP:
            self.tip = number

    def score(self, number: int, seed: int) -> float:
        """The score of one run of a candidate; 0 is the starting point."""
        luck = self.shock(random.Random(f"{self.seed}/{number}/{seed}"))
        return self.sigma * (self.level - self.progress[number] + luck)


def mixture(seed: int, count: int = 30) -> list[float]:
    """Gains of plausible candidates: some gain, some do nothing, many do harm."""
    rng = random.Random(seed)
    return [rng.choice([3.0, 1.5, 0.0, 0.0, -1.0, -4.0, -8.0]) for _ in range(count)]


def failures(seed: int, share: float) -> Callable[[int, TrialRequest], bool]:
    """Lets this share of the trials fail, the same ones in every run of a simulation."""
    return lambda number, request: (
        random.Random(f"{seed}/{number}/{request.arm}/{request.seed}").random() < share
    )


def judged(judge: Judge, simulation: Simulation, number: int) -> Verdict:
    """The verdict on one candidate, one trial after another."""
    simulation.begin(number, judge)
    while True:
        request = judge.next()
        assert request is not None, "the judge waits, but nothing is under way"
        if (verdict := judge.observe(request, simulation.answer(number, request))) is not None:
            return verdict


def serial(judge: Judge, simulation: Simulation, trials: int = 10**9, reload: bool = False) -> list[Verdict]:
    """Judge all candidates, one trial after another.

    Args:
        judge: Decides.
        simulation: The candidates.
        trials: Give up after this many.
        reload: Write the judge to JSON and read it back after every step.
    """
    verdicts: list[Verdict] = []
    while len(verdicts) < len(simulation.gains):
        number = len(verdicts) + 1
        simulation.begin(number, judge)
        verdict = None
        while verdict is None:
            if trials <= 0:
                return verdicts
            trials -= 1
            request = judge.next()
            assert request is not None, "the judge waits, but nothing is under way"
            judge = Judge.from_json(judge.to_json()) if reload else judge
            verdict = judge.observe(request, simulation.answer(number, request))
            judge = Judge.from_json(judge.to_json()) if reload else judge
        simulation.end(number, verdict)
        verdicts.append(verdict)
    return verdicts


def parallel(judge: Judge, simulation: Simulation, devices: int, rng: random.Random) -> list[Verdict]:
    """Judge all candidates on several devices, whose answers come back in random order, some of them late."""
    verdicts: list[Verdict] = []
    running: list[tuple[TrialRequest, Observation]] = []
    while len(verdicts) < len(simulation.gains):
        number = len(verdicts) + 1
        simulation.begin(number, judge)
        verdict = None
        while verdict is None:
            while len(running) < devices and (request := judge.next()) is not None:
                running.append((request, simulation.answer(number, request)))
            assert running, "the judge waits, but nothing is under way"
            verdict = judge.observe(*running.pop(rng.randrange(len(running))))
        simulation.end(number, verdict)
        verdicts.append(verdict)
    return verdicts


FIRST_CHECK = 1_000_000
"""Least seed of the trainings of a check; no judge asks for so many."""


@dataclass
class Many:
    """A search on several places: candidates in flight, and answers that come back in random order.

    Attributes:
        judge: Decides.
        simulation: The candidates.
        places: How many trials run at the same time.
        conflicts: Share of the candidates in flight that cannot be merged onto a new incumbent.
        reload: Whether the judge is written to JSON and read back after every step.
        hold: Whether a candidate is kept only once it is passed, which may take a while, or fail.
        steps: All that was said to the judge and that it said, in order, to be compared.
    """

    judge: Judge
    simulation: Simulation
    places: int
    conflicts: float = 0.0
    reload: bool = False
    hold: bool = False
    steps: list[tuple[object, ...]] = field(default_factory=list)

    def run(self, rng: random.Random) -> dict[int, Verdict]:
        """The verdict on each candidate that was not withdrawn."""
        simulation, verdicts, begun = self.simulation, dict[int, Verdict](), 0
        in_flight: set[int] = set()
        running: list[tuple[TrialRequest, Observation]] = []
        self.judge.use_places(self.places)
        self.judge.hold_keeps(self.hold)
        while True:
            for number in self.judge.held[:1] if not running or rng.random() < 0.2 else ():
                if rng.random() < 0.3:
                    self._reloaded().withdraw(number)
                    in_flight.remove(number)
                    continue
                if rng.random() < 0.7:
                    self._decided(self._checked(number), in_flight, verdicts)
                self._decided(self._reloaded().passed(number), in_flight, verdicts)
            while len(running) < self.places:
                for number in self.judge.behind:
                    if rng.random() < self.conflicts:
                        self.judge.withdraw(number)
                        in_flight.remove(number)
                    else:
                        simulation.build(number)
                        self.judge.rebased(number)
                if begun < len(simulation.gains) and self.judge.wants_candidate:
                    begun += 1
                    in_flight.add(begun)
                    simulation.build(begun)
                    self.judge.candidate(simulation.growth[begun - 1] if simulation.growth else 0, "", begun)
                if not in_flight or (request := self._reloaded().next()) is None:
                    break
                running.append((request, simulation.answer(request.candidate, request)))
                self.steps.append((request,))
            if not running and self.judge.held:
                continue
            if not running:
                assert not in_flight, "the judge waits, but nothing is under way"
                return verdicts
            request, answer = running.pop(rng.randrange(len(running)))
            self._decided(self._reloaded().digest(request, answer), in_flight, verdicts)
            running = [trial for trial in running if trial[0] in self.judge.unanswered]

    def _checked(self, number: int) -> list[tuple[int, Verdict]]:
        """The check of a held candidate, which has trained it and the incumbent on a new seed."""
        seed = FIRST_CHECK + len(self.steps)
        runs = TrialRequest(Arm.CONFIRM, seed, candidate=number), TrialRequest(Arm.INCUMBENT, seed)
        return self._reloaded().checked(number, seed, *(self.simulation.answer(number, run) for run in runs))

    def _decided(
        self, decided: list[tuple[int, Verdict]], in_flight: set[int], verdicts: dict[int, Verdict]
    ) -> None:
        for number, verdict in decided:
            in_flight.remove(number)
            verdicts[number] = verdict
            self.simulation.end(number, verdict)
            self.steps.append((number, verdict))

    def _reloaded(self) -> Judge:
        if self.reload:
            self.judge = Judge.from_json(self.judge.to_json())
        return self.judge


class JudgeContract:
    """What every judge promises. Subclass it, and implement `make`."""

    def make(self, baseline: Baseline, tau: float = 0.0) -> Judge:
        """A fresh judge."""
        raise NotImplementedError

    @pytest.mark.parametrize("share", [0.0, 0.15])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_order_of_answers_and_number_of_devices_change_nothing(self, seed: int, share: float) -> None:
        def simulation() -> Simulation:
            return Simulation(mixture(seed), seed=seed, failing=failures(seed, share))

        one, many = self.make(simulation().baseline()), self.make(simulation().baseline())
        devices = 2 + seed % 7
        assert parallel(many, simulation(), devices, random.Random(seed)) == serial(one, simulation())
        assert many.report() == one.report()

    @pytest.mark.parametrize("share", [0.0, 0.15])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_a_judge_restored_from_json_decides_the_same(self, seed: int, share: float) -> None:
        growth = [random.Random(seed + i).choice([-40, 0, 60]) for i in range(30)]

        def simulation() -> Simulation:
            return Simulation(mixture(seed), seed=seed, failing=failures(seed, share), growth=growth)

        whole = serial(self.make(simulation().baseline(), tau=0.2), simulation())
        assert serial(self.make(simulation().baseline(), tau=0.2), simulation(), reload=True) == whole

    @pytest.mark.parametrize("seed", SEEDS)
    def test_requests_under_way_and_early_answers_survive_json(self, seed: int) -> None:
        simulation, rng = Simulation([4.0, 3.0, 4.0], seed=seed), random.Random(seed)
        first = self.make(simulation.baseline())
        simulation.begin(1, first)
        running: list[TrialRequest] = []
        for _ in range(1 + seed):
            if (request := first.next()) is not None:
                running.append(request)
            if running and rng.random() < 0.6:
                request = running.pop(rng.randrange(len(running)))
                first.observe(request, simulation.answer(1, request))
        second = Judge.from_json(first.to_json())
        assert second.unanswered == first.unanswered
        rng.shuffle(running)
        for request in running:
            answer = simulation.answer(1, request)
            assert first.observe(request, answer) == second.observe(request, answer)
        for _ in range(10):
            next_request = first.next()
            assert next_request == second.next()
            if next_request is not None:
                answer = Observation.finished(99.0)
                assert first.observe(next_request, answer) == second.observe(next_request, answer)
        assert first.to_json() == second.to_json()

    @pytest.mark.parametrize(("places", "hold"), [(1, True), (2, False), (4, True), (16, False), (16, True)])
    @pytest.mark.parametrize("seed", range(3))
    def test_on_several_places_each_candidate_has_its_verdict(
        self, seed: int, places: int, hold: bool
    ) -> None:
        """However answers arrive, and whatever is merged, withdrawn and restored from JSON in between."""

        def search(reload: bool) -> Many:
            growth = [random.Random(seed + i).choice([-40, 0, 60]) for i in range(30)]
            failing = failures(seed, 0.05)
            simulation = Simulation(mixture(seed), seed=seed, failing=failing, growth=growth)
            judge, conflicts = self.make(simulation.baseline(), 0.2), 0.3 * (seed % 2)
            return Many(judge, simulation, places, conflicts, reload, hold)

        plain, restored = search(False), search(True)
        verdicts = plain.run(random.Random(seed))
        assert restored.run(random.Random(seed)) == verdicts and restored.steps == plain.steps
        assert restored.judge.to_json() == plain.judge.to_json()
        assert len(verdicts) == 30 or ((hold or seed % 2) and len(verdicts) > 20)
        assert plain.judge.report().kept == sum(v.kind is VerdictKind.KEEP for v in verdicts.values())

    @pytest.mark.parametrize("seed", range(4))
    def test_answers_are_read_in_the_order_of_asking(self, seed: int) -> None:
        """The answers to one candidate may arrive in whatever order."""
        said = []
        for order in range(2):
            simulation, rng = Simulation(mixture(seed), seed=seed), random.Random(f"{seed}/{order}")
            judge = self.make(simulation.baseline())
            judge.use_places(4)
            requests = []
            for number in range(1, 9):
                if judge.wants_candidate and number < 4:
                    simulation.build(number)
                    judge.candidate(0, "", number)
                if (request := judge.next()) is not None:
                    requests.append(request)
            rng.shuffle(requests)
            requests.sort(key=lambda request: request.candidate)
            verdicts = []
            for r in requests:
                if r in judge.unanswered:
                    verdicts += judge.digest(r, simulation.answer(r.candidate, r))
            said.append((verdicts, judge.to_json()))
        assert said[0] == said[1]

    @pytest.mark.parametrize("factor", [2.0**-40, 1e-4, 3.7, 2.0**40])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_the_unit_of_the_score_changes_no_decision(self, seed: int, factor: float) -> None:
        plain, scaled = Simulation(mixture(seed), seed=seed), Simulation(mixture(seed), factor, seed=seed)
        a = serial(self.make(plain.baseline(), tau=0.1), plain)
        b = serial(self.make(scaled.baseline(), tau=0.1 * factor), scaled)
        assert [(v.kind, v.trials) for v in a] == [(v.kind, v.trials) for v in b]
        for x, y in zip(a, b, strict=True):
            if x.effect is None:
                assert y.effect is None
            else:
                assert y.effect == pytest.approx(x.effect * factor, rel=1e-6, abs=1e-9 * factor)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_adding_a_constant_to_large_scores_changes_no_decision(self, seed: int) -> None:
        low, high = (Simulation(mixture(seed), seed=seed, level=level) for level in (1000.0, 5000.0))
        a, b = serial(self.make(low.baseline()), low), serial(self.make(high.baseline()), high)
        assert [(v.kind, v.trials) for v in a] == [(v.kind, v.trials) for v in b]

    @pytest.mark.parametrize(
        "observation",
        [
            Observation.failed(),
            Observation.failed(Outcome.INVALID),
            Observation.stopped(0.4, loss=7.0),
            Observation.finished(math.nan),
            Observation.finished(-math.inf),
        ],
    )
    def test_a_candidate_whose_trials_all_fail_is_never_kept(self, observation: Observation) -> None:
        judge = self.make(Simulation([]).baseline())
        for count in range(1, 4):
            verdict = None
            for _ in range(100):
                request = judge.next()
                assert request is not None
                if (verdict := judge.observe(request, observation)) is not None:
                    break
            assert verdict is not None, "failures must not keep a search waiting"
            assert verdict.kind is VerdictKind.DISCARD and verdict.effect is None and verdict.reason
            assert (judge.report().failed, judge.report().kept) == (count, 0)

    def test_a_kept_change_can_be_taken_back(self) -> None:
        simulation = Simulation([9.0, 8.0, -9.0, 9.0], sigma=0.1, seed=3)
        judge = self.make(simulation.baseline())
        kept = 0
        for number in (1, 2):
            verdict = judged(judge, simulation, number)
            simulation.end(number, verdict)
            kept += verdict.kind is VerdictKind.KEEP
        assert kept == judge.report().kept == 2
        under_way = judge.next()
        assert under_way is not None
        judge.step_back(2, dict(simulation.baseline()))
        judge = Judge.from_json(judge.to_json())
        judge.observe(under_way, Observation.finished(1.0))  # no longer counts
        report, simulation.tip = judge.report(), 0
        assert report.kept == 0
        assert report.incumbent.mean == pytest.approx(report.baseline.mean, abs=0.2)
        for number, wanted in ((3, VerdictKind.DISCARD), (4, VerdictKind.KEEP)):
            assert judged(judge, simulation, number).kind is wanted

    @pytest.mark.parametrize("every", [2, 3, 5, 11, 40])
    def test_failures_lose_neither_the_search_nor_its_estimates(self, every: int) -> None:
        count = 0

        def failing(number: int, request: TrialRequest) -> bool:
            nonlocal count
            count += 1
            return count % every == 0

        simulation = Simulation(mixture(every, 20), seed=every, failing=failing)
        judge = self.make(simulation.baseline())
        assert len(serial(judge, simulation, trials=2000)) == 20
        report = judge.report()
        assert report.candidates == 20 and math.isfinite(report.incumbent.mean)

    def test_an_incumbent_that_always_fails_does_not_stop_the_search(self) -> None:
        simulation = Simulation([4.0, 0.0] * 20, failing=lambda number, request: request.arm == Arm.INCUMBENT)
        verdicts = serial(self.make(simulation.baseline()), simulation, trials=1000)
        assert len(verdicts) == 40
        assert any(verdict.kind is VerdictKind.KEEP for verdict in verdicts)

    def test_a_request_is_answered_once_and_only_if_it_was_issued(self) -> None:
        judge = self.make(Simulation([]).baseline())
        request = judge.next()
        assert request is not None
        with pytest.raises(ValueError, match="asked for"):
            judge.observe(TrialRequest(request.arm, request.seed, number=99), Observation.finished(200.0))
        judge.observe(request, Observation.finished(200.0))
        with pytest.raises(ValueError, match="asked for"):
            judge.observe(request, Observation.finished(200.0))

    @pytest.mark.parametrize("baseline", [[(0, 1.0), (0, 1.1)], [(0, 1.0), (1, math.nan)], []])
    def test_a_baseline_that_repeats_a_seed_or_failed_is_refused(self, baseline: Baseline) -> None:
        with pytest.raises(ValueError):
            self.make(baseline)

    @pytest.mark.parametrize("tau", [-0.1, math.nan, math.inf])
    def test_a_sampling_error_out_of_range_is_refused(self, tau: float) -> None:
        with pytest.raises(ValueError, match="tau"):
            self.make([(0, 1.0), (1, 1.1)], tau)

    def test_its_name_finds_its_class(self) -> None:
        """Else a search that was interrupted cannot be resumed in a new process."""
        judge = self.make(Simulation([]).baseline())
        assert JUDGES.load(judge.name) is type(judge)
