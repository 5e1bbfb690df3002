"""On several places a judge keeps every place busy, and nothing that never ran on top of the incumbent."""

import random

import pytest

from autoresearch.judge import Judge, create_judge
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.testing.judges import Many, Simulation, mixture
from autoresearch.types import Arm, Verdict, VerdictKind


def begun(places: int, candidates: int) -> tuple[Judge, Simulation, list]:
    """A judge with up to so many candidates, and its first requests, one for each place."""
    simulation = Simulation([6.0] * candidates, seed=5)
    judge = create_judge("default", simulation.baseline())
    judge.use_places(places)
    requests = []
    while len(requests) < places and None not in requests:
        if len(judge.in_flight) < candidates and judge.wants_candidate:
            simulation.build(number := len(judge.in_flight) + 1)
            judge.candidate(number=number)
        requests.append(judge.next())
    return judge, simulation, requests


@pytest.mark.parametrize("places", [2, 4, 16])
def test_no_place_waits_while_there_are_candidates(places):
    _, _, requests = begun(places, places + 2)
    assert None not in requests
    screened = [request.candidate for request in requests if request.arm is Arm.SCREEN]
    assert len(screened) == len(set(screened)) >= places / 2


def test_without_further_candidates_places_confirm_ahead_and_then_wait():
    judge, simulation, requests = begun(4, 1)
    (screen,) = (request for request in requests if request is not None and request.arm is Arm.SCREEN)
    for request in requests:
        if request is not None and request.arm is Arm.INCUMBENT:
            judge.digest(request, simulation.answer(0, request))
    assert judge.digest(screen, simulation.answer(1, screen)) == []
    asked = []
    while (request := judge.next()) is not None:
        asked.append(request)
    assert [request.candidate for request in asked if request.arm is Arm.CONFIRM] == [1, 1]
    assert judge.wants_candidate


@pytest.mark.parametrize("seed", range(3))
def test_a_keep_needs_a_run_on_top_of_the_incumbent_of_now(seed):
    """Also if the candidate looked good on top of the incumbent before."""
    simulation = Simulation([3.0 if gain > 0 else gain for gain in mixture(seed, 60)], seed=seed)
    search = Many(create_judge("default", simulation.baseline()), simulation, 8)
    verdicts = search.run(random.Random(seed))
    kept = [n for n, v in verdicts.items() if v.kind is VerdictKind.KEEP]
    assert len(kept) >= 4
    since: set[int] = set()
    for step in search.steps:
        if len(step) == 1:
            since.add(step[0].candidate)
        elif step[1].kind is VerdictKind.KEEP:
            assert step[0] in since
            since = set()
    total = sum(simulation.gains[number - 1] for number in kept)
    assert search.judge.report().baseline.mean - search.judge.report().incumbent.mean == pytest.approx(
        total, abs=2.5
    )


def test_a_candidate_is_not_asked_about_until_it_stands_on_the_new_incumbent():
    judge, simulation, requests = begun(4, 3)
    running, kept = [r for r in requests if r is not None], None
    while kept is None:
        while len(running) < 4 and (request := judge.next()) is not None:
            running.append(request)
        request = running.pop(0)
        for number, verdict in judge.digest(request, simulation.answer(request.candidate, request)):
            if verdict.kind is VerdictKind.KEEP:
                kept = number
        running = [r for r in running if r in judge.unanswered]
    assert not any(request.arm is Arm.INCUMBENT for request in judge.unanswered)
    assert judge.behind
    asked = []
    while (request := judge.next()) is not None:
        asked.append(request)
    assert not {request.candidate for request in asked} & set(judge.behind)
    for number in judge.behind:
        judge.rebased(number)
    assert judge.behind == ()


def pair_of_gains(together: float) -> tuple[dict[int, Verdict], dict[int, int]]:
    """Verdicts on two candidates that gain 0.040 and 0.038 alone, and `together` in all.

    Returns:
        The verdicts, and how many runs each had on top of the other.
    """
    alone, kept, under_way, on_top = {1: 0.040, 2: 0.038}, [], [], {1: 0, 2: 0}
    verdicts: dict[int, Verdict] = {}
    draw = random.Random(0)
    judge = create_judge("default", [(seed, 1 + draw.gauss(0, 0.002)) for seed in range(3)])
    judge.use_places(4)
    for number in alone:
        judge.candidate(number=number)
    for _ in range(60):
        for number in judge.behind:
            judge.rebased(number)
        while len(under_way) < (1 if kept else 4) and (request := judge.next()) is not None:
            gain = alone[kept[-1]] if kept else 0.0
            if request.arm is not Arm.INCUMBENT:
                on_top[request.candidate] += bool(kept)
                gain = together if kept else alone[request.candidate]
            score = 1 - gain + random.Random(request.seed).gauss(0, 0.002) + draw.gauss(0, 0.0005)
            under_way.append((request, Observation.finished(score)))
        if not under_way:
            break
        for number, verdict in judge.digest(*under_way.pop(0)):
            kept += [number] if verdict.kind is VerdictKind.KEEP else []
            verdicts[number] = verdict
        under_way = [trial for trial in under_way if trial[0] in judge.unanswered]
    assert not judge.in_flight
    return verdicts, on_top


def test_of_two_alternatives_in_flight_one_is_kept():
    """Each gains alone, and both together gain no more: the runs before the keep say nothing then."""
    verdicts, _ = pair_of_gains(0.040)
    assert [verdicts[n].kind for n in (1, 2)] == [VerdictKind.KEEP, VerdictKind.DISCARD]
    assert verdicts[2].reason.startswith("on top of what was kept since: its gain is probably lost there")


def test_gains_that_add_up_are_both_kept_and_the_second_needs_one_run_on_top_of_the_first():
    verdicts, on_top = pair_of_gains(0.078)
    assert [verdicts[n].kind for n in (1, 2)] == [VerdictKind.KEEP] * 2
    assert on_top[2] == 1


@pytest.mark.parametrize(("places", "together"), [(4, 1), (16, 2)])
def test_on_many_places_a_candidate_is_confirmed_by_two_runs_at_a_time(places, together):
    """Beside them the incumbent runs, so that the candidate need not wait for that afterwards."""
    judge, simulation, requests = begun(places, 3 * places)
    confirmed: dict[int, int] = {}
    replicates = 0
    for request in requests:
        for number, _ in judge.digest(request, simulation.answer(request.candidate, request)):
            assert number
    for _ in range(places):
        request = judge.next()
        if request is not None and request.arm is Arm.CONFIRM:
            confirmed[request.candidate] = confirmed.get(request.candidate, 0) + 1
        replicates += request is not None and request.arm is Arm.INCUMBENT
    assert max(confirmed.values()) == together
    assert replicates >= 1


def test_a_candidate_in_the_state_of_an_older_version_goes_on():
    """It does not say how many changes were kept since the first run."""
    simulation = Simulation([3.0 if gain > 0 else gain for gain in mixture(1, 40)], seed=1)
    search = Many(create_judge("default", simulation.baseline()), simulation, 8)
    taken: list[dict] = []
    digest = Judge.digest

    def forgetful(self, request, observation):
        for c in self.active.values():
            taken.extend([{}] * (c.moves > 0))
            c.moves = 0
        return digest(self, request, observation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Judge, "digest", forgetful)
        verdicts = search.run(random.Random(1))
    assert taken and sum(v.kind is VerdictKind.KEEP for v in verdicts.values()) >= 3


def test_a_trial_that_hangs_holds_up_no_other_candidate():
    judge, simulation, requests = begun(4, 3)
    running = [r for r in requests if r is not None]
    hanging = next(r for r in running if r.candidate == 1)
    running.remove(hanging)
    verdicts: dict[int, Verdict] = {}
    while len(verdicts) < 2:
        for number in judge.behind:
            judge.rebased(number)
        while len(running) < 3 and (request := judge.next()) is not None:
            running.append(request)
        request = running.pop(0)
        verdicts |= dict(judge.digest(request, simulation.answer(request.candidate, request)))
        running = [r for r in running if r in judge.unanswered]
    assert set(verdicts) == {2, 3} and hanging in judge.unanswered


def test_a_keep_that_is_held_keeps_no_place_waiting_and_nothing_else_is_decided_about_it():
    judge, simulation, requests = begun(4, 6)
    judge.hold_keeps(True)
    running = [r for r in requests if r is not None]
    number = 6
    while not judge.held:
        while len(running) < 4 and (request := judge.next()) is not None:
            running.append(request)
        request = running.pop(0)
        assert judge.digest(request, simulation.answer(request.candidate, request)) == []
    [held] = judge.held
    for _ in range(12):
        if judge.wants_candidate:
            number += 1
            simulation.gains = [*simulation.gains, -6.0]
            simulation.build(number)
            judge.candidate(number=number)
        while len(running) < 4 and (request := judge.next()) is not None:
            assert request.candidate != held
            running.append(request)
        assert len(running) == 4
        request = running.pop(0)
        assert held not in dict(judge.digest(request, simulation.answer(request.candidate, request)))
    assert held in judge.held and judge.behind == ()
    judge = Judge.from_json(judge.to_json())
    requests = TrialRequest(Arm.CONFIRM, 999, candidate=held), TrialRequest(Arm.INCUMBENT, 999)
    assert judge.checked(held, 999, *(simulation.answer(held, request) for request in requests)) == []
    [(decided, verdict)] = judge.passed(held)
    assert decided == held and verdict.kind is VerdictKind.KEEP and judge.behind
    assert 999 in [seed for seed, *_ in verdict.pairs] and verdict.trials == 3
    assert judge.held == ()
