"""Moderation: bans, hidden texts, a branch without somebody's commits, backup and restore."""

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.log import check
from autoresearch.swarm.moderate import back_up, hide, remove, restore
from autoresearch.swarm.store import Store
from autoresearch.swarm.verify.verifier import verify
from autoresearch.swarm.web.track import Track
from tests.support import toy_task
from tests.support.tracks import LIMITS, Person, tip_of

pytestmark = pytest.mark.slow


def test_a_branch_is_rebuilt_without_the_commits_of_one_and_the_others_are_measured_again(
    track, folder, store, tmp_path
):
    eve, ada = Person(tmp_path, "eve"), Person(tmp_path, "ada")
    store.receive(eve.change(folder, "OTHER = 0", "OTHER = 9"), "n1", 1.0, LIMITS)
    store.receive(eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"), "n1", 1.0, LIMITS)
    verify(folder, store)
    store.receive(ada.change(folder, "LEVEL = 1.6  # 0..2", "LEVEL = 2.2  # 0..2"), "n2", 1.0, LIMITS)
    verify(folder, store)
    assert "LEVEL = 2.2" in tip_of(folder)[1][toy_task.PATH]
    taken = remove(folder, store, eve.key.fingerprint, "a cheat")
    assert len(taken) == 1
    assert tip_of(folder)[0] == track.journal.info().base_commit
    assert Repository(folder.parent.parent).branch("autoresearch/t")[0] == tip_of(folder)[0]
    verify(folder, store)  # ada's change was one of eve's line: it does not fit without that
    states = {(one.author, str(one.state)) for one in store.contributions("t")}
    assert ("eve", "kept") not in states and ("eve", "removed") in states
    told = [entry.data for entry in store.entries("t") if entry.kind == "moderated"]
    assert [data["action"] for data in told] == ["remove"] and told[0]["reason"] == "a cheat"
    assert list(check(store.entries("t"), store.identity.public_key))


def test_who_is_banned_sends_nothing_more_and_what_is_hidden_is_not_shown(track, folder, store, tmp_path):
    eve = Person(tmp_path, "eve")
    first = store.receive(eve.change(folder, "MORE = 0", "MORE = 1", title="insult"), "n1", 1.0, LIMITS)
    assert "insult" in str(track.contributions())
    hide(store, "t", [first.number], "rude")
    assert "insult" not in str(track.contributions()) and "rude" in str(track.contributions())
    assert store.ban(store.person("eve"), "floods") == 1
    assert store.find(first.digest).state == "refused"
    with pytest.raises(Refused, match="banned here: floods"):
        store.receive(eve.change(folder, "MORE = 0", "MORE = 2"), "n1", 1.0, LIMITS)
    store.ban(store.person("eve"), "")
    assert store.receive(eve.change(folder, "MORE = 0", "MORE = 3"), "n1", 1.0, LIMITS).state == "waiting"
    with pytest.raises(UserError, match="no contribution"):
        hide(store, "t", [99], "x")
    with pytest.raises(UserError, match="Nobody is known"):
        store.person("nobody")


def test_a_backup_is_restored_with_log_key_and_chain_and_goes_on(track, folder, store, tmp_path, monkeypatch):
    ada = Person(tmp_path, "ada")
    store.receive(ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"), "n1", 1.0, LIMITS)
    verify(folder, store)
    store.receive(ada.change(folder, "LEVEL = 1.6", "LEVEL = 2.2"), "n1", 1.0, LIMITS)
    file = tmp_path / "t.backup"
    back_up(folder.parent, ["t"], Repository(folder.parent.parent), file)
    assert file.stat().st_mode & 0o077 == 0
    root = toy_task.make_repository(tmp_path / "other")
    monkeypatch.chdir(root)
    assert restore(file, Repository(root), root / "runs") == ["t"]
    with pytest.raises(UserError, match="holds a store already"):
        restore(file, Repository(root), root / "runs")
    with Store(root / "runs" / "swarm") as restored:
        assert restored.identity.public_key == store.identity.public_key
        assert [entry.hash for entry in restored.entries("t")] == [entry.hash for entry in store.entries("t")]
        again = Track(root / "runs" / "t", restored, Repository(root))
        again.begin()
        verify(root / "runs" / "t", restored)
        assert [row["state"] for row in again.contributions()] == ["kept", "kept"]
        again.close()
