import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoresearch.judge import Judge, Observation, create_judge
from autoresearch.report.estimates import Estimator, estimate, staircase, student_quantile
from autoresearch.testing.judges import Simulation
from autoresearch.types import Experiment, State, Trial, Verdict, VerdictKind
from tests.support.searches import ACCURACY, BASE, METRIC, baseline, by_accuracy, night, trials, tried


def test_levels_leave_out_the_run_that_screened_and_count_incumbent_reruns() -> None:
    now = estimate(night())
    assert [s.experiment.number for s in now.incumbents] == [0, 2, 5]
    # Experiment 2: two confirmations, and the re-run that experiment 4 asked for; not the lucky 1.60.
    assert now.incumbents[1].estimate.mean == pytest.approx((1.64 + 1.66 + 1.67) / 3)
    assert now.incumbents[1].estimate.trials == 3
    assert now.gain(METRIC) == pytest.approx(1.70 - 1.605)


def test_noise_is_pooled_within_commits() -> None:
    now = estimate([baseline(1.0, 3.0), tried(1, VerdictKind.KEEP, ("confirm", 5.0), ("confirm", 9.0))])
    assert now.noise == pytest.approx(math.sqrt((2 + 8) / 2))
    assert now.freedom == 2


def test_the_interval_is_students_with_the_pooled_noise() -> None:
    now = estimate(night())
    assert now.noise and now.gain(METRIC) and now.interval(METRIC)
    reach = stats.t.ppf(0.975, now.freedom) * now.noise * math.sqrt(1 / 3 + 1 / 2)
    assert now.interval(METRIC) == pytest.approx((now.gain(METRIC) - reach, now.gain(METRIC) + reach))
    assert student_quantile(0.975, 4) == pytest.approx(stats.t.ppf(0.975, 4))


def test_without_scipy_quantiles_are_close_and_never_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {freedom: stats.t.ppf(0.975, freedom) for freedom in (1, 2, 3, 5, 10, 100)}
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    for freedom, quantile in exact.items():
        assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=0.013 if freedom > 2 else 0.5)
        assert student_quantile(0.975, freedom) > 0.987 * quantile


def test_a_screening_run_is_used_where_there_is_no_other() -> None:
    now = estimate([baseline(2.0), tried(1, VerdictKind.KEEP, ("screen", 1.5))])
    assert now.best and now.best.estimate.mean == 1.5
    assert now.noise is None and now.interval(METRIC) is None


def test_own_trials_belong_to_the_final_commit_though_they_trained_the_draft() -> None:
    kept = tried(1, VerdictKind.KEEP, ("confirm", 1.5))
    draft = trials(1, "d" * 40, [("confirm", 1.7)])
    now = estimate([baseline(2.0), type(kept)(**{**kept.__dict__, "trials": draft})])
    assert now.best and now.best.estimate.mean == 1.7


def test_nothing_is_claimed_without_scores() -> None:
    assert estimate([]).baseline is None
    crashed = estimate([baseline(), tried(1, VerdictKind.CRASH)])
    assert (crashed.baseline, crashed.best, crashed.gain(METRIC), crashed.noise) == (None, None, None, None)
    assert estimate([baseline(1.0, 2.0)]).gain(METRIC) is None


def test_the_staircase_tells_what_was_known_then() -> None:
    moments = staircase(night())
    assert [m.experiment.number for m in moments] == list(range(9))
    best = {m.experiment.number: m.best for m in moments}
    assert best[1] == pytest.approx(1.70)
    assert best[2] == best[3] == pytest.approx(1.65)  # the re-run had not happened yet
    assert best[4] == pytest.approx((1.64 + 1.66 + 1.67) / 3)
    assert (moments[-1].kept, moments[-1].tried, moments[-1].failed) == (2, 8, 3)


def test_the_staircase_ignores_reruns_of_an_incumbent_that_is_no_more() -> None:
    late = tried(2, VerdictKind.DISCARD, ("screen", 1.9), extra=trials(2, BASE, [("incumbent", 9.0)], 600.0))
    moments = staircase([baseline(2.0), tried(1, VerdictKind.KEEP, ("confirm", 1.5)), late])
    assert moments[-1].best == 1.5


scores = st.floats(0.5, 3.0)


@st.composite
def histories(draw: st.DrawFn) -> list[Experiment]:
    """A search of any verdicts, with re-runs of the incumbent of the moment."""
    found = [baseline(*draw(st.lists(scores, min_size=1, max_size=4)))]
    tip = found[0].commit
    for number in range(1, draw(st.integers(0, 12)) + 1):
        kind = draw(st.sampled_from([VerdictKind.KEEP, VerdictKind.DISCARD, VerdictKind.CRASH]))
        own = draw(
            st.lists(st.tuples(st.sampled_from(["screen", "confirm"]), scores), min_size=1, max_size=4)
        )
        extra = trials(number, tip, [("incumbent", s) for s in draw(st.lists(scores, max_size=2))], 500.0)
        found.append(tried(number, kind, *own, parent=tip, extra=extra))
        tip = found[-1].commit if kind is VerdictKind.KEEP else tip
    return found


@given(histories(), st.data())
def test_an_estimator_that_grows_says_what_a_fresh_one_says(
    history: list[Experiment], data: st.DataObject
) -> None:
    estimator = Estimator()
    for length in range(1, len(history) + 1):
        seen = history[:length]
        if data.draw(st.booleans()):  # the last one is still under way, or was touched since
            open_one = replace(seen[-1], state=State.COMMITTED, verdict=None, trials=seen[-1].trials[:1])
            assert estimator.estimate([*seen[:-1], open_one]) == estimate([*seen[:-1], open_one])
        assert estimator.estimate(seen) == estimate(seen)
    assert estimator.estimate(history[:1]) == estimate(history[:1])  # another, shorter history


def seeded(found: Sequence[Trial], seeds: Sequence[int]) -> tuple[Trial, ...]:
    """The same trials with these seeds."""
    return tuple(replace(trial, seed=seed) for trial, seed in zip(found, seeds, strict=True))


def searched(lab: Simulation, judge: Judge) -> list[Experiment]:
    """A search with a real judge, each verdict as it comes out of the journal."""
    first = baseline(*(score for _, score in lab.baseline()))
    found = [replace(first, trials=seeded(first.trials, [seed for seed, _ in lab.baseline()]))]
    for number in range(1, len(lab.gains) + 1):
        tip, verdict, own, extra = found[lab.tip].commit, None, [], []
        seeds: tuple[list[int], list[int]] = ([], [])
        lab.begin(number, judge)
        while verdict is None:
            want = judge.next()
            assert want is not None
            answer = lab.answer(number, want)
            (extra if want.arm == "incumbent" else own).append((want.arm, answer.score))
            (seeds[1] if want.arm == "incumbent" else seeds[0]).append(want.seed)
            verdict = judge.observe(want, answer)
        lab.end(number, verdict)
        told = Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))
        reruns = seeded(trials(number, tip, extra, 500.0), seeds[1])
        done = tried(number, verdict.kind, *own, parent=tip, extra=())
        found.append(replace(done, verdict=told, trials=(*seeded(done.trials, seeds[0]), *reruns)))
    return found


def test_what_is_shown_is_what_the_judge_reckons() -> None:
    """Not the mean of the runs that were selected, and with an interval that knows of the validation set."""
    lab = Simulation([3.0, -2.0, -3.0] * 6, seed=4)
    judge = create_judge("default", lab.baseline(), tau=0.4)
    history = searched(lab, judge)
    now, report = estimate(history), judge.report()
    assert report.kept >= 3 and now.best and now.baseline and now.interval(METRIC) and now.gain(METRIC)
    assert now.noise == report.noise and now.best.experiment.number == lab.tip
    start = [t.score for e in history for t in e.trials if t.commit == BASE and t.score is not None]
    assert now.baseline.trials == len(start) and now.baseline.mean == pytest.approx(sum(start) / len(start))
    assert now.best.estimate.mean == pytest.approx(report.incumbent.mean, abs=report.noise)
    halves = [(e.interval[1] - e.interval[0]) / 2 for e in (report.baseline, report.incumbent) if e.interval]
    assert now.interval(METRIC)[1] - now.gain(METRIC) <= math.hypot(*halves)
    assert now.interval(METRIC)[1] - now.gain(METRIC) > 1.96 * 0.4 * math.sqrt(report.kept)
    assert [m.best for m in staircase(history)][-1] == report.incumbent.mean
    estimator = Estimator()
    assert [estimator.estimate(history[: n + 1]) for n in range(len(history))][-1] == now


def test_runs_from_before_a_change_of_the_machine_are_no_gain() -> None:
    class Faster(Simulation):
        def answer(self, number, want):
            score = super().answer(number, want).score
            return Observation.finished(score - (6.0 if number > 30 else 0.0))

    lab = Faster([3.0, -3.0, -3.0] + [-3.0] * 57, seed=2)
    judge = create_judge("default", lab.baseline())
    now = estimate(searched(lab, judge))
    assert judge.report().drifts == 1 and now.gain(METRIC) is not None and now.interval(METRIC) is not None
    assert abs(now.gain(METRIC) - 3.0) < 2.0 and now.interval(METRIC)[0] < 3.0 < now.interval(METRIC)[1]


def test_a_search_whose_verdicts_do_not_tell_levels_is_estimated_from_its_runs() -> None:
    lab = Simulation([3.0, -2.0] * 3, seed=4)
    history = searched(lab, create_judge("default", lab.baseline()))
    for i, e in enumerate(history[1:], 1):
        assert e.verdict
        old = e.verdict.to_dict()
        del old["levels"]  # as an older version wrote it
        history[i] = replace(e, verdict=Verdict.from_dict(old))
    now = estimate(history)
    assert now.start is None and now.gain(METRIC) is not None and now.interval(METRIC) is not None


def test_a_maximised_metric_rises_and_its_gain_is_positive() -> None:
    lower, higher = estimate(night()), estimate(by_accuracy(night()))
    assert higher.gain(ACCURACY) == pytest.approx(lower.gain(METRIC))
    assert higher.interval(ACCURACY) == pytest.approx(lower.interval(METRIC))
    steps = [found.estimate.mean for found in higher.incumbents]
    assert steps == sorted(steps) and len(steps) == 3
    best = [m.best for m in staircase(by_accuracy(night()))]
    assert best[0] < best[2] < best[-1]
