from dataclasses import replace

import pytest

from autoresearch.report.estimates import staircase
from autoresearch.report.summary import summarize
from autoresearch.tracking.experiments import experiment_run
from autoresearch.tracking.runs import search_run
from autoresearch.types import Measurement, Outcome, VerdictKind
from tests.support.searches import ACCURACY_INFO, INFO, Recorded, baseline, by_accuracy, night, tried


def test_the_same_experiment_always_gives_the_same_run() -> None:
    e = tried(3, VerdictKind.KEEP, ("screen", 1.5), ("confirm", 1.6), effect=0.1)
    assert experiment_run(INFO, e, {"t.py": "LR = 0.02\n"}, 0) == experiment_run(
        INFO, e, {"t.py": "LR = 0.02\n"}, 0
    )
    assert [p.value for p in experiment_run(INFO, baseline(1.0), {}, 0).metrics if p.key == "val_bpb"] == [
        1.0
    ]


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    curve = tuple((i / 9999, float(i)) for i in range(10_000))
    e = tried(1, VerdictKind.DISCARD, ("screen", 1.5))
    trial = replace(e.trials[0], result=Measurement(Outcome.OK, 1.5, curve=curve))
    points = [
        p
        for p in experiment_run(INFO, replace(e, trials=(trial,)), {}, 0).metrics
        if p.key == "curve/train_loss"
    ]
    assert len(points) <= 402
    assert (points[0].value, points[-1].value) == (0.0, 9999.0)


def test_a_maximised_metric_is_shown_under_its_own_name() -> None:
    search = by_accuracy(night())
    parent = search_run(summarize(Recorded(search, ACCURACY_INFO)), staircase(search))
    best = [p.value for p in parent.metrics if p.key == "progress/best_val_accuracy"]
    assert best[0] < best[-1] and any(p.key == "progress/tried_val_accuracy" for p in parent.metrics)
    assert "higher is better" in parent.tags["mlflow.note.content"]
    child = experiment_run(ACCURACY_INFO, search[2], {}, 0)
    assert {"val_accuracy", "each_trial/val_accuracy", "effect"} <= {p.key for p in child.metrics}
    assert child.tags["result"].startswith("keep: +0.05")
    assert not [p for p in (*parent.metrics, *child.metrics) if "bpb" in p.key]


def test_a_trial_that_was_lost_is_not_counted_and_hides_no_curve() -> None:
    e = tried(1, VerdictKind.DISCARD, ("screen", 1.5))
    lost = replace(e.trials[0], id=1, result=None)
    points = experiment_run(INFO, replace(e, trials=(lost, *e.trials)), {}, 0).metrics
    assert [p.value for p in points if p.key == "trials"] == [1.0]
    assert [p for p in points if p.key == "curve/train_loss"]


def test_the_run_of_a_search_has_its_answer_in_the_columns_of_its_experiments() -> None:
    summary = summarize(Recorded(night()))
    run = search_run(summary, staircase(night()))
    found = {p.key: p.value for p in run.metrics if p.step == 8}
    assert summary.gain is not None and summary.estimates.baseline is not None
    assert found["effect"] == pytest.approx(summary.gain.absolute)
    assert found["val_bpb"] == pytest.approx(summary.estimates.baseline.mean - summary.gain.absolute)
    assert found["gain_percent"] == pytest.approx(5.59, abs=0.01)
    assert found["trials"] == summary.trials["total"] and found["cost/device_hours"] > 0
    assert not [p for p in search_run(summarize(Recorded([baseline()])), []).metrics if p.key == "effect"]
