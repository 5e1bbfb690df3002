"""Calls of models in MLflow: linked to their experiment, counted, without keys, and never in the way."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Trace
from mlflow.tracking import MlflowClient

from autoresearch.store.calls import CallLog
from autoresearch.store.journal import Journal
from autoresearch.tracking.mirror import Mirror
from autoresearch.tracking.store import local_uri
from autoresearch.types import Call, Category, Cost, Proposal, Verdict, VerdictKind
from tests.support.searches import BASE, INFO

KEY = "sk-secret-0123456789"


@pytest.fixture
def journal(tmp_path):
    journal = Journal.create(tmp_path / "night1" / "journal.db", replace(INFO, finished=None))
    yield journal
    journal.close()


@pytest.fixture
def calls(tmp_path, journal):
    return CallLog(tmp_path / "night1")


def call(conversation, **changes):
    cost = Cost(1, 12_000, 300, 0.04, 2.5)
    made = Call(conversation, "anthropic:opus", 1_700_000_100.0, "Find something.", "[call]", "", cost)
    return replace(made, **changes)


def add(journal, conversation, kind=VerdictKind.DISCARD):
    proposal = Proposal("raise it", Category.OPTIMIZER, (), "anthropic:opus", conversation=conversation)
    number = journal.add(proposal, BASE).number
    journal.committed(number, "c" * 40, "")
    journal.judged(number, Verdict(kind, 0.1, (0.05, 0.15), 3.0, 1, "clear"))
    journal.recorded(number, "c" * 40)
    return number


def mirror(folder, calls):
    return Mirror(
        enabled=True,
        uri=None,
        experiment="autoresearch",
        folder=folder,
        sources=lambda commit: {},
        calls=calls,
    )


def traces(folder: Path) -> list[Trace]:
    client = MlflowClient(local_uri(folder))
    experiment = client.get_experiment_by_name("autoresearch")
    found = client.search_traces([experiment.experiment_id], max_results=200)
    return sorted(found, key=lambda trace: (trace.info.timestamp_ms, trace.info.trace_id))


def run_of(folder, number):
    client = MlflowClient(local_uri(folder))
    experiment = client.get_experiment_by_name("autoresearch")
    runs = client.search_runs([experiment.experiment_id])
    return next(r.info.run_id for r in runs if r.data.tags["autoresearch.experiment"] == str(number))


@pytest.mark.slow
def test_a_call_is_a_trace_linked_to_its_experiment(journal, calls, folder):
    calls.record(call("c1", problem="the search text is not in train.py"))
    calls.record(call("c1", started=1_700_000_200.0, asked="Not accepted.", answered="[better]"))
    number = add(journal, "c1")
    assert mirror(folder, calls).close(journal) is None
    first, second = traces(folder)
    for trace in (first, second):
        assert trace.info.trace_metadata["mlflow.sourceRun"] == run_of(folder, number)
        assert trace.info.token_usage == {
            "input_tokens": 12_000,
            "output_tokens": 300,
            "total_tokens": 12_300,
        }
        assert trace.info.cost["total_cost"] == pytest.approx(0.04)
        assert trace.info.execution_duration == 2500
    assert first.info.tags["outcome"] == "the search text is not in train.py"
    assert second.info.tags["outcome"] == "accepted"
    span = first.data.spans[0]
    assert span.inputs["messages"][0]["content"] == "Find something." and span.outputs["content"] == "[call]"
    assert span.model_name == "opus"


@pytest.mark.slow
def test_writing_again_changes_nothing(journal, calls, folder):
    calls.record(call("c1"))
    add(journal, "c1")
    assert mirror(folder, calls).close(journal) is None
    journal.set("touched", "1")
    journal.unmirrored()
    assert mirror(folder, calls).close(journal) is None
    assert len(traces(folder)) == 1 and len(traces(folder)[0].data.spans) == 1


@pytest.mark.slow
def test_what_led_to_nothing_belongs_to_the_search(journal, calls, folder):
    calls.record(call("lost", answered="", problem="the API cannot be reached"))
    calls.record(call("c1", started=1_700_000_200.0))
    calls.record(call("thinking", started=1_700_000_300.0))
    add(journal, "c1")
    shown = mirror(folder, calls)
    assert shown.close(journal) is None
    search = run_of(folder, "search")
    lost, made = traces(folder)
    assert lost.info.trace_metadata["mlflow.sourceRun"] == search and str(lost.info.state.value) == "ERROR"
    assert made.info.trace_metadata["mlflow.sourceRun"] == run_of(folder, 1)
    journal.update(finished=1_700_000_400.0)
    add(journal, "")
    assert shown.close(journal) is None
    assert len(traces(folder)) == 3, "the latest could still have led to something"


@pytest.mark.slow
def test_no_key_and_no_endless_text(journal, calls, folder, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    calls.record(call("c1", asked=f"key {KEY} " + "x" * 300_000, answered=f"{KEY}", problem=KEY))
    add(journal, "c1")
    assert KEY.encode() not in calls.path.read_bytes()
    assert mirror(folder, calls).close(journal) is None
    (trace,) = traces(folder)
    assert KEY not in trace.to_json() and "left out" in trace.data.spans[0].inputs["messages"][0]["content"]
    assert len(trace.to_json()) < 200_000


@pytest.mark.slow
def test_a_store_without_traces_costs_a_message_and_nothing_else(journal, calls, folder, monkeypatch):
    def no_such_thing(*args, **kwargs):
        raise NotImplementedError("this server has no traces")

    monkeypatch.setattr("mlflow.tracing.client.TracingClient.start_trace", no_such_thing)
    calls.record(call("c1"))
    number = add(journal, "c1")
    problem = mirror(folder, calls).close(journal)
    assert problem == "MLflow shows no calls of models: this server has no traces"
    assert run_of(folder, number) and number not in journal.dirty()


def test_the_record_of_calls_adds_up(calls, journal):
    for number in range(3):
        calls.record(call(f"c{number}"))
    calls.record(call("c3", model="openai:small"))
    assert calls.spent("anthropic").dollars == pytest.approx(0.12) and calls.spent("open").calls == 0
    assert calls.conversations() == ["c0", "c1", "c2", "c3"]
    paid = Proposal("h", Category.OTHER, (), "anthropic:opus", cost=Cost(2, 24_000, 600, 0.08, 5.0))
    journal.add(paid, BASE)
    left = calls.unbilled("anthropic", journal.experiments())
    assert left.calls == 1 and left.dollars == pytest.approx(0.04)


def test_a_record_that_cannot_be_kept_is_no_error(tmp_path):
    (tmp_path / "calls.db").write_bytes(b"no database" * 500)
    log = CallLog(tmp_path)
    log.record(call("c1"))
    assert log.of("c1") == [] and log.spent("anthropic") == Cost()


def test_a_call_is_written_over_when_it_is_known_what_it_cost(calls):
    calls.record(call("a", problem="no answer yet", answered="", cost=Cost(1, 9, 9, 9.0)))
    calls.record(call("b", started=2.0))
    calls.record(call("a"))
    assert calls.of("a") == [call("a")] and calls.conversations() == ["a", "b"]


def test_totals_are_by_proposer_or_by_model(calls):
    for number, model in enumerate(("anthropic:opus", "anthropic:opus-mini", "openai:a_b", "openai:axb")):
        calls.record(call("c", model=model, started=float(number), cost=Cost(1, 10, 1, 0.5, 1.0)))
    assert calls.spent("anthropic") == Cost(2, 20, 2, 1.0, 2.0)
    assert calls.spent("anthropic:opus") == calls.spent("openai:a_b") == Cost(1, 10, 1, 0.5, 1.0)
    assert calls.spent("anthro") == calls.spent("nobody") == Cost()


def test_names_and_totals_are_asked_for_without_the_texts(calls, monkeypatch):
    calls.record(call("a", asked="x" * 100))
    asked = []
    rows = calls._rows
    monkeypatch.setattr(calls, "_rows", lambda query, *values: asked.append(query) or rows(query, *values))
    assert calls.conversations() == ["a"] and calls.spent("anthropic").calls == 1
    assert not any("asked" in query or "answered" in query for query in asked)
