"""Guards devised by a model as data, accepted by a person, and measured on the kept history."""

import json
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import UserError
from autoresearch.finish.devise import devise, devise_if_drifted, devised_lines, drifted, summary_of
from autoresearch.finish.guards import measure_guards
from autoresearch.judge.finished.claim import Claim
from autoresearch.propose import settings
from autoresearch.report.page import to_markdown
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.store.records.claims import ClaimRecord, interleaved, write_claim
from autoresearch.types import VerdictKind
from tests.support.messages_server import MessagesServer, tool_call
from tests.support.stub import make_repository, make_search

HONEST, PLANTED = "OTHER = 0; GAIN = 0.05", "OTHER = 0; GAIN = 0.10; HARM = 0.04"
WORSE = "OTHER = 0; GAIN = 0.15; HARM = 0.08"
GOOD = {
    "name": "numbers",
    "text": "loss on documents with many digits",
    "reason": "#2 may have given up on digits",
    "definition": {"documents": "digits"},
}
CODE = {**GOOD, "name": "evil", "definition": {"code": "__import__('os').system('true')"}}


@pytest.fixture
def proposer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    return {"name": "anthropic", **settings("anthropic"), "retries": 0}


def searched(folder: Path, ideas: list[str], *overrides: str) -> Search:
    repository = make_repository(folder / "repo")
    search = make_search(repository, ideas, f"experiments={len(ideas)}", *overrides)
    search.run()
    return search


def test_the_guard_that_a_model_devised_refuses_the_next_exploit(
    tmp_path: Path, proposer: dict[str, Any]
) -> None:
    search = searched(tmp_path, [HONEST, PLANTED], "guards.action=refuse")
    assert [e.kept for e in search.journal.experiments()[1:]] == [True, True], "nothing looks yet"
    with MessagesServer([tool_call({"guards": [GOOD, CODE, "nonsense"]}, "answer")]) as server:
        asked = {**proposer, "base_url": server.url}
        found, refused, dollars = devise(summary_of(search.folder), search.task, search.folder, asked)
        [request] = server.requests
    assert [guard.metric.name for guard in found] == ["numbers"] and dollars > 0
    assert len(refused) == 2 and "there is no key 'code'" in refused[0]
    assert "GAIN = 0.10" in json.dumps(request["messages"]) and "never code" in json.dumps(request["system"])
    inbox = Inbox(search.folder)
    assert "guards accept N" in devised_lines(found, refused, dollars, inbox)[-1]
    assert CallLog(search.folder).spent("guards").dollars == pytest.approx(dollars)
    assert search.state.guards() == (), "nothing is used before a person accepts it"

    inbox.decide_guard(1, "accepted")
    record = measure_guards(search, 3)
    lost = {number: [gain.lost for gain in gains] for number, gains in record.keeps.items()}
    assert lost == {1: [False], 2: [True]}
    page = to_markdown(summarize(search.journal), "", None)
    assert "## What it costs elsewhere" in page and "loses |" in page and "given up on digits" in page

    again = make_search(search.repository, [HONEST, PLANTED, WORSE], "experiments=3", "guards.action=refuse")
    again.run()
    three = again.journal.experiment(3)
    assert three.verdict and three.verdict.kind is VerdictKind.DISCARD and "numbers" in three.verdict.reason


def test_what_devising_may_cost_is_limited(tmp_path: Path, proposer: dict[str, Any]) -> None:
    search = searched(tmp_path, [HONEST])
    dear = {"claude-sonnet-5-5": {"input": 2, "output": 1000, "cache_write": 4, "cache_read": 1}}
    with MessagesServer([]) as server:
        asked = {**proposer, "base_url": server.url, "prices": dear}
        with pytest.raises(UserError, match="No more is spent on guards"):
            devise(summary_of(search.folder), search.task, search.folder, asked)
        assert server.requests == []


def test_there_must_be_something_to_look_into(tmp_path: Path, proposer: dict[str, Any]) -> None:
    search = searched(tmp_path, [])
    with pytest.raises(UserError, match="Nothing was kept"):
        devise(summary_of(search.folder), search.task, search.folder, proposer)
    with pytest.raises(UserError, match="no guard"):
        measure_guards(search, 2)
    assert drifted(summary_of(search.folder)) == ""


def test_validation_and_claim_that_drift_apart_are_told(tmp_path: Path, proposer: dict[str, Any]) -> None:
    search = searched(tmp_path, [PLANTED], "guards.devise=true")
    result = Claim(0.01, (0.0, 0.02), 0.005, 6.0, 1.1, 1.09, (4, 4), 0.002, overfit=0.06)
    access, tip = interleaved([1]), search.journal.experiment(1).commit
    write_claim(search.journal, ClaimRecord(1, 1, "", tip, 1.0, access, 2.0, result))
    with MessagesServer([tool_call({"guards": [GOOD]}, "answer")]) as server:
        search.config = search.config.model_copy(update={"proposer": {**proposer, "base_url": server.url}})
        said = devise_if_drifted(search)
    assert "may exploit its validation data" in said[0] and "numbers" in said[1]
    quiet = search.config.guards.model_copy(update={"devise": False})
    search.config = search.config.model_copy(update={"guards": quiet})
    assert "guards devise (costs money)" in devise_if_drifted(search)[1]
    write_claim(search.journal, ClaimRecord(1, 1, "", tip, 1.0, access, 2.0, result, elsewhere="data=books"))
    assert devise_if_drifted(search) == [], "on other data a smaller gain shows no exploit"
