"""On kinds of devices whose scores do not compare, a judge compares within a kind."""

import random

import pytest

from autoresearch.judge import Judge, create_judge
from autoresearch.judge.requests import Observation, TrialRequest
from autoresearch.types import Arm, Verdict, VerdictKind

NOISE, FASTER = 0.01, 0.1
"""A faster device scores better by ten standard deviations of one training."""


def search(seed: int, gains: list[float], *, ruled: bool, odd: float = 0.0) -> tuple[Judge, dict, dict]:
    """Judge candidates on four places, of which two belong to a faster device.

    Args:
        seed: Of all chance.
        gains: Of the candidates.
        ruled: Whether the judge is told of the devices.
        odd: What a kept change gains on the faster device more than on the other.
    """
    chance, level, kept = random.Random(seed), 1.0, 0
    judge = create_judge("default", [(i, level + chance.gauss(0, NOISE)) for i in range(3)])
    judge.use_places(4)
    free = ["", "", "fast", "fast"]
    running: list[tuple[str, TrialRequest, float]] = []
    verdicts: dict[int, Verdict] = {}
    ran: dict[int, set[str]] = {}
    begun, order = 0, list[str]()

    def start() -> bool:
        nonlocal begun
        for device in chance.sample(free, len(free)):
            if ruled:
                judge.use_device(device)
            if judge.wants_candidate and begun < len(gains):
                begun += 1
                judge.candidate(number=begun)
            request = judge.next() if judge.in_flight else None
            if request is not None:
                free.remove(device)
                score = level - FASTER * (device == "fast") + chance.gauss(0, NOISE)
                score -= kept * odd * (device == "fast")
                score -= 0.0 if request.arm is Arm.INCUMBENT else gains[request.candidate - 1]
                running.append((device, request, score))
                return True
        return False

    while True:
        while start():
            pass
        if not running:
            break
        device, request, score = running.pop(chance.randrange(len(running)))
        free.append(device)
        ran.setdefault(request.seed, set()).add(device)
        for number, verdict in judge.digest(request, Observation.finished(score)):
            verdicts[number] = verdict
            if verdict.kind is VerdictKind.KEEP:
                level, kept = level - gains[number - 1], kept + 1
                order.append(str(number))
        for number in judge.behind:
            judge.rebased(number)
        judge = Judge.from_json(judge.to_json())
        running = [run for run in running if run[1] in judge.unanswered]
        free = sorted(["", "", "fast", "fast"], key=str)
        for where, _, _ in running:
            free.remove(where)
    return judge, verdicts, ran


def kept(verdicts: dict[int, Verdict]) -> list[int]:
    return sorted(n for n, v in verdicts.items() if v.kind is VerdictKind.KEEP)


@pytest.mark.parametrize("seed", range(3))
def test_a_faster_device_makes_no_false_keep(seed: int) -> None:
    gains = [0.0] * 40
    gains[9] = gains[29] = 0.06
    _, verdicts, ran = search(seed, gains, ruled=True)
    assert kept(verdicts) == [10, 30] and len(verdicts) == 40
    assert all(len(devices) == 1 for devices in ran.values()), "each seed belongs to one kind"
    assert verdicts[10].effect == pytest.approx(0.06, abs=0.03)
    assert {seen for devices in ran.values() for seen in devices} == {"", "fast"}


def test_without_the_rule_it_does() -> None:
    false = [n for seed in range(3) for n in kept(search(seed, [0.0] * 40, ruled=False)[1])]
    assert false


@pytest.mark.parametrize("seed", range(3))
def test_a_change_that_gains_more_on_one_device_makes_no_later_false_keep(seed: int) -> None:
    """The incumbent's level is taken on each kind anew; it does not follow from the start's."""
    gains = [0.0] * 40
    gains[0] = 0.06
    _, verdicts, _ = search(seed, gains, ruled=True, odd=0.05)
    assert kept(verdicts) == [1]


def test_other_judges_use_the_first_kind_only() -> None:
    judge = create_judge("greedy", [(0, 1.0)])
    assert judge.use_device("") and not judge.use_device("fast")


def test_a_request_that_cannot_be_run_is_asked_anew() -> None:
    judge = create_judge("default", [(0, 1.0), (1, 1.01), (2, 0.99)])
    judge.use_places(2)
    judge.use_device("")
    judge.candidate(number=1)
    first = judge.next()
    assert first is not None
    judge.forget(first)
    judge.forget(first)
    again = judge.next()
    assert again is not None and again.number > first.number and again.candidate == first.candidate
    with pytest.raises(ValueError, match="not asked for"):
        judge.digest(first, Observation.finished(1.0))
