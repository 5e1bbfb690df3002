"""A tip without any gain that fails on its unlucky seeds must not be claimed by its lucky ones."""

from __future__ import annotations

import random
from statistics import NormalDist

import pytest

from autoresearch.judge.default import Default
from autoresearch.judge.finished.claim import claim
from autoresearch.judge.requests import Observation
from autoresearch.types import Arm, VerdictKind

CLAIMS, SEEDS = 400, 8


@pytest.mark.parametrize(("share", "before"), [(0.31, 0.08), (0.50, 0.20), (0.69, 0.30)])
def test_failures_that_are_left_out_make_claims_and_a_claim_of_all_trainings_does_not(
    share: float, before: float
) -> None:
    chance, worst = random.Random(1), NormalDist().inv_cdf(1 - share)
    left_out = needed = 0
    for _ in range(CLAIMS):
        start = {seed: chance.gauss(0, 1) for seed in range(SEEDS)}
        tip = {seed: chance.gauss(0, 1) for seed in range(SEEDS, 2 * SEEDS)}
        finished = {seed: score for seed, score in tip.items() if score < worst}
        if len(finished) >= 2 and claim(start, finished).interval[0] > 0:
            left_out += 1
            needed += len(finished) == SEEDS
    assert left_out / CLAIMS > before, "the fault is gone from the simulation"
    assert needed / CLAIMS <= 0.025


def test_failed_re_runs_count_as_the_worst_score_in_the_estimate_of_the_incumbent() -> None:
    judge = Default([(0, 10.0), (1, 10.1), (2, 9.9)], heartbeat=2)
    verdict = None
    while verdict is None:
        request = judge.next()
        assert request is not None
        luck = 0.1 * random.Random(request.seed).gauss(0, 1)
        score = 10.0 + luck if request.arm is Arm.INCUMBENT else 9.0 + luck
        verdict = judge.observe(request, Observation.finished(score))
    assert verdict.kind is VerdictKind.KEEP
    level = judge.report().incumbent.mean
    failures = 0
    for _ in range(40):
        request = judge.next()
        assert request is not None
        if request.arm is Arm.INCUMBENT:
            judge.observe(request, Observation.failed())
            failures += 1
        else:
            judge.observe(request, Observation.finished(12.0))
    now = judge.report().incumbent.mean
    assert failures >= 2 and level < 9.2 and level + 0.1 < now < 10.2
