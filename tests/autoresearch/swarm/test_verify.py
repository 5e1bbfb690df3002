"""The verifier: the ordinary search measures and judges what strangers sent, and the store follows it."""

import pytest

from autoresearch.swarm.queue import claimed
from autoresearch.swarm.store import State
from autoresearch.swarm.verify import verify
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
