"""A search learns from its finished runs which first runs are hopeless, and stops those alone."""

from random import Random

import pytest

from autoresearch.report.sections.stopping import stopping
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.types import (
    Arm,
    Category,
    Edit,
    Measurement,
    Outcome,
    Proposal,
    Verdict,
    VerdictKind,
)
from tests.support.stub import PATH, make_repository, make_search, measurer

PAST = 14
IDEAS = [*["OTHER = 1"] * PAST, "OTHER = 2\nSLOW = 0.9", "OTHER = 3\nGAIN = 0.3"]


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repo")


def with_past(repository: Repository, *overrides: str) -> Search:
    """A search that has screened candidates whose score went with the gap between the losses."""
    search = make_search(repository, [], "experiments=0")
    search.run()
    journal, base = search.journal, search.journal.info().base_commit
    start = journal.experiment(0).trials
    draw = Random(1)
    sources = search.state.sources(base)
    for number in range(PAST):
        edit = Edit(PATH, "OTHER = 0", f"OTHER = {100 + number}")
        experiment = journal.add(Proposal(f"past {number}", Category.OTHER, (edit,), "x"), base)
        changed = {PATH: sources[PATH].replace("OTHER = 0", f"OTHER = {100 + number}")}
        commit = repository.commit(base, changed, f"past {number}", 1.0)
        journal.committed(experiment.number, commit, "")
        gap, beside = draw.uniform(-0.2, 1.0), start[number % 3]
        assert beside.result and beside.score is not None
        curve = tuple((at, loss + gap) for at, loss in beside.result.curve)
        score = beside.score + 0.1 * gap + draw.gauss(0, 0.001)
        trial = journal.start_trial(experiment.number, Arm.SCREEN, beside.seed, commit)
        result = Measurement(Outcome.OK, score, curve=curve)
        verdict = Verdict(VerdictKind.DISCARD, -0.1 * gap, trials=1)
        journal.finish_trial(trial, result, None, {experiment.number: verdict})
        journal.recorded(experiment.number, commit)
    journal.close()
    return make_search(repository, IDEAS, f"experiments={PAST + 2}", *overrides)


def test_a_hopeless_first_run_is_stopped_and_no_other(repository, monkeypatch):
    monkeypatch.setattr("autoresearch.search.trials.SPARED", 0.0)
    search = with_past(repository)
    search.run()
    hopeless, good = search.journal.experiments()[-2:]
    [trial] = hopeless.trials
    assert trial.result.outcome is Outcome.PRUNE and trial.result.metrics["stop_share"] == pytest.approx(0.2)
    assert hopeless.verdict.kind is VerdictKind.PRUNE and "20%" in hopeless.verdict.reason
    assert good.kept and all(t.result.outcome is Outcome.OK for t in good.trials)
    found = stopping(search.journal.experiments())
    assert (found.stopped, found.spared, found.gains_lost) == (1, 0, None)
    assert "ended 1 first run of candidates" in found.sentence(search.task.metric)


def test_a_share_of_them_is_finished_to_see_what_stopping_costs(repository, monkeypatch):
    monkeypatch.setattr("autoresearch.search.trials.SPARED", 1.0)
    search = with_past(repository)
    search.run()
    hopeless = search.journal.experiments()[-2]
    assert hopeless.trials[0].score is not None and hopeless.trials[0].result.metrics["stop_share"] == 0.2
    found = stopping(search.journal.experiments())
    assert (found.stopped, found.spared, found.spared_kept, found.gains_lost) == (0, 1, 0, 0.0)
    assert "let 1 such run finish" in found.sentence(search.task.metric)


def test_it_can_be_switched_off_and_waits_for_enough_runs(repository):
    search = with_past(repository, "early_stopping=false")
    search.run()
    assert all(t.score is not None for e in search.journal.experiments()[-2:] for t in e.trials)
    first = search.journal.experiments()[-2].trials[0]
    assert "stop_share" not in first.result.metrics
    new = make_search(repository, [IDEAS[PAST]], "name=y", "experiments=1")
    new.run()
    assert new.journal.experiment(1).trials[0].score is not None
    assert [seed for source, seed in measurer(new).trained if "SLOW" in source]
