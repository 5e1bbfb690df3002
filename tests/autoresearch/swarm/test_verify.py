"""The verifier: the ordinary search measures and judges what strangers sent, and the store follows it."""

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from autoresearch.errors import Refused
from autoresearch.propose.queue import ReplayProposer
from autoresearch.search.judging import Judging
from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.check import verify_chain
from autoresearch.swarm.chain.links import link_of
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import claimed
from autoresearch.swarm.store import State, Store
from autoresearch.swarm.store.file import SCHEMA
from autoresearch.swarm.verify import proposer as proposer_module
from autoresearch.swarm.verify.proposer import Contributions
from autoresearch.swarm.verify.verifier import check_again, verify
from autoresearch.swarm.web.page import track_page
from tests.support.toy_task import PATH, ToyTask
from tests.support.tracks import LIMITS, Person, tip_of

pytestmark = pytest.mark.slow


def send(store, signed, network="10.0.0.0/24"):
    claim = claimed(signed.contribution.evidence.pairs, ToyTask.metric, 0.002)
    return store.receive(signed, network, claim, LIMITS)


def states(store):
    return {one.title: one.state for one in store.contributions("t")}


def test_what_helps_is_kept_and_what_does_not_is_discarded_whatever_was_claimed(
    track, folder, store, tmp_path
):
    ada, bob = Person(tmp_path, "ada"), Person(tmp_path, "bob")
    send(store, ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))
    send(store, bob.change(folder, "LEVEL = 1.0", "LEVEL = 0.4", pairs=[(1, 0.5, 0.99)] * 9))
    send(store, bob.change(folder, "MORE = 0", "MORE = 'crash'"))
    first = tip_of(folder)
    verify(folder, store)
    assert states(store) == {
        "LEVEL = 1.0 becomes LEVEL = 1.6": State.KEPT,
        "LEVEL = 1.0 becomes LEVEL = 0.4": State.RETURNED,
        "MORE = 0 becomes MORE = 'crash'": State.DISCARDED,
    }
    assert tip_of(folder) != first


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("owner", "method"), [(Store, "decide"), (Store, "take"), (Journal, "draft"), (Store, "publish")]
)
def test_a_verifier_that_is_killed_between_two_steps_decides_everything_once(
    owner, method, track, folder, store, tmp_path, monkeypatch
):
    ada = Person(tmp_path, "ada")
    send(store, ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, method, kill)
        verify(folder, store)
    verify(folder, store)
    verdicts = [entry.data for entry in store.entries("t") if entry.kind is Kind.VERDICT]
    assert [data["state"] for data in verdicts] == ["kept"]
    assert [one.state for one in store.contributions("t")] == [State.KEPT]
    tip, _ = tip_of(folder)
    assert verify_chain(Repository(folder.parent.parent), "t", tip).sound


def test_an_old_link_is_measured_again_and_flagged_if_it_fails(track, folder, store, tmp_path, monkeypatch):
    send(store, Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))
    verify(folder, store)
    assert not [entry for entry in store.entries("t") if entry.kind is Kind.FLAGGED]
    monkeypatch.setattr(
        "autoresearch.swarm.verify.verifier.link_of",
        lambda search, e: replace(link_of(search, e), effect=0.5),
    )
    with open_search(["name=t"], "quiet", proposes=False) as search:
        assert check_again(search, store, 0.0) is False
        assert check_again(search, store, 1000.0) is True
    [flag] = [entry.data for entry in store.entries("t") if entry.kind is Kind.FLAGGED]
    assert flag["commit"] == tip_of(folder)[0] and "DOES NOT HOLD" in flag["reason"]
    assert "flagged" in track_page(track, "http://x/")


def own_proposals(path, changes):
    """A proposer of the verifier's own."""
    lines = [
        {
            "hypothesis": f"{old} becomes {new}",
            "category": "other",
            "edits": [{"path": PATH, "search": old, "replace": new}],
        }
        for old, new in changes
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ReplayProposer(path=path)


def test_what_the_verifier_finds_by_itself_is_a_link_like_any_other(track, folder, store, tmp_path):
    own = own_proposals(tmp_path / "own", [("LEVEL = 1.0", "LEVEL = 1.5"), ("MORE = 0", "MORE = 'crash'")])
    start = tip_of(folder)
    send(store, Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 0.4"))
    proposer = Contributions(store, "t", 0.15, own)
    assert verify(folder, store, proposer=proposer) and not proposer.searches
    verify(folder, store)
    tip, sources = tip_of(folder)
    chain = verify_chain(Repository(folder.parent.parent), "t", tip)
    assert chain.sound, (chain.problems, [link.problems for link in chain.links])
    assert [link.author for link in chain.links] == ["verifier"] and "LEVEL = 1.5" in sources[PATH]
    assert [(one.author, one.state) for one in store.contributions("t")] == [
        ("verifier", State.KEPT),
        ("ada", State.DISCARDED),
    ]
    thief = Person(tmp_path, "thief").change(folder, "LEVEL = 1.0", "LEVEL = 1.5", at=start)
    assert "somebody else sent the same files" in send(store, thief).reason
    with pytest.raises(Refused, match="belongs to another key"):
        send(store, Person(tmp_path, "verifier").change(folder, "MORE = 0", "MORE = 3"))


def test_what_somebody_signed_before_the_verifier_has_measured_it_is_theirs(
    track, folder, store, tmp_path, monkeypatch
):
    change = ("LEVEL = 1.0", "LEVEL = 1.5")
    own, sent = own_proposals(tmp_path / "own", [change]), Person(tmp_path, "ada").change(folder, *change)
    observe = Judging.observe

    def meanwhile(self, ended):
        if not store.contributions("t"):
            send(store, sent)
        return observe(self, ended)

    monkeypatch.setattr(Judging, "observe", meanwhile)
    verify(folder, store, proposer=Contributions(store, "t", 0.15, own))
    assert [(one.author, one.state) for one in store.contributions("t")] == [("ada", State.KEPT)]
    assert verify_chain(Repository(folder.parent.parent), "t", tip_of(folder)[0]).sound


@pytest.mark.parametrize(("owner", "method"), [(Contributions, "_proposal"), (Judging, "observe")])
def test_what_ends_the_verifier_each_time_is_set_aside_and_holds_up_nobody(
    owner, method, track, folder, store, tmp_path, monkeypatch
):
    whole = getattr(owner, method)
    bad = send(store, Person(tmp_path, "eve").change(folder, "MORE = 0", "MORE = 1")).number
    kinds = [KeyboardInterrupt] * 4 + [Killed] * 9  # a person who stops it says nothing against it

    def die(self, what, *rest):
        if getattr(what, "number", 0) == bad or ("Judging" in repr(self) and what.trial.experiment == 1):
            raise kinds.pop(0)
        return whole(self, what, *rest)

    monkeypatch.setattr(owner, method, die)
    ends = 0
    while True:
        try:
            verify(folder, store)
            break
        except BaseException as end:
            assert type(end) in (KeyboardInterrupt, Killed), end
            ends += 1
    assert ends == 4 + 3
    good = send(store, Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 1.6")).number
    verify(folder, store)
    assert store.numbered(good).state is State.KEPT
    closed = store.numbered(bad)
    assert (
        closed.state in (State.REFUSED, State.DISCARDED)
        and "set aside: the verifier ended 3" in closed.reason
    )
    assert closed.digest in {
        e.data.get("contribution") for e in store.entries("t") if e.kind is not Kind.RECEIVED
    }
    assert verify_chain(Repository(folder.parent.parent), "t", tip_of(folder)[0]).sound


def test_a_verifier_that_hangs_ends_itself(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(proposer_module, "READY_SECONDS", 0.01)
    monkeypatch.setattr(proposer_module.os, "_exit", lambda code: ended.set())
    with proposer_module._limited():
        assert ended.wait(60)


def test_a_store_of_an_older_version_is_read(tmp_path):
    with closing(sqlite3.connect(tmp_path / "store.db")) as db:
        db.executescript(
            SCHEMA.replace(",\n    tries INTEGER NOT NULL DEFAULT 0", "").partition("CREATE UNIQUE")[0]
        )
        assert "tries" not in [row[1] for row in db.execute("PRAGMA table_info(contributions)")]
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.contributions("t") == [] and store.went_well("t") is None
