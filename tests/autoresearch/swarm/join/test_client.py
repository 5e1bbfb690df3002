"""Joining a track: a round on one's own machine, what is submitted, and going on from a new tip."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.swarm.chain.check import verify_chain
from autoresearch.swarm.join import client, outbox
from autoresearch.swarm.join.by_hand import by_hand
from autoresearch.swarm.join.client import clone, require_agreement, settings_of
from autoresearch.swarm.join.remote import Remote, Unreachable
from autoresearch.swarm.verify.verifier import verify
from tests.support.cli import environment
from tests.support.toy_task import PATH
from tests.support.tracks import Joiner, Person, tip_of

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.slow


def test_a_joiner_submits_what_its_judge_keeps_and_goes_on_from_the_new_tip(
    address, folder, track, store, tmp_path
):
    changes = [("LEVEL = 1.0", "LEVEL = 0.5"), ("LEVEL = 1.0", "LEVEL = 1.6")]
    ada = Joiner(tmp_path, "ada", f"{address}/t", changes)
    rows = ada.work()
    assert [row["state"] for row in rows] == ["waiting"] and "1.6" in rows[0]["title"]
    assert rows[0]["claim"] > 1
    assert ada.work() == rows  # nothing is sent twice
    verify(folder, store)
    ada.propose([("LEVEL = 1.6", "LEVEL = 2.2")])
    rows = ada.work()
    assert [row["state"] for row in rows] == ["kept", "waiting"], ada.said
    verify(folder, store)
    assert [one.state for one in store.contributions("t")] == ["kept", "kept"]
    tip, sources = tip_of(folder)
    assert "LEVEL = 2.2" in sources[PATH]
    ada.propose([])
    ada.work()
    chain = verify_chain(Repository(ada.root), "t", tip)
    assert chain.sound and [link.author for link in chain.links] == ["ada", "ada"]


def test_a_change_elsewhere_is_merged_onto_the_tip_and_one_of_the_same_line_comes_back(
    address, folder, store, tmp_path
):
    ada = Joiner(tmp_path, "ada", f"{address}/t", [("LEVEL = 1.0", "LEVEL = 1.5")])
    bob = Person(tmp_path, "bob")
    ada.work()
    remote, at = Remote(f"{address}/t"), tip_of(folder)
    assert remote.submit(bob.change(folder, "OTHER = 0", "OTHER = 'crash'", at=at))["state"] == "waiting"
    verify(folder, store)  # kept: ada's; measured on top of it, and discarded: bob's
    late = remote.submit(bob.change(folder, "LEVEL = 1.0", "LEVEL = 1.9", at=at))
    verify(folder, store)
    assert [(one.author, one.state) for one in store.contributions("t")[::-1]] == [
        ("ada", "kept"),
        ("bob", "discarded"),
        ("bob", "returned"),
    ]
    assert "on top of the tip" in remote.status(late["contribution"])["reason"]


def test_a_machine_on_which_the_tip_scores_otherwise_is_told_why(address, track, tmp_path, monkeypatch):
    about = track.about()
    moved = {**about, "best": {"mean": about["best"]["mean"] + 0.1, "interval": None}, "device": "another"}
    with pytest.raises(UserError, match="cannot serve the track") as error:
        require_agreement(track.folder, moved)
    assert "another" in error.value.hint
    require_agreement(track.folder, about)
    with pytest.raises(UserError, match="data"):
        require_agreement(track.folder, {**about, "data": "0" * 64})


@pytest.mark.parametrize(
    "setting", ["runs=/etc", "proposer=command", "sandbox=none", "tracking.uri=http://evil.test"]
)
def test_a_server_sets_nothing_but_what_a_score_means(setting):
    with pytest.raises(UserError, match="no business"):
        settings_of({"settings": ["task=toy", setting]})


def test_a_change_by_hand_from_a_clone(address, folder, store, tmp_path):
    remote, ada = Remote(f"{address}/t"), Person(tmp_path, "ada")
    root = tmp_path / "clone"
    clone(remote, root)
    patch = tmp_path / "more.patch"
    start = "LEVEL = 1.0  # 0..2\n"
    hunk = f"@@ -1,1 +1,1 @@\n-{start}+{start.replace('1.0', '1.7')}"
    patch.write_text(f"--- a/{PATH}\n+++ b/{PATH}\n{hunk}")
    row = by_hand(root, remote, ada.key, "ada", str(patch), "More of it\nBecause.")
    assert row["state"] == "waiting" and row["title"] == "More of it"
    with pytest.raises(UserError, match="neither a file nor a commit"):
        by_hand(root, remote, ada.key, "ada", "nothing", "")
    again = by_hand(root, remote, Person(tmp_path, "bob").key, "bob", str(patch), "Mine")
    assert again["state"] == "refused" and "somebody else sent the same files" in again["reason"]
    verify(folder, store)  # the tip moves, and what is checked out does not
    context = "".join(f" {line}" for line in (root / PATH).read_text().splitlines(keepends=True)[:12])
    change = context.replace(" OTHER = 0", "-OTHER = 0\n+OTHER = 7")
    patch.write_text(f"--- a/{PATH}\n+++ b/{PATH}\n@@ -1,12 +1,12 @@\n{change}")
    row = by_hand(root, remote, ada.key, "ada", str(patch), "Far from what was changed")
    assert row["state"] == "waiting"


def test_a_server_that_is_not_there_or_says_nonsense_is_told(tmp_path, httpserver):
    with pytest.raises(Unreachable, match="cannot be used now"):
        Remote("http://127.0.0.1:9/t").about()
    httpserver.expect_request("/api/tracks/t").respond_with_data("<html>")
    with pytest.raises(UserError, match="does not answer with JSON"):
        Remote(httpserver.url_for("/t")).about()
    httpserver.clear()
    httpserver.expect_request("/api/tracks/t").respond_with_data(json.dumps({"tip": "--upload-pack=x"}))
    with pytest.raises(UserError, match="does not say"):
        Remote(httpserver.url_for("/t")).about()


def test_a_joiner_does_not_train_what_the_track_or_an_earlier_round_has_tried(
    address, folder, track, store, tmp_path
):
    poor = ("MORE = 0", "MORE = 5")
    Remote(f"{address}/t").submit(Person(tmp_path, "bob").change(folder, *poor))
    verify(folder, store)  # discarded
    ada = Joiner(tmp_path, "ada", f"{address}/t", [poor, ("OTHER = 0", "OTHER = 7"), ("1.0", "1.6")])
    rows = ada.work()
    assert [row["title"] for row in rows] == ["ada: 1.0 becomes 1.6"]
    assert tried(ada) == [["ada: OTHER = 0 becomes OTHER = 7", "ada: 1.0 becomes 1.6"]]
    verify(folder, store)
    ada.propose([poor, ("OTHER = 0", "OTHER = 7"), ("1.6", "1.5")])
    ada.work()
    assert tried(ada)[1] == ["ada: 1.6 becomes 1.5"]
    assert [row["title"] for row in rows] == [row["title"] for row in ada.rows]


def tried(joiner):
    """What each round of a joiner has trained, the first round first."""
    found = []
    for path in sorted(joiner.root.glob("runs/*/journal.db"), key=lambda path: path.stat().st_ctime):
        with closing(Journal(path)) as journal:
            found.append((journal.info().created, [e.proposal.hypothesis for e in journal.decided()[1:]]))
    return [titles for _, titles in sorted(found)]


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("owner", "name", "late"),
    [
        (client, "fetch_chain", False),
        (outbox, "write", False),
        (Remote, "submit", True),
        (Journal, "draft", True),
    ],
)
def test_a_joiner_that_is_killed_between_two_steps_goes_on_and_sends_once(
    owner, name, late, address, folder, store, tmp_path, monkeypatch
):
    ada = Joiner(tmp_path, "ada", f"{address}/t", [("LEVEL = 1.0", "LEVEL = 1.6")])
    whole, killed = getattr(owner, name), []

    def kill(*args, **options):
        result = whole(*args, **options) if late else None
        killed.append(result)
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(owner, name, kill)
        ada.work()
    assert killed
    rows = ada.work()
    assert [row["state"] for row in rows] == ["waiting"], ada.said
    assert [one.author for one in store.contributions("t")] == ["ada"]
    assert ada.work() == rows and len(store.entries("t")) == 2


@pytest.mark.soak
def test_a_joiner_that_is_killed_at_random_moments_loses_nothing_and_sends_nothing_twice(
    address, folder, store, tmp_path
):
    changes = [("LEVEL = 1.0", "LEVEL = 1.5"), ("OTHER = 0", "OTHER = 7"), ("LEVEL = 1.5", "LEVEL = 1.9")]
    ada = Joiner(tmp_path, "ada", f"{address}/t", changes)
    env = {**environment(), "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "autoresearch", "join", f"{address}/t", "--as", "ada", "--folder"]
    command += [str(ada.root), "--key", str(ada.person.key.path), *ada.settings]
    moment = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen(command, env=env, cwd=tmp_path, start_new_session=True)
        try:
            process.wait(moment.uniform(0.2, 6.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    subprocess.run(command, env=env, cwd=tmp_path, check=True)
    titles = [one.title for one in store.contributions("t")[::-1]]
    assert titles == ["ada: LEVEL = 1.0 becomes LEVEL = 1.5", "ada: LEVEL = 1.5 becomes LEVEL = 1.9"]
    assert len(ada.rows) == 2 and len(store.entries("t")) == 3
    assert tried(ada) == [[f"ada: {old} becomes {new}" for old, new in changes]]
