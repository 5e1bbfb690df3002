"""Speaking to a search from another process: notes, ideas, patches, pause, resume, stop."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from autoresearch.types import Category, Proposal
from tests.support.searches import INFO
from tests.support.stub import PATH, SCRIPT, make_repository

PATCH = f"--- a/{PATH}\n+++ b/{PATH}\n@@ -1 +1 @@\n-LEVEL = 1.0  # 0..2\n+LEVEL = 0.5  # 0..2\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    repository = make_repository(tmp_path / "repo")
    monkeypatch.chdir(repository.root)
    config = load(["budget=smoke", "executor.device=cpu"], {}).model_dump(mode="json")
    for number, name in enumerate(("old", "new")):
        base = repository.resolve("HEAD")
        info = replace(INFO, name=name, config=config, base_commit=base, created=INFO.created + number)
        Journal.create(repository.root / "runs" / name / "journal.db", info).close()
    return repository.root


def say(*arguments):
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def inbox(root, name="new"):
    return Inbox(root / "runs" / name)


def test_a_note_goes_to_the_search_that_is_named_or_the_latest(root):
    said = say("note", "try fewer heads")
    assert "Noted for new" in said and "The proposer optuna reads neither the brief nor notes" in said
    say("note", "and", "more", "depth", "name=old")
    assert inbox(root).notes() == ("try fewer heads",) and inbox(root, "old").notes() == ("and more depth",)
    with pytest.raises(UserError, match="nothing to say"):
        say("note", "name=old")
    with pytest.raises(UserError, match="no search called none"):
        say("note", "hello", "name=none")


def test_the_life_of_ideas(root, tmp_path):
    patch = tmp_path / "mine.diff"
    patch.write_text(PATCH)
    assert "There are no ideas" in say("idea", "list")
    said = say("idea", "add", "tie the embeddings")
    assert "Idea 1 waits in new" in said and "no model reads it there" in said
    assert "Idea 2 waits in new" in say("idea", "add", "half the level", "--patch", str(patch))
    assert "Idea 3 waits in new" in say("idea", "add", "--patch", str(patch))
    say("idea", "drop", "1")
    journal = Journal(root / "runs" / "new" / "journal.db")
    journal.add(Proposal("half", Category.OTHER, (), "queue", idea=2), "b" * 40)
    journal.close()
    inbox(root).take(2)
    lines = say("idea", "list", "name=new").splitlines()
    assert [line.split() for line in lines] == [
        ["1", "words", "tie", "the", "embeddings", "[dropped]"],
        ["2", "patch", "half", "the", "level", "[taken", "(experiment", "1)]"],
        ["3", "patch", "patch", "mine.diff", "[open]"],
    ]
    assert inbox(root).ideas()[0].patch == PATCH


@pytest.mark.parametrize(
    ("content", "says"),
    [(PATCH.replace("1.0", "7.0"), "nearest text"), ("words", "no change"), (None, "cannot be read")],
)
def test_a_patch_that_does_not_apply_is_refused_at_once(root, tmp_path, content, says):
    path = tmp_path / "bad.diff"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=says):
        say("idea", "add", "--patch", str(path))
    assert not inbox(root).ideas() and (root / PATH).read_text() == SCRIPT


def runner(root, name, value):
    journal = Journal(root / "runs" / name / "journal.db")
    journal.set("lease", value)
    journal.close()


def test_pause_resume_stop(root):
    say("idea", "add", "an idea")
    for name in ("new", "old"):
        runner(root, name, Lease.ours().to_json())
    assert "resume name=new" in say("pause", "name=new") and inbox(root).wished == "pause"
    assert "asked to pause (go on with: autoresearch resume), 1 open idea" in say("status", "name=new")
    say("resume", "name=new")
    assert inbox(root).wished == "run"
    said = say("stop", "name=old")
    assert "No claim follows" in said and "autoresearch claim name=old" in said
    assert "run name=old" in said and inbox(root, "old").wished == "stop"
    say("resume", "name=old")  # within seconds: it was not heard yet
    assert inbox(root, "old").wished == "run"


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
def test_a_search_that_nobody_runs_is_not_asked_for_anything(root, command):
    runner(root, "new", replace(Lease.ours(), born=1.0).to_json())
    for _ in range(2):
        with pytest.raises(UserError, match="No process runs new") as told:
            say(command)
        assert "run name=new" in told.value.hint and inbox(root).wished == "run"
        runner(root, "new", "")
    inbox(root).wish("pause")  # left by a search that was killed
    inbox(root).begin()
    assert inbox(root).wished == "run"
