"""The chain that the server and its verifier write, checked in a clone, and measured again there."""

import pytest

from autoresearch.search.setup.open import open_search
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.check import verify_chain
from autoresearch.swarm.chain.remeasure import remeasure
from autoresearch.swarm.join.outbox import fetch_chain
from autoresearch.swarm.verify.verifier import verify
from autoresearch.swarm.web.track import REF
from tests.support.tracks import LIMITS, Person, tip_of

pytestmark = pytest.mark.slow


def test_what_a_track_kept_is_verified_in_a_clone_and_holds_there(
    track, folder, store, tmp_path, monkeypatch
):
    ada, bob = Person(tmp_path, "ada"), Person(tmp_path, "bob")
    start = tip_of(folder)
    for person, old, new in ((ada, "LEVEL = 1.0", "LEVEL = 1.6"), (bob, "OTHER = 0", "OTHER = 3")):
        store.receive(person.change(folder, old, new, at=start), "10.0.0.0/24", 1.0, LIMITS)
    verify(folder, store)
    later = ada.change(folder, "LEVEL = 1.6", "LEVEL = 1.9")
    store.receive(later, "10.0.0.0/24", 1.0, LIMITS)
    verify(folder, store)
    root = tmp_path / "clone"
    tip, _ = tip_of(folder)
    clone = Repository.create(root, track.bundle(), f"{REF}t", tip)
    fetch_chain(clone, track.bundle(), "t")
    chain = verify_chain(clone, "t", tip, server_key=store.identity.public_key)
    assert chain.sound, chain
    assert [one.author for one in chain.links] == ["ada", "ada"]
    assert all(one.link.pairs and one.link.interval for one in chain.links)
    monkeypatch.chdir(root)
    asked = ["name=again", "tracking=none", "claim=0", *chain.about["settings"]]
    with open_search(asked, "quiet", proposes=False, start=chain.about["base"]) as search:
        found = remeasure(search, [one.link for one in chain.links], 2)
    assert [one.holds for one in found] == [True, True]
    assert all("environment" not in one.differs and "task" not in one.differs for one in found)
