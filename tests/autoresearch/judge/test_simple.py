"""The judges for comparison: greedy and threshold."""

import pytest

from autoresearch.judge import Observation, create_judge
from autoresearch.testing.judges import Simulation, serial
from autoresearch.types import VerdictKind


def decide(judge, score):
    return judge.observe(judge.next(), Observation.finished(score))


def test_greedy_keeps_any_decrease_and_moves_the_bar_there():
    judge = create_judge("greedy", [(7, 1.0)])
    assert decide(judge, 1.0).kind is VerdictKind.DISCARD
    assert decide(judge, 0.999).kind is VerdictKind.KEEP
    assert decide(judge, 0.9995).kind is VerdictKind.DISCARD
    report = judge.report()
    assert report.incumbent.mean == 0.999 and report.incumbent.interval is None
    assert report.noise is None and report.expected_false_keeps is None
    assert [keep.effect for keep in report.keeps] == [pytest.approx(0.001)]


def test_greedy_uses_one_seed_throughout():
    judge = create_judge("greedy", [(7, 1.0), (9, 1.1)])
    for score in (0.9, 0.8, 1.5):
        want = judge.next()
        assert (want.arm, want.seed) == ("screen", 7)
        judge.observe(want, Observation.finished(score))


def test_threshold_wants_more_than_the_noise():
    judge = create_judge("threshold", [(0, 1.0), (1, 1.1), (2, 1.2)])  # standard deviation 0.1
    assert decide(judge, 0.91).kind is VerdictKind.DISCARD
    assert decide(judge, 0.89).kind is VerdictKind.KEEP
    assert judge.report().noise == pytest.approx(0.1)


def test_threshold_measures_the_noise_itself_if_there_is_one_baseline():
    judge = create_judge("threshold", [(0, 1.0)], sigmas=1.0)
    want = judge.next()
    assert (want.arm, want.seed) == ("incumbent", 1)
    assert judge.observe(want, Observation.finished(1.2)) is None
    assert judge.report().noise == pytest.approx(0.2 / 2**0.5)
    assert decide(judge, 0.97).kind is VerdictKind.DISCARD
    assert decide(judge, 0.95).kind is VerdictKind.KEEP


def test_threshold_goes_on_if_the_baseline_cannot_be_repeated():
    judge = create_judge("threshold", [(0, 1.0)])
    for _ in range(3):
        want = judge.next()
        assert want.arm == "incumbent"
        judge.observe(want, Observation.failed())
    assert decide(judge, 0.99).kind is VerdictKind.KEEP


def test_greedy_cannot_be_believed_and_threshold_only_a_little():
    """The reason for the other judges: keeps in a search where nothing is a gain."""
    counts = {}
    for name in ("greedy", "threshold"):
        lab = Simulation([0.0] * 500, seed=1)
        verdicts = serial(create_judge(name, lab.baseline()), lab)
        counts[name] = sum(v.kind is VerdictKind.KEEP for v in verdicts)
    assert counts["greedy"] >= 3
    assert counts["greedy"] > counts["threshold"]
