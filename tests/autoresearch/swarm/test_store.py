"""The store: what arrives at the same time is written at once, and each sender is told of its own."""

import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from autoresearch.errors import Refused
from autoresearch.swarm.log import check
from autoresearch.swarm.store import Busy, OverQuota, State, Store
from tests.support.swarm import contribution, identity
from tests.support.tracks import LIMITS


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", patience=30.0) as store:
        store.add_track("tiny", {"tip": "a" * 40})
        yield store


def together(store, calls):
    """Call all at the same time: each has arrived before the first is written."""
    ready = threading.Barrier(len(calls) + 1)

    def one(call):
        ready.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        with store._lock:
            waiting = [pool.submit(one, call) for call in calls]
            ready.wait()
            while len(store._arrivals) < len(calls):
                time.sleep(0.01)
        return [future.result() for future in waiting]


def test_what_arrives_at_the_same_time_is_written_once_and_told_apart(store, tmp_path):
    ada, bob, eve = (identity(tmp_path, name) for name in ("ada", "bob", "eve"))
    good = [contribution(ada, author="ada", tree=f"{n:064x}") for n in range(4)]
    same = contribution(bob, author="bob", tree=f"{0:064x}")
    name = contribution(eve, author="ada", tree=f"{9:064x}")
    store.receive(good[0], "n1", 1.0, LIMITS)
    begun = []
    store._db.set_trace_callback(lambda text: begun.append(text) if text.startswith("BEGIN") else None)
    few = LIMITS.model_copy(update={"waiting": 3})
    sent = (*good, *good, same, name)
    found = together(store, [lambda one=one: store.receive(one, "n1", 1.0, few) for one in sent])
    assert len(begun) == 1
    kinds = Counter(one.state if hasattr(one, "state") else type(one) for one in found)
    assert kinds == {State.WAITING: 6, OverQuota: 2, State.REFUSED: 1, Refused: 1}
    assert "somebody else sent the same files" in found[8].reason and "belongs to another key" in str(
        found[9]
    )
    entries = list(check(store.entries("tiny"), store.identity.public_key))
    assert Counter(str(one.kind) for one in entries) == {"track": 1, "received": 3, "refused": 1}


def test_what_cannot_be_written_is_told_to_everybody_and_leaves_nothing(store, tmp_path):
    signed = [contribution(identity(tmp_path, n), author=n, tree=f"{i:064x}") for i, n in enumerate("abc")]
    store._db.execute("PRAGMA query_only = 1")
    found = together(store, [lambda one=one: store.receive(one, "n1", 1.0, LIMITS) for one in signed])
    assert [type(one) for one in found] == [Busy] * 3
    store._db.execute("PRAGMA query_only = 0")
    assert store.contributions("tiny") == []
    assert [store.receive(one, "n1", 1.0, LIMITS).state for one in signed] == [State.WAITING] * 3
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT COUNT(*) FROM people").fetchone() == (4,)
