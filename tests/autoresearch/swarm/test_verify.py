"""The verifier: the ordinary search measures and judges what strangers sent, and the store follows it."""

from dataclasses import replace

import pytest

from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.check import verify_chain
from autoresearch.swarm.chain.links import link_of
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import claimed
from autoresearch.swarm.store import State, Store
from autoresearch.swarm.verify import check_again, verify
from autoresearch.swarm.web.page import track_page
from tests.support.toy_task import ToyTask
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
        "autoresearch.swarm.verify.link_of", lambda search, e: replace(link_of(search, e), effect=0.5)
    )
    with open_search(["name=t"], "quiet", proposes=False) as search:
        assert check_again(search, store, 0.0) is False
        assert check_again(search, store, 1000.0) is True
    [flag] = [entry.data for entry in store.entries("t") if entry.kind is Kind.FLAGGED]
    assert flag["commit"] == tip_of(folder)[0] and "DOES NOT HOLD" in flag["reason"]
    assert "flagged" in track_page(track, "http://x/")
