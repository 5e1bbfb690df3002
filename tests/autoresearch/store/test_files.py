"""The files of a search: what `clean` removes, shortens and leaves alone; the digest of a tree."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.errors import UserError
from autoresearch.search.setup.open import _conclude
from autoresearch.search.setup.required import check_new
from autoresearch.store.calls import CallLog
from autoresearch.store.files import digest, keep_losses, read_losses
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Call, Cost, Measurement, Outcome, VerdictKind
from tests.support.faults import in_child
from tests.support.stub import git, make_search
from tests.support.toy_task import ToyTask


def call(*arguments, code=0, **options):
    result = CliRunner().invoke(app, list(arguments), **options)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_clean_removes_what_can_be_made_again_and_says_how_much(done):
    for name in (
        "trials/9",
        "standby/1-2",
        "compiled/inductor",
        "compiled.x1/inductor",
        "trusted/t",
        "agent/task",
    ):
        (done / name).mkdir(parents=True)
        (done / name / "file").write_bytes(os.urandom(100_000))
    before = Journal(done / "journal.db").experiments()
    said = call("clean", "name=x", "keep_logs=2")
    assert "trials 0.1 MB" in said and "compiled 0.2 MB" in said and "old losses" in said
    left = {p.name for p in done.iterdir() if not p.name.startswith("journal.db-")}  # of an open connection
    assert left <= {"journal.db", "lock", "losses", "report", "events.jsonl"}
    assert Journal(done / "journal.db").experiments() == before
    trials = {int(p.name) for p in (done / "losses").iterdir()}
    assert trials == {t.id for e in before if e.number in (0, 4, 5) or e.kept for t in e.trials}
    assert "nothing to remove" in call("clean", "name=x", "keep_logs=2")


def test_old_logs_are_cut_to_their_end(done):
    journal = Journal(done / "journal.db")
    for number in (1, 5):
        trial = journal.start_trial(number, "screen", 1, "c" * 40)
        journal.finish_trial(trial, Measurement(Outcome.CRASH, reason="r", log="x" * 9000 + "the end"))
    journal.close()
    assert "old logs" in call("clean", "name=x", "keep_logs=2")
    logs = {e.number: e.trials[-1].result.log for e in Journal(done / "journal.db").experiments()}
    assert len(logs[1]) == 2000 and logs[1].endswith("the end") and len(logs[5]) == 9007


def test_old_prompts_are_cut_to_their_end_and_what_they_cost_stays(done):
    calls, experiments = CallLog(done), Journal(done / "journal.db").experiments()
    for e in experiments[1:]:
        calls.record(
            Call(f"c{e.number}", "a:m", e.created, "x" * 9000 + "asked", "y" * 9000 + "said", "", Cost(1, 5))
        )
    spent = calls.spent("a")
    assert "old prompts" in call("clean", "name=x", "keep_logs=2")
    (old,), (new,) = calls.of("c3"), calls.of("c4")
    assert (len(old.asked), len(old.answered)) == (2000, 2000) and old.asked.endswith("asked")
    assert len(new.asked) == 9005 and calls.spent("a") == spent
    assert "old prompts" not in call("clean", "name=x", "keep_logs=2")


@pytest.mark.slow
@pytest.mark.parametrize("down", [False, True], ids=["mirrored", "mlflow down"])
def test_a_search_tidies_up_when_it_ends_unless_mlflow_has_not_seen_all(done, down):
    kept = sorted((done / "losses").iterdir())
    repository = Repository(done.parent.parent)
    search = make_search(repository, [], "experiments=5", "claim=0", "keep_logs=2")
    uri = f"sqlite:///{done}/journal.db/no/folder.db"
    mirror = Mirror(enabled=down, uri=uri, experiment="e", folder=done, sources=lambda commit: {})
    _conclude(search, mirror)
    left, experiments = sorted((done / "losses").iterdir()), search.journal.experiments()
    needed = {t.id for e in experiments if e.number in (0, 4, 5) or e.kept for t in e.trials}
    assert (left == kept) if down else ({int(p.name) for p in left} == needed)
    assert len(needed) < len(kept)


def test_a_search_that_runs_is_left_alone(done):
    (done / "trials/9").mkdir(parents=True)
    with lock(done):
        assert "left alone" in call("clean", "name=x")
        assert "left alone" in call("clean", "name=x", "--all", "--yes")
    assert (done / "trials/9").is_dir()


def test_all_removes_finished_searches_once_it_may(done):
    assert call("clean", "--all", input="n\n") and done.is_dir()
    journal = Journal(done / "journal.db")
    journal.update(finished=None)
    assert "has not ended" in call("clean", "--all", "--yes") and done.is_dir()
    journal.update(finished=9.0)
    journal.set("stopped", "yes")  # as a stop and a rejected key leave it
    assert "has not ended" in call("clean", "--all", "--yes") and done.is_dir()
    journal.set("stopped", "")
    journal.update(finished=1.0)
    journal.close()
    said = call("clean", "--all", "--yes")
    assert "all of it" in said and "clean --all --git name=x" in said
    assert not done.exists()
    assert git(done.parent.parent, "rev-parse", "--verify", "autoresearch/x"), "what was kept stays in git"


def refs(root: Path) -> str:
    return git(root, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/autoresearch")


@pytest.mark.parametrize("gone", [False, True], ids=["at once", "later"])
def test_a_name_is_free_again_when_git_s_part_is_removed_as_well(done, gone):
    root = done.parent.parent
    if gone:  # its folder was removed before
        call("clean", "--all", "--yes")
        with pytest.raises(UserError, match="earlier search x") as told:
            check_new("x", Repository(root), ToyTask())
        assert "clean --all --git name=x" in str(told.value.hint)
    git(root, "switch", "-q", "autoresearch/x")
    assert "left alone: autoresearch/x is checked out" in call("clean", "--all", "--git", "--yes", "name=x")
    git(root, "commit", "-q", "--allow-empty", "-m", "mine")
    git(root, "switch", "-q", "main")
    assert "are not of the search" in call("clean", "--all", "--git", "--yes", "name=x")
    assert "refs/heads/autoresearch/x" in refs(root) and done.exists() != gone
    git(root, "branch", "mine", "autoresearch/x")
    assert "removed from git: the branch autoresearch/x" in call("clean", "--all", "--git", "--yes", "name=x")
    assert refs(root).split() == ["refs/heads/main", "refs/heads/mine"] and not done.exists()
    with pytest.raises(UserError, match="needs toy"):  # and nothing of its name
        check_new("x", Repository(root), ToyTask())


def test_a_search_that_tried_nothing_has_a_branch_all_the_same(done):
    root = done.parent.parent
    git(root, "update-ref", "refs/heads/autoresearch/x", "main")
    for ref in refs(root).split():
        if ref.startswith("refs/autoresearch/x"):
            git(root, "update-ref", "-d", ref)
    assert "clean --all --git name=x" in call("clean", "--all", "--yes")
    assert "the branch autoresearch/x" in call("clean", "--all", "--git", "--yes", "name=x")
    assert refs(root) == "refs/heads/main"


def test_git_s_part_is_removed_only_with_the_whole_search(done):
    with pytest.raises(UserError, match="not enough"):
        call("clean", "--git", catch_exceptions=False)
    Journal(done / "journal.db").set("stopped", "yes")
    before = refs(done.parent.parent)
    assert "has not ended" in call("clean", "--all", "--git", "--yes") and refs(done.parent.parent) == before


@pytest.mark.parametrize("how", [["name=y"], [], ["--all", "--yes", "name=y"]])
def test_a_start_that_was_killed_is_removed(done, how):
    folder = done.parent / "y"

    def start() -> None:
        with lock(folder):
            Inbox(folder).add_idea("an idea")
            os._exit(9)  # while the data are prepared, say

    assert in_child(start) == 9 and folder.exists()
    with lock(folder):
        assert "left alone: The search y is already running" in call("clean", *how) and folder.exists()
    assert "y: " in (said := call("clean", *how)) and not folder.exists(), said
    assert (done / "journal.db").exists()
    with pytest.raises(UserError, match="no search called y"):
        call("clean", "name=y", catch_exceptions=False)


def test_phases_of_a_trial_are_in_the_timeline_once(done):
    journal = Journal(done / "journal.db")
    trial = journal.start_trial(5, "screen", 1, "c" * 40)
    phases = (("startup", 1.0, 2.0), ("train", 2.0, 5.0))
    journal.finish_trial(trial, replace(Measurement(Outcome.OK, 1.0), phases=phases))
    found = [(s.phase, s.started, s.finished) for s in journal.timeline(5) if s.trial == trial.id]
    assert found == [*phases] and journal.experiment(5).verdict.kind in VerdictKind
    assert journal.experiment(5).trials[-1].result.phases == ()


def test_kept_losses_are_read_back_without_items_of_no_weight(tmp_path):
    (scratch := tmp_path / "scratch").mkdir()
    np.save(scratch / "validation.npy", np.array([[2.0, 4.0], [0.0, 0.0], [3.0, 1.0]]))
    kept = keep_losses(scratch, tmp_path / "kept")
    assert [split for split, path in kept.items() if path.exists()] == ["validation"]
    table = read_losses(tmp_path / "kept")
    assert table is not None and table.tolist() == [[2.0, 4.0, 0.0], [3.0, 1.0, 2.0]], "each its own document"
    assert read_losses(tmp_path / "kept", "test") is None


def test_losses_of_old_searches_in_nats_and_bytes_give_the_score_in_bits_per_byte(tmp_path):
    np.save(tmp_path / "validation.npy", np.array([[np.log(2) * 30.0, 10.0]]))
    table = read_losses(tmp_path)
    assert table is not None and table[:, 0].sum() / table[:, 1].sum() == pytest.approx(3.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("A = 1\n")
    (tmp_path / "pkg" / "b.py").write_text("B = 1\n")
    return tmp_path


def test_the_same_tree_has_the_same_digest(tree: Path) -> None:
    assert digest(tree) == digest(tree)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename", "link", "folder"])
def test_any_change_is_seen(tree: Path, change: str) -> None:
    before, file = digest(tree), tree / "pkg" / "a.py"
    if change == "edit":
        file.write_text("A = 2\n")
    elif change == "add":
        (tree / "pkg" / "c.py").touch()
    elif change == "remove":
        file.unlink()
    elif change == "rename":
        file.rename(tree / "pkg" / "z.py")
    elif change == "link":
        file.unlink()
        file.symlink_to("b.py")
    else:
        (tree / "empty").mkdir()
    assert digest(tree) != before
