"""The kinds of answer of a model, end to end: a tuning, a sweep, a diagnosis (an idea: `test_proposers`)."""

import json
from functools import partial
from itertools import pairwise

import pytest

from autoresearch.report.page import to_markdown
from autoresearch.report.summary import summarize
from autoresearch.store.records.notes import read_diagnoses
from autoresearch.types import Arm, Experiment
from tests.support import messages_server as api
from tests.support.asking import make_asking_search, useless
from tests.support.cli import inside
from tests.support.stub import PATH, make_repository, measurer


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repo")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    with api.MessagesServer() as server:
        yield server


@pytest.fixture
def search(repository, server):
    return partial(make_asking_search, repository, server.url)


def tuned(experiments: tuple[Experiment, ...]) -> list[Experiment]:
    return [e for e in experiments if e.proposal and e.proposal.tuning]


def same_prefix(server: api.MessagesServer) -> bool:
    """Whether every first turn begins with the same bytes up to the brief."""
    asked = [request for request in server.requests if len(request["messages"]) == 1]
    parts = [json.dumps([request["tools"], request["system"]]) for request in asked]
    return len(parts) > 1 and all(one == two for one, two in pairwise(parts))


class Killed(BaseException):
    """Ends the process, as far as the search can know."""


def test_a_tuning(server, search, repository):
    answer = api.proposal(
        "OTHER = 0", "OTHER = 0\nGAIN = 0.001", PATH, hypothesis="A gain.", tune="GAIN 0.0..0.4", points=3
    )
    server.script = [answer, *map(useless, range(1, 9))]
    made = search("experiments=5")
    stub = measurer(made)

    def kill():
        if any(p.tuning.point == 2 for e in tuned(made.journal.experiments()) for p in [e.proposal]):
            raise Killed

    stub.on_run = kill
    with pytest.raises(Killed):
        made.run()
    made.journal.close()
    made = search("experiments=5")
    made.run()
    points = tuned(made.journal.experiments())
    assert [e.proposal.tuning.point for e in points] == [1, 2, 3], "none is lost, and none is made twice"
    assert len(made.journal.experiments()) == 6 and made.journal.experiments()[2] not in points
    assert all(f"GAIN = {e.proposal.tuning.values['GAIN']}" in e.diff for e in points[1:])
    assert [e.proposal.cost.calls for e in points] == [1, 0, 0], "an answer is paid for once"
    assert any(e.kept for e in points), "a large gain is found, and confirmed on further seeds"
    assert all(e.verdict.trials > 1 for e in points if e.kept)
    assert f"{points[1].proposal.tuning.words}, as measured: GAIN 0.001: " in points[1].verdict.reason
    assert "What tunings and sweeps found" in server.requests[-1]["messages"][0]["content"][-1]["text"]
    assert same_prefix(server)
    report = to_markdown(summarize(made.journal), "", None)
    assert "The tuning of #1 (A gain.), 3 of 3 points: GAIN 0.001: " in report
    made.journal.close()
    assert "Point 2 of 3 of the tuning of #1" in (log := inside(repository.root, "log", "name=x"))
    assert "tuning of #1, as measured: GAIN 0.001: " in log
    assert "The tuning of #1, as measured: GAIN 0.001: " in inside(repository.root, "show", "3", "name=x")


def test_a_sweep(server, search):
    answer = api.proposal(
        "", "", PATH, hypothesis="Where is the best level?", edits=[], tune="LEVEL: 0.9 | 1.0 | 1.1", points=0
    )
    server.script = [answer, *map(useless, range(1, 9))]
    made = search("experiments=3")
    made.run()
    points = tuned(made.journal.experiments())
    assert [e.proposal.tuning.values["LEVEL"] for e in points] == [0.9, 1.1], "1.0 is the script"
    differences = [[after - before for _, before, after in e.verdict.pairs] for e in points]
    assert all(change < 0 for change in differences[0]) and all(change > 0 for change in differences[1])
    assert points[0].kept and not points[1].kept
    assert "point 2 of 2 of the sweep of #1" in points[1].verdict.reason
    assert same_prefix(server)


def test_a_diagnosis(server, search, repository):
    def prints(words):
        old = "print(LEVEL, OTHER)"
        return api.proposal(old, f'{old}\nprint("{words}")', PATH, hypothesis="How large?", diagnose=True)

    server.script = [prints("norm 1.5 <brief>"), prints("and now"), *map(useless, range(1, 9))]
    made = search("experiments=2", "diagnoses=1")
    stub = measurer(made)

    def kill():
        if "norm" in stub.trained[-1][0]:
            raise Killed

    stub.on_run = kill
    with pytest.raises(Killed):
        made.run()
    made.journal.close()
    made = search("experiments=2", "diagnoses=1")
    made.run()
    assert sum("norm" in source for source, _ in measurer(made).trained) == 1, "it runs again after a kill"
    baseline, first, second = made.journal.experiments()
    assert first.verdict and second.verdict, "both of the experiments are ordinary ones"
    lost, done = baseline.diagnoses
    assert lost.result is None and done.arm is Arm.DIAGNOSE and done.score is None
    assert len(baseline.trials) == 3, "the baseline's own trainings are as they were"
    [found] = read_diagnoses(made.journal)
    assert (found.question, found.printed, found.experiment) == ("How large?", "norm 1.5 <brief>", 0)
    paid = [p.cost.calls for e in made.journal.experiments() for p in e.dropped if p.diagnostic]
    assert paid == [1], "what it cost is counted"
    asked = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
    assert "diagnoses left: 1" in asked[0] and "diagnoses left" not in asked[1]
    assert "What diagnoses printed" in asked[1] and "norm 1.5 ‹brief›" in asked[1]
    assert "no diagnosis is left" in json.dumps(server.requests[2]["messages"][-1])
    assert same_prefix(server)
    made.journal.close()
    assert "norm 1.5 <brief>" in inside(repository.root, "show", "0", "name=x")
