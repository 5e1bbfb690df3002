"""Whole searches, driven by a scripted model over real HTTP: the real SDK, the real loop and journal."""

import ast
import json
from functools import partial
from itertools import pairwise

import pytest

from autoresearch.edit.apply import apply
from autoresearch.edit.python import fingerprint
from autoresearch.propose.llm.answer import TOOL_NAME
from autoresearch.report.summary import summarize
from autoresearch.search.setup.open import proposer_of
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from tests.support import malformed
from tests.support import messages_server as api
from tests.support.asking import make_asking_search, useless
from tests.support.stub import PATH, SCRIPT, make_repository, make_search, measurer

GAIN = api.proposal("OTHER = 0", "OTHER = 0\nGAIN = 0.2", PATH, hypothesis="A gain.", idea=1)


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


def first_turns(server):
    """The requests that open a conversation."""
    return [request for request in server.requests if len(request["messages"]) == 1]


def bare(blocks):
    return [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]


@pytest.mark.slow
def test_a_model_improves_the_script(repository, server, search):
    server.script = [useless(1), api.error(429), useless(2), GAIN, useless(3)]
    made = search("experiments=4", models=["claude-sonnet-5-5", "claude-opus-5-5"])
    made.inbox.add_idea("try a gain")
    made.inbox.add_note("be bold")
    made.run()
    kinds = [e.verdict.kind.value for e in made.journal.experiments() if e.verdict]
    assert kinds.count("keep") == 1 and len(kinds) == 4
    kept = next(e for e in made.journal.experiments() if e.kept)
    assert kept.proposal.hypothesis == "A gain." and kept.proposal.idea == 1
    tip = repository.resolve("refs/heads/autoresearch/x")
    assert "GAIN = 0.2" in repository.sources(tip, [PATH])[PATH]
    assert not made.inbox.ideas() and "be bold" in json.dumps(server.requests[0])
    calls = CallLog(made.folder)
    paid = sum(e.proposal.cost.calls for e in made.journal.experiments() if e.proposal)
    waiting = sum(cost.calls for cost in made.proposer.unbilled.values())  # of the model that was busy
    assert (paid, waiting) == (4, 1) and calls.spent("anthropic").calls == len(server.requests) == 5
    assert all(calls.of(e.proposal.conversation) for e in made.journal.experiments() if e.proposal)


def test_every_call_of_a_search_begins_with_the_bytes_of_the_one_before(server, search):
    server.script = [useless(n) for n in range(1, 6)]
    search("experiments=5").run()
    asked = first_turns(server)
    assert len(asked) == 5
    for one, two in pairwise(asked):
        assert json.dumps([one["tools"], one["system"]]) == json.dumps([two["tools"], two["system"]])
        before, after = (bare(request["messages"][0]["content"][:-1]) for request in (one, two))
        assert json.dumps(after).startswith(json.dumps(before)[:-1])
        marks = [*two["system"], *two["messages"][0]["content"]]
        found = [block["cache_control"]["ttl"] for block in marks if "cache_control" in block]
        assert found == ["1h", "1h", "1h", "5m"]
    read = [server.usage(request)["cache_read_input_tokens"] for request in asked]
    assert all(tokens > 300 for tokens in read)


def test_another_brief_changes_only_its_own_part(server, search, repository, tmp_path):
    server.default = useless(1)
    mine = tmp_path / "mine.md"
    mine.write_text("# Brief: mine\nOnly simplify.\n")
    for name, brief in (("x", "default"), ("y", mine)):
        made = search("experiments=1", f"brief={brief}", f"name={name}", "earlier_noise=false")
        made.run()
    one, two = (request for request in first_turns(server))
    assert one["tools"] == two["tools"] and one["messages"] == two["messages"]
    assert one["system"][0] == two["system"][0] and one["system"][1] != two["system"][1]
    assert "Only simplify." in two["system"][1]["text"]


@pytest.mark.slow
@pytest.mark.parametrize("answers", [90, pytest.param(200, marks=pytest.mark.soak)])
def test_malformed_answers_lose_nothing(server, search, monkeypatch, answers):
    monkeypatch.setattr("autoresearch.propose.portfolio.PAUSE_SECONDS", 0.0)
    args = (PATH, "1.0", "0.9")
    kinds = malformed.unusable(*args, twice="LEVEL")
    bad = [*kinds, *malformed.cut_off(*args, count=answers - len(kinds))]
    server.script = [*bad[:-5], useless(7), *bad[-5:], GAIN]
    many = answers // 16
    made = search(f"experiments={many}", repairs=24, fallback="random", max_dollars=None)
    made.run()
    experiments = made.journal.experiments()
    assert len(experiments) == many + 1 and all(e.verdict for e in experiments[1:])
    assert not server.script, "all of them were asked for"
    makers = {e.proposal.proposer for e in experiments[1:]}
    assert makers == {"random", "anthropic:claude-sonnet-5-5"} and made.told
    calls = CallLog(made.folder).spent("anthropic").calls
    assert calls == len(server.requests)
    sources = {"": SCRIPT}
    known = {fingerprint({PATH: SCRIPT})}
    for e in experiments[1:]:
        parent = made.state.sources(e.parent)
        candidate = made.state.sources(e.commit)
        assert candidate == apply(parent, e.proposal.edits), "exactly what was proposed"
        assert fingerprint(candidate) not in known, "and nothing that was there before"
        known.add(fingerprint(candidate))
        sources[e.commit] = candidate[PATH]
    trained = {source for source, _ in measurer(made).trained}
    assert trained <= set(sources.values()) and all(ast.parse(source) for source in trained)
    assert TOOL_NAME not in "".join(trained)


@pytest.mark.slow
def test_an_outage_of_the_model_leaves_the_work_to_the_stand_in(server, search):
    server.default = api.error(529, "overloaded")
    made = search("experiments=3", fallback="optuna")
    made.run()
    assert [e.proposal.proposer for e in made.journal.experiments()[1:]] == ["optuna"] * 3
    assert made.told == [
        "anthropic cannot propose (claude-sonnet-5-5: error 529: overloaded); optuna does meanwhile."
    ]


def test_a_search_that_waits_for_its_model_can_be_stopped(server, search):
    server.default = api.error(529, "overloaded")
    made = search("experiments=3")
    made.view.message = lambda text, warning=False: (
        made.inbox.wish("stop") if "asking again" in text else None
    )
    made.run()
    assert made.journal.info().finished and not made.journal.experiments()[1:]


def test_a_search_that_is_stopped_ends_with_all_it_has(server, search):
    server.default = useless(1)
    made = search("experiments=50")
    stub = measurer(made)
    stub.on_run = lambda: made.inbox.wish("stop") if len(stub.trained) > 3 else None
    made.run()
    assert made.journal.info().finished and len(made.journal.experiments()) < 50


def test_money_that_led_to_no_proposal_is_in_the_totals(repository, server):
    one = ("proposer=anthropic", f"proposer.base_url={server.url}", "experiments=2", "proposer.repairs=0",
           "proposer.retries=0", "proposer.fallback=null")  # fmt: skip

    def begin():
        made = make_search(repository, [], *one)
        proposer = proposer_of(made.config, repository, made.folder)
        made.journal.close()
        inbox = Inbox(made.folder)
        made = make_search(repository, [], *one, proposer=proposer, inbox=inbox)
        inbox.begin()
        made.view.message = lambda text, warning=False: (
            made.inbox.wish("stop") if "asking again" in text else None
        )
        return made

    def told(made):
        made.run()
        cost = summarize(made.journal)
        made.journal.close()
        who = cost.proposers["anthropic:claude-sonnet-5-5"]
        calls = CallLog(made.folder).spent("anthropic")
        assert cost.cost.llm_calls == calls.calls == len(server.requests)
        assert cost.cost.dollars == pytest.approx(calls.dollars) == pytest.approx(who.dollars)
        return cost.cost.dollars

    server.default = api.text("no idea")
    first = told(begin())
    assert first > 0, "though nothing was proposed"
    second = told(begin())
    assert second > first, "nor the second time"
    server.script = [useless(1)]
    made = begin()
    assert told(made) > second
    spent = Journal(made.folder / "journal.db")
    assert spent.experiments()[1].proposal.cost.calls == 3, "what a model has cost is its next proposal's"
    spent.close()


def test_calls_that_led_to_nothing_count_after_a_restart(repository, server):
    caps = ("proposer.max_calls=3", "proposer.retries=0", "proposer.repairs=0", "proposer.fallback=null")
    one = ("proposer=anthropic", f"proposer.base_url={server.url}", *caps, "experiments=9")

    def begin(*, stopped):
        made = make_search(repository, [], *one)
        proposer = proposer_of(made.config, repository, made.folder)
        made.journal.close()
        inbox = Inbox(made.folder) if stopped else None
        return make_search(repository, [], *one, proposer=proposer, inbox=inbox)

    server.script = [useless(1), api.text("no idea")]
    first = begin(stopped=True)
    first.view.message = lambda text, warning=False: (
        first.inbox.wish("stop") if "asking again" in text else None
    )
    first.run()
    first.journal.close()
    assert len(server.requests) == 2
    server.default = useless(2)
    second = begin(stopped=False)
    second.run()
    assert len(server.requests) == 3, "one more, and the cap is reached"
    assert "max_calls" in second.view.said[-1]
    assert sum(e.proposal.cost.calls for e in second.journal.experiments()[1:]) <= 3
