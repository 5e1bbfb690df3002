"""A machine that changes under a search, and re-runs of the incumbent that fail."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.judge.noise.spread import Pool
from autoresearch.judge.sequential.incumbent import MAX_FAILURES, OUTLIER_Z, Incumbent, lambert_w
from autoresearch.testing.judges import Simulation, serial
from autoresearch.types import VerdictKind

KEEP = VerdictKind.KEEP


class Drifting(Simulation):
    """From some trial on every score is worse by `by`, or better if that is negative."""

    def __init__(self, gains, seed: int, at: int, by: float) -> None:
        super().__init__(gains, seed=seed)
        self.at, self.by, self.count = at, by, 0

    def answer(self, number, want):
        self.count += 1
        score = super().answer(number, want).score
        return Observation.finished(score + self.by if self.count > self.at else score)


def kept(verdicts) -> int:
    return sum(v.kind is KEEP for v in verdicts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "most"),
    [
        (0.0, 0.11),
        (-2.0, 0.38),
        *(
            pytest.param(by, most, marks=pytest.mark.soak)
            for by, most in ((-4.0, 0.3), (2.0, 0.11), (4.0, 0.11))
        ),
    ],
)
def test_a_change_of_the_machine_is_no_gain(by, most):
    """Thirty candidates that do nothing. Held against old runs only, -4 sigma keeps 0.8 of them."""
    false, count = 0, 100
    for seed in range(count):
        lab = Drifting([0.0] * 30, seed, at=5 + random.Random(seed).randrange(40), by=by)
        false += kept(serial(create_judge("default", lab.baseline()), lab))
    assert false / count <= most


def test_a_machine_that_slows_down_is_noticed_and_does_not_end_progress():
    """Every score worsens by 6 sigma; against the old runs no real gain could ever be seen again."""
    gains = [-2.0] * 90 + [3.0, -2.0] * 5
    found = noticed = 0
    for seed in range(10):
        lab = Drifting(gains, seed, at=60, by=6.0)
        judge = create_judge("default", lab.baseline())
        found += kept(serial(judge, lab)[90:])
        noticed += judge.report().drifts == 1
    assert noticed >= 7
    assert found >= 30


@pytest.mark.slow
@pytest.mark.parametrize("searches", [12, pytest.param(50, marks=pytest.mark.soak)])
def test_a_steady_machine_does_not_drift(searches):
    drifts = 0
    for seed in range(searches):
        lab = Simulation([-2.0] * 200, seed=seed)
        judge = create_judge("default", lab.baseline())
        serial(judge, lab)
        drifts += judge.report().drifts
    assert drifts <= 1 + searches // 16


class Fading(Simulation):
    """The first candidate gains 4 sigma in its first runs, and loses 10 in all later ones."""

    count = 0

    def answer(self, number, want):
        first = (self.tip if want.arm == "incumbent" else number) == 1
        self.count += first
        score = super().answer(number, want).score
        return Observation.finished(score + 14 * self.sigma if first and self.count > 5 else score)


def test_a_change_that_loses_later_does_not_move_the_start():
    """Its re-runs look as if the machine had become slower."""
    noticed = hidden = 0
    for seed in range(20):
        lab = Fading([4.0] + [-30.0] * 120, seed=seed)
        judge = create_judge("default", lab.baseline())
        serial(judge, lab)
        report = judge.report()
        noticed += report.drifts > 0
        assert report.baseline.mean < 103, seed
        hidden += lab.tip == 1 and report.incumbent.mean < report.baseline.mean + 5
    assert noticed >= 15 and not hidden


def ask(judge, score: float | None, incumbent: float | None, trials: int = 1):
    """Answer so many wants; gives the arms that were asked for, and the verdicts."""
    arms, verdicts = [], []
    for _ in range(trials):
        want = judge.next()
        arms.append(want.arm)
        answer = incumbent if want.arm == "incumbent" else score
        verdicts.append(
            judge.observe(want, Observation.failed() if answer is None else Observation.finished(answer))
        )
    return arms, verdicts


def test_before_a_keep_the_incumbent_is_run_beside_the_candidate():
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)])
    arms, verdicts = ask(judge, 9.2, 10.0, 4)
    assert arms == ["screen", "confirm", "confirm", "incumbent"]
    assert verdicts[:3] == [None] * 3 and verdicts[3].kind is KEEP and verdicts[3].trials == 3


def test_where_the_machine_cannot_change_scores_it_is_not_looked_for():
    """No run beside a keep, no drift by two runs out of line, and the incumbent again half as often."""
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)], heartbeat=4)
    judge.use_steady_machine()
    arms, verdicts = ask(judge, 9.2, None, 3)
    assert arms == ["screen", "confirm", "confirm"] and verdicts[2].kind is KEEP
    arms, _ = ask(Judge.from_json(judge.to_json()), 12.0, 5.0, 16)
    assert [i for i, arm in enumerate(arms) if arm == "incumbent"] == [5, 14]
    assert not judge.report().drifts


def test_a_candidate_that_was_under_way_when_the_machine_changed_is_judged_afresh():
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)])
    arms, verdicts = ask(judge, 9.2, 9.2, 7)
    assert arms == ["screen", "confirm", "confirm", "incumbent", "incumbent", "incumbent", "screen"]
    report = judge.report()
    assert report.drifts == 1 and report.candidates == 1 and report.kept == 0
    assert report.incumbent.mean == pytest.approx(9.2, abs=0.05)
    assert next(v for v in verdicts if v).kind is not KEEP


def test_an_incumbent_that_fails_from_now_on_does_not_keep_the_search_waiting():
    """A re-run out of line asks for another; should all of those fail, the search must go on without."""
    judge = create_judge("default", [(s, 10.0 + 0.01 * s) for s in range(6)], heartbeat=2)
    ask(judge, 11.0, None, 2)
    arms, _ = ask(judge, 11.0, 20.0)
    assert arms == ["incumbent"] and judge.incumbent.outliers
    arms, _ = ask(judge, 11.0, None, MAX_FAILURES + 2)
    assert arms == ["incumbent"] * MAX_FAILURES + ["screen"] * 2


def test_a_keep_does_not_wait_for_an_incumbent_that_fails():
    judge = create_judge("default", [(0, 10.0), (1, 10.1), (2, 9.9)])
    arms, verdicts = ask(judge, 9.0, None, 3 + MAX_FAILURES)
    assert arms[3:] == ["incumbent"] * MAX_FAILURES and verdicts[-1].kind is KEEP


def test_what_was_survived_on_another_machine_does_not_count():
    incumbent = Incumbent({0: 10.0, 1: 10.1, 2: 9.9}, survived=200)
    pool = Pool(ss=1.0, df=100)
    for seed in (3, 4):
        pool = incumbent.add(seed, 10.0 + 0.1 * OUTLIER_Z * 2, pool)
    assert incumbent.drifts == 1 and incumbent.survived == 0 and list(incumbent.runs) == [3, 4]


def test_a_suspect_that_is_given_up_is_forgotten():
    incumbent = Incumbent({0: 10.0, 1: 10.1, 2: 9.9, 3: 20.0, 4: 9.0}, outliers=[3])
    pool = incumbent.give_up([0, 1, 2, 3], Pool(ss=1.0, df=100))
    assert incumbent.outliers == [] and incumbent.shift < 0
    incumbent.add(5, 9.1, pool)
    assert list(incumbent.runs) == [4, 5] and incumbent.drifts == 1


@given(st.floats(0, 1e12))
def test_the_luck_of_the_unbeaten_is_the_root_it_should_be(a):
    x = lambert_w(a)
    assert x * math.exp(x) == pytest.approx(a, rel=1e-9)


def test_the_starting_point_moves_with_the_machine_but_not_by_chance():
    """Runs that were given up for being out of line are often only that; a clear change is believed."""
    moved = []
    for by in (1.5, 8.0):
        incumbent = Incumbent({0: 10.0, 1: 11.0, 2: 9.0, 3: 10.0 + by, 4: 10.0 + by})
        incumbent.give_up([0, 1, 2], Pool(ss=100.0, df=100))
        moved.append((incumbent.shift, incumbent.shift_variance))
    assert moved[0][0] < 0.1 and 0 < moved[0][1] < 0.2
    assert moved[1] == (pytest.approx(8.0, abs=0.01), pytest.approx(1 / 2 + 1 / 3, rel=0.05))
