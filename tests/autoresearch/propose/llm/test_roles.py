"""A brief with roles: a scout's ideas reach the proposer, a critic sends an answer back once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoresearch.config.roles import for_proposer, joined, split
from autoresearch.errors import UserError
from autoresearch.propose import create_proposer, settings
from autoresearch.propose.base import Proposer
from autoresearch.propose.llm.roles import check_roles, objections
from autoresearch.store.calls import CallLog
from tests.support import messages_server as api
from tests.support.histories import context
from tests.support.services import make_services

WIDE, GOOD, BETTER = api.text("1. Raise LR."), api.proposal("0.02", "0.03"), api.proposal("0.02", "0.04")
REVISE, ACCEPT = api.text("REVISE: 0.03 is timid. Try 0.04."), api.text("**ACCEPT**\nfine")
BRIEF = joined(
    {
        "brief": "# Brief\n\n- Lower the loss.\n",
        "critic": "Refuse timid steps.",
        "scout": "---\nmodel: claude-opus-5-5\n---\nRead the ledger first.",
        "proposer": "- One change at a time.",
    }
)
PLAIN = {"brief": "# Brief", "scout": "Look around.", "critic": "Be strict."}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[api.MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    with api.MessagesServer() as made:
        yield made


@pytest.fixture
def make(server: api.MessagesServer, tmp_path: Path) -> Callable[..., Proposer]:
    def make(*script: Any, **options: Any) -> Proposer:
        server.script = list(script)
        values = settings("anthropic") | {"base_url": server.url, "retries": 0, "repairs": 0} | options
        return create_proposer("anthropic", column=0, services=make_services(tmp_path), **values)

    return make


def words(request: dict[str, Any]) -> str:
    return str(request["system"]) + str(request["messages"])


def test_a_scout_a_proposer_and_a_critic_make_one_proposal(
    make: Callable[..., Proposer], server: api.MessagesServer, tmp_path: Path
) -> None:
    [proposal] = make(WIDE, GOOD, REVISE, BETTER).ask(context(brief=BRIEF), lambda proposal: None)
    assert proposal.edits[0].replace == "0.04"
    scout, first, critic, second = server.requests
    assert [r["model"] for r in server.requests] == ["claude-opus-5-5", *["claude-sonnet-5-5"] * 3]
    assert scout["tool_choice"] == critic["tool_choice"] == {"type": "none"}
    assert scout["system"] == first["system"] == critic["system"], "one cache serves all"
    assert "Read the ledger first" in words(scout) and "Read the ledger first" not in words(first)
    assert "1. Raise LR." in words(first) and "One change at a time" in words(first)
    assert "Refuse timid steps" in words(critic) and "0.02 becomes 0.03" in words(critic)
    assert "the critic says: 0.03 is timid" in str(second["messages"][-1])
    log = CallLog(tmp_path)
    costs = log.by_role()
    assert {role: cost.calls for role, cost in costs.items()} == {"scout": 1, "proposer": 2, "critic": 1}
    assert proposal.cost.calls == 4 and all(cost.dollars > 0 for cost in costs.values())
    assert proposal.cost.dollars == pytest.approx(sum(cost.dollars for cost in costs.values()))
    calls = log.of(proposal.conversation)
    assert [call.model.rpartition(":")[2] for call in calls][::2] == ["scout", "critic"]
    assert "Raise LR" in calls[0].answered and "timid" in calls[2].answered


def test_what_a_critic_accepts_is_taken_at_once_and_after_its_word_there_is_no_second(
    make: Callable[..., Proposer], server: api.MessagesServer
) -> None:
    [proposal] = make(WIDE, GOOD, ACCEPT).ask(context(brief=joined(PLAIN)), lambda proposal: None)
    assert proposal.edits[0].replace == "0.03" and len(server.requests) == 3


@pytest.mark.parametrize("broken", [api.error(500), api.garbage(b"{}"), api.text(""), api.HANG_UP])
def test_a_role_that_fails_changes_nothing(
    make: Callable[..., Proposer], broken: api.Behaviour, tmp_path: Path
) -> None:
    [proposal] = make(broken, GOOD, broken).ask(context(brief=joined(PLAIN)), lambda proposal: None)
    assert proposal.edits[0].replace == "0.03"
    assert [call.problem == "" for call in CallLog(tmp_path).of(proposal.conversation)] == [
        False,
        True,
        False,
    ]


def test_a_proposer_that_cannot_mend_it_keeps_what_it_had(make: Callable[..., Proposer]) -> None:
    script = (WIDE, GOOD, REVISE, api.text("I will not."))
    [proposal] = make(*script).ask(context(brief=joined(PLAIN)), lambda proposal: None)
    assert proposal.edits[0].replace == "0.03"


def test_the_calls_of_roles_are_capped_like_any(make: Callable[..., Proposer]) -> None:
    asked = make(WIDE, GOOD, ACCEPT, max_calls=2)
    [proposal] = asked.ask(context(brief=joined(PLAIN)), lambda proposal: None)
    assert proposal.cost.calls == 2, "there was no money for the critic"


def test_without_roles_there_is_one_call(make: Callable[..., Proposer], server: api.MessagesServer) -> None:
    make(GOOD).ask(context(brief="# Brief"), lambda proposal: None)
    assert len(server.requests) == 1 and "tool_choice" in server.requests[0]


def test_a_folder_is_one_text_and_back() -> None:
    common, found = split(BRIEF)
    assert common.strip() == "# Brief\n\n- Lower the loss."
    assert list(found) == ["scout", "proposer", "critic"]
    assert found["scout"].model == "claude-opus-5-5" and found["scout"].words == "Read the ledger first."
    assert "One change at a time" in for_proposer(BRIEF) and "timid" not in for_proposer(BRIEF)
    assert for_proposer("# Brief\n") == "# Brief\n", "a brief of one file is as it was"
    with pytest.raises(UserError, match="no role 'judge'"):
        joined({"brief": "x", "judge": "y"})
    with pytest.raises(UserError, match="no role 'judge'"):
        split("x\n<!-- role: judge -->\ny")


def test_a_model_of_a_role_needs_a_price_before_a_search_begins() -> None:
    known = {"name": "anthropic"} | settings("anthropic")
    check_roles(BRIEF, known)
    other = BRIEF.replace("claude-opus-5-5", "unknown")
    with pytest.raises(UserError, match="The scout of the brief: no price is known"):
        check_roles(other, known)
    check_roles(other, {"name": "optuna"})


@pytest.mark.parametrize(
    ("said", "why"),
    [("ACCEPT", ""), ("revise\nTry more.", "Try more."), ("Revise: a", "a"), ("Well, REVISE", ""), ("", "")],
)
def test_a_critic_that_is_not_clear_accepts(said: str, why: str) -> None:
    assert objections(said) == why
