"""What models gain for what they cost is compared with controls; nothing is claimed without evidence."""

from dataclasses import replace

import pytest

from autoresearch.report.sections.worth import comparisons
from autoresearch.types import Cost, Direction, Metric
from tests.support.histories import experiment

METRIC = Metric("val_bpb", "bits per byte", Direction.MINIMIZE)


def tried(first, count, keeps, *, effect=0.01, kind="", params=None, dollars=0.0):
    made = []
    for number in range(first, first + count):
        kept = number - first < keeps
        more = {"params": params, "cost": Cost(dollars=dollars)}
        effect_now, verdict = (effect, "keep") if kept else (-0.01, "discard")
        done = experiment(number, verdict, effect=effect_now, scores=(1.7,), **more)
        done = replace(done, proposal=replace(done.proposal, kind=kind))
        made.append(
            replace(done, trials=tuple(replace(t, started=0.0, finished=1800.0) for t in done.trials))
        )
    return made


def test_models_that_gain_more_than_they_cost_are_told_so():
    past = [
        *tried(1, 30, 20, kind="new", dollars=0.5),
        *tried(40, 30, 3, params={"LR": 0.1}),
        *tried(80, 10, 1, kind="independent", dollars=0.5),
    ]
    models, history = comparisons(past, 2.0)
    assert models.counts == (30, 30) and models.rates[0] == pytest.approx(20 * 0.01 / (30 * 1.5))
    assert 0 < models.interval[0] < models.rates[0] - models.rates[1] < models.interval[1]
    assert "Models gained 0.0044 bits per byte per dollar in 30 experiments" in models.sentence(METRIC)
    assert "so this is established" in models.sentence(METRIC)
    assert history.counts == (30, 10) and comparisons(past, 2.0) == [models, history]


def test_dear_models_and_few_experiments_establish_nothing():
    dear = [*tried(1, 10, 3, kind="new", dollars=9.0), *tried(40, 10, 3, params={"LR": 0.1})]
    (models,) = comparisons(dear, 2.0)
    assert models.rates[0] < models.rates[1] and models.interval[0] < 0
    even = [*tried(1, 6, 1, kind="new"), *tried(40, 6, 1, params={"LR": 0.1})]
    assert "so this is not established" in comparisons(even, 2.0)[0].sentence(METRIC)
    assert comparisons(even[:8], 2.0) == [] == comparisons([], 2.0)
