"""A judge sees answers in the order of asking, and whether a trial finished, failed or was stopped."""

import json
import math

import pytest

from autoresearch.judge.requests import Observation, RequestQueue, TrialRequest
from autoresearch.types import Arm, Measurement, Outcome, Provenance


def drain(queue: RequestQueue) -> list[tuple[int, float | None]]:
    out = []
    while (answer := queue.take()) is not None:
        out.append((answer[0].number, answer[1].score))
    return out


def test_early_answers_wait_for_the_older_ones():
    queue = RequestQueue()
    queue.plan([TrialRequest(Arm.SCREEN, 1), TrialRequest(Arm.CONFIRM, 2), TrialRequest(Arm.INCUMBENT, 3)])
    first, second, third = queue.issue(), queue.issue(), queue.issue()
    assert queue.issue() is None and not queue.idle
    queue.answer(third, Observation.finished(0.3))
    queue.answer(second, Observation.failed())
    assert drain(queue) == []
    assert queue.unanswered == (first,)
    queue.answer(first, Observation.finished(0.1))
    assert drain(queue) == [(1, 0.1), (2, None), (3, 0.3)]
    assert queue.idle


def test_what_was_cleared_may_still_answer_once_and_counts_no_more():
    queue = RequestQueue()
    queue.plan([TrialRequest(Arm.CONFIRM, 1), TrialRequest(Arm.CONFIRM, 2), TrialRequest(Arm.CONFIRM, 3)])
    first, second = queue.issue(), queue.issue()
    queue.answer(second, Observation.finished(0.2))
    queue.clear()
    assert queue.idle and queue.unanswered == ()
    queue.plan([TrialRequest(Arm.SCREEN, 1)])
    new = queue.issue()
    queue.answer(first, Observation.finished(0.1))
    queue.answer(new, Observation.finished(0.9))
    assert drain(queue) == [(new.number, 0.9)]
    with pytest.raises(ValueError):
        queue.answer(first, Observation.finished(0.1))


def test_a_want_that_was_never_issued_is_refused():
    queue = RequestQueue()
    queue.plan([TrialRequest(Arm.SCREEN, 1)])
    queue.issue()
    with pytest.raises(ValueError):
        queue.answer(TrialRequest(Arm.SCREEN, 1, number=9), Observation.finished(0.1))


def test_json_keeps_everything():
    queue = RequestQueue()
    queue.plan([TrialRequest(Arm.SCREEN, 1), TrialRequest(Arm.CONFIRM, 2), TrialRequest(Arm.INCUMBENT, 3)])
    first, second = queue.issue(), queue.issue()
    queue.answer(second, Observation.failed())
    again = RequestQueue.from_dict(json.loads(json.dumps(queue.to_dict())))
    assert again.to_dict() == queue.to_dict()
    again.answer(first, Observation.finished(0.5))
    assert drain(again) == [(1, 0.5), (2, None)]
    assert again.issue() == TrialRequest(Arm.INCUMBENT, 3, 3)


def test_answers_of_older_versions_are_scores_or_null():
    data = {"planned": [["confirm", 5], ["confirm", 6, True]], "late": [["confirm", 1, 1]], "issued": 3}
    data |= {"open": [["confirm", 2, 2], ["confirm", 3, 3, False]], "answers": [[2, 0.25], [3, None]]}
    queue = RequestQueue.from_dict(data)
    assert drain(queue) == [(2, 0.25), (3, None)]
    assert queue.issue() == TrialRequest(Arm.CONFIRM, 5, 4)
    assert queue.issue() == TrialRequest(Arm.CONFIRM, 6, 5, thorough=True)


def test_an_observation_has_a_score_if_the_trial_finished_and_only_then():
    assert Observation.finished(math.nan).outcome is Outcome.CRASH
    for score, outcome in [(None, Outcome.OK), (math.inf, Outcome.OK), (1.0, Outcome.PRUNE)]:
        with pytest.raises(ValueError, match="finite score"):
            Observation(score, outcome)


@pytest.mark.parametrize(
    ("measurement", "observation"),
    [
        (Measurement(Outcome.OK, 1.5), Observation.finished(1.5)),
        (Measurement(Outcome.CRASH), Observation.failed()),
        (Measurement(Outcome.INVALID), Observation.failed(Outcome.INVALID)),
        (
            Measurement(Outcome.PRUNE, curve=((0.1, 7.0), (0.4, 6.5)), provenance=Provenance(fraction=0.4)),
            Observation.stopped(0.4, loss=6.5),
        ),
    ],
)
def test_a_measurement_tells_a_judge_whether_it_finished_failed_or_was_stopped(measurement, observation):
    assert Observation.of(measurement) == observation


def test_with_many_candidates_answers_to_each_are_read_in_order_and_after_the_run_beside():
    queue = RequestQueue()
    asked = [(Arm.SCREEN, 1, 1), (Arm.INCUMBENT, 5, 0), (Arm.CONFIRM, 5, 2), (Arm.CONFIRM, 1, 2)]
    asked += [(Arm.SCREEN, 2, 3), (Arm.INCUMBENT, 6, 0)]
    queue.plan([TrialRequest(arm, seed, candidate=number) for arm, seed, number in asked])
    requests = [queue.issue() for _ in asked]

    def answered(number: int) -> list[int]:
        queue.answer(requests[number - 1], Observation.finished(0.1))
        found = []
        while (answer := queue.take(many=True)) is not None:
            found.append(answer[0].number)
        return found

    assert answered(5) == [5], "another candidate's trial is not waited for"
    assert answered(4) == answered(3) == answered(6) == []
    assert answered(2) == [2, 3, 4, 6]
    assert answered(1) == [1] and queue.idle
