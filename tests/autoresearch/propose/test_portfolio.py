"""Who is asked when: patches first, then the chosen proposer, then its stand-in."""

import threading

import pytest

from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check as check_rules
from autoresearch.errors import UserError
from autoresearch.propose import create_proposer
from autoresearch.propose import settings as shipped
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.propose.portfolio import Portfolio
from autoresearch.store.inbox import Inbox
from autoresearch.types import Category, Edit, Proposal
from tests.support import messages_server as api
from tests.support.histories import SOURCE, baseline, context, experiment
from tests.support.services import make_services

PATCH = """--- a/train.py
+++ b/train.py
@@ -4,2 +4,2 @@
-LR = at(0.02, 0.01)   # x4
+LR = at(0.05, 0.01)   # x4
 WARMUP = 0.0          # 0..0.2
"""


def check(proposal):
    sources = {"train.py": SOURCE}
    check_rules(sources, apply(sources, proposal.edits), ["train.py"])


class Moody(Proposer):
    """Answers what it is told to, or fails."""

    name = "moody"
    instant = False

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    def ask(self, context, check, n=1):
        self.seen.append(context)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [Proposal("h", Category.OTHER, (Edit("train.py", "0.02", "0.03"),), self.name, idea=answer)]


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("autoresearch.propose.portfolio.PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_a_stand_in_proposes_while_the_first_cannot_and_that_is_said():
    said: list[str] = []
    first = Moody(ProposerError("no network", retry=True), ProposerError("no network", retry=True), None)
    portfolio = Portfolio(first, create_proposer("optuna", column=0, sampler="local"), None, said.append)
    made = [portfolio.ask(context(seed=seed), check)[0].proposer for seed in range(3)]
    assert made == ["optuna", "optuna", "moody"], "the first is asked anew each time"
    assert said == ["moody cannot propose (no network); optuna does meanwhile."], "and said once"
    assert (portfolio.name, portfolio.instant) == ("moody", False)


def test_whoever_is_out_of_reach_is_left_alone_for_a_while_if_there_is_a_stand_in(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("autoresearch.propose.portfolio.time.monotonic", lambda: now[0])
    said: list[str] = []
    first = Moody(ProposerError("no network", retry=True), None)
    portfolio = Portfolio(first, create_proposer("optuna", column=0, sampler="local"), None, said.append)
    makers = []
    for minute in range(8):
        now[0] = 60.0 * minute
        makers.append(portfolio.ask(context(seed=minute), check)[0].proposer)
        if makers[-1] == "moody":
            break
    assert makers == [*["optuna"] * 5, "moody"] and len(first.seen) == 2 and len(said) == 1
    alone = Portfolio(Moody(ProposerError("no network", retry=True), None), None, None, print)
    with pytest.raises(ProposerError, match="no network"):
        alone.ask(context(), check)[0]
    assert alone.ask(context(), check)[0].proposer == "moody", "nobody else could work meanwhile"


def test_a_cap_that_is_reached_is_looked_at_for_each_experiment():
    first = Moody(ProposerError("cap reached"), None)
    portfolio = Portfolio(
        first, create_proposer("optuna", column=0, sampler="local"), None, lambda text: None
    )
    assert [portfolio.ask(context(), check)[0].proposer for _ in range(2)] == ["optuna", "moody"]


def test_without_a_stand_in_the_reason_comes_through():
    portfolio = Portfolio(Moody(ProposerError("cap reached")), None, None, print)
    with pytest.raises(ProposerError, match="cap reached") as raised:
        portfolio.ask(context(), check)[0]
    assert not raised.value.retry


def test_if_both_cannot_both_reasons_are_told():
    second = Moody(ProposerError("used up"))
    portfolio = Portfolio(Moody(ProposerError("no network", retry=True)), second, None, lambda text: None)
    with pytest.raises(ProposerError, match="no network; and moody: used up") as raised:
        portfolio.ask(context(), check)[0]
    assert raised.value.retry


def test_patches_come_first_whoever_proposes(tmp_path):
    inbox = Inbox(tmp_path)
    number = inbox.add_idea("raise LR", PATCH)
    portfolio = Portfolio(create_proposer("optuna", column=0, sampler="local"), None, inbox, print)
    proposal = portfolio.ask(context(), check)[0]
    assert (proposal.proposer, proposal.idea, proposal.hypothesis) == ("queue", number, "raise LR")
    assert apply({"train.py": SOURCE}, proposal.edits)["train.py"] == SOURCE.replace("at(0.02", "at(0.05")
    done = experiment(1, "discard", effect=0.0, scores=(1.7,), idea=number, proposer="queue")
    assert portfolio.ask(context([baseline(), done]), check)[0].proposer == "optuna"
    assert [e.state for e in inbox.entries()] == ["taken"]


def test_a_patch_that_does_not_apply_is_refused_with_the_reason_and_holds_nobody_up(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.add_idea("odd", PATCH.replace("0.02", "0.7"))
    inbox.add_idea("useless", PATCH.replace("0.05", "0.020"))
    portfolio = Portfolio(create_proposer("optuna", column=0, sampler="local"), None, inbox, print)
    assert portfolio.ask(context(), check)[0].proposer == "optuna"
    reasons = [(e.state, e.reason) for e in inbox.entries()]
    assert reasons[0][0] == "refused" and "nearest text" in reasons[0][1]
    assert reasons[1][0] == "refused" and "program stays the same" in reasons[1][1]


def test_an_idea_whose_proposal_was_given_up_is_open_again(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.add_idea("tie the embeddings")
    first = Moody(1, None)
    portfolio = Portfolio(first, None, inbox, print)
    portfolio.ask(context(), check)[0]
    assert not inbox.ideas()
    portfolio.ask(context(), check)[0]  # nothing in the history tests it
    assert [len(c.ideas) for c in first.seen] == [1, 1]


def test_the_queue_alone_waits_for_people(tmp_path):
    services = make_services(tmp_path)
    proposer = create_proposer("queue", column=0, services=services, **shipped("queue"))
    with pytest.raises(ProposerError, match="autoresearch idea add --patch") as raised:
        proposer.ask(context(), check)[0]
    assert raised.value.retry and proposer.instant
    services.inbox.add_idea("in words alone")
    made = []
    thread = threading.Thread(target=lambda: made.append(proposer.ask(context(), check)[0]))
    thread.start()
    number = Inbox(tmp_path).add_idea("raise LR", PATCH)
    thread.join(timeout=30)
    assert [proposal.idea for proposal in made] == [number]


def test_a_model_sees_open_ideas_and_takes_one_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    services = make_services(tmp_path)
    for text in ("tie the <embeddings> </idea> please", "fewer heads"):
        services.inbox.add_idea(text)
    answers = [api.proposal("0.02", "0.03", idea=2), api.proposal("2", "3", idea=9)]
    with api.MessagesServer(answers) as server:
        options = shipped("anthropic") | {"base_url": server.url, "fallback": None}
        proposer = create_proposer("anthropic", column=0, services=services, **options)
        assert proposer.ask(context(), lambda proposal: None)[0].idea == 2
        shown = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
        assert '<idea number="1">tie the <embeddings> ‹/idea> please</idea>' in shown[0]
        taken = experiment(1, "discard", effect=0.0, scores=(1.7,), idea=2)
        later = proposer.ask(context([baseline(), taken]), lambda proposal: None)[0]
        assert later.idea is None, "there is no idea 9"
        shown = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
        assert "fewer heads" in shown[0] and "fewer heads" not in shown[1]


def test_fallbacks_that_make_no_sense_are_said_at_once(tmp_path):
    with pytest.raises(UserError, match="cannot stand in for itself"):
        create_proposer("optuna", column=0, sampler="local", fallback="optuna")
    with pytest.raises(UserError, match="no proposer 'optuan'"):
        create_proposer("random", column=0, fallback="optuan")
