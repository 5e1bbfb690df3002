"""Searches that do not run: mirrored again, rebuilt in git, cleaned, removed."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.errors import UserError
from autoresearch.search.setup import _conclude
from autoresearch.store.calls import CallLog
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import lock
from autoresearch.tracking.mirror import Mirror
from autoresearch.types import Call, Cost, Measurement, Outcome, VerdictKind
from tests.support.stub import git, make_repository, make_search

SETTINGS = ["name=x", "budget=smoke", "executor.device=cpu", "tracking=none"]


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A finished search with two keeps, three discards, and losses of every trial; its folder."""
    repository = make_repository(tmp_path / "repo")
    search = make_search(repository, [0.5, 0.9, 0.3, 0.8, 0.7], "experiments=5", "claim=0", "tracking=none")
    search.journal.update(config={**search.config.model_dump(mode="json"), "overrides": SETTINGS})
    search.run()
    assert [e.kept for e in search.journal.experiments()[1:]].count(True) == 2
    for trial in (t for e in search.journal.experiments() for t in e.trials):
        folder = search.folder / f"losses/{trial.id}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "validation.npy").write_bytes(b"x" * 100)
    search.journal.close()
    monkeypatch.chdir(repository.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return search.folder


def call(*arguments, code=0, **options):
    result = CliRunner().invoke(app, list(arguments), **options)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_mlflow_is_rebuilt_for_a_search_that_ran_without_and_for_a_store_that_was_deleted(done):
    from mlflow.tracking import MlflowClient

    def runs():
        client = MlflowClient(tracking_uri=f"sqlite:///{done.parent}/./mlflow/mlflow.db")
        (experiment,) = (e for e in client.search_experiments() if e.name == "autoresearch")
        return client, client.search_runs([experiment.experiment_id])

    assert "6 experiments are as in the journal" in call("sync", "name=x")
    client, found = runs()
    assert len(found) == 7 and sum("mlflow.parentRunId" in run.data.tags for run in found) == 6
    # Something was lost of what the journal takes for mirrored: it comes back too.
    client.delete_run(next(r for r in found if "mlflow.parentRunId" in r.data.tags).info.run_id)
    call("sync", "name=x")
    assert len(runs()[1]) == 7


def test_a_store_that_does_not_answer_is_said(done):
    (done.parent / "closed").write_text("")
    with pytest.raises(UserError, match="nothing to bring up to date"):
        CliRunner().invoke(app, ["sync", "name=x", "tracking=none"], catch_exceptions=False)
    said = call("sync", "name=x", f"tracking.uri=sqlite:///{done.parent}/closed/mlflow.db", code=3)
    assert "is not up to date" in said


def refs_of(root):
    return git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch", "refs/heads")


def forget(root):
    """Make git lose whatever a search has made."""
    for line in refs_of(root).splitlines():
        if "autoresearch" in line:
            git(root, "update-ref", "-d", line.split()[0])
    shutil.rmtree(root / ".git/worktrees", ignore_errors=True)
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "gc", "-q", "--prune=now")


def test_git_is_rebuilt_from_the_journal_to_the_byte(done):
    root = done.parent.parent
    refs, log = refs_of(root), git(root, "log", "autoresearch/x")
    for line in refs.splitlines():
        if "autoresearch" in line:
            git(root, "update-ref", "-d", line.split()[0])
    said = call("sync", "name=x", "--git")
    assert "5 candidates can be reached" in said and "made again" not in said and refs_of(root) == refs
    forget(root)
    git(root, "branch", "autoresearch/x", "main")
    said = call("sync", "name=x", "--git")
    assert "made again, the same to the byte: 1, 2, 3, 4, 5" in said and "are gone" not in said
    assert refs_of(root) == refs and git(root, "log", "autoresearch/x") == log
    assert git(root, "worktree", "list").count("\n") == 0 and git(root, "status", "--porcelain") == ""


def test_what_cannot_be_made_the_same_again_is_said_and_left_out(done):
    root = done.parent.parent
    kept = [e.number for e in Journal(done / "journal.db").experiments() if e.kept]
    forget(root)
    journal = Journal(done / "journal.db")
    with journal._write() as db:
        changed = "UPDATE experiments SET proposal = replace(proposal, 'set ', 'let ') WHERE number = ?"
        db.execute(changed, (kept[-1],))
    journal.close()
    said = call("sync", "name=x", "--git")
    tail = ", ".join(map(str, range(kept[-1], 6)))  # those after it build on it
    assert f"are gone, their diffs are not: {tail}" in said and "cannot be made" in said
    assert f"refs/autoresearch/x/{kept[-1]:04d}" not in refs_of(root) and "heads/autoresearch" not in refs_of(
        root
    )


def test_a_commit_with_a_trailer_of_an_older_version_is_known_but_cannot_be_made_again(done):
    root, journal = done.parent.parent, Journal(done / "journal.db")
    last = journal.experiment(5)
    message = git(root, "log", "-1", "--format=%B", last.commit) + "\nMLflow-Run: 0123\n"
    old = git(root, "commit-tree", f"{last.commit}^{{tree}}", "-p", last.parent, "-m", message)
    journal.recorded(5, old)
    journal.close()
    assert "5 candidates can be reached" in call("sync", "name=x", "--git")
    assert git(root, "rev-parse", "refs/autoresearch/x/0005") == old
    forget(root)
    assert "are gone, their diffs are not: 5" in call("sync", "name=x", "--git")


def test_a_branch_with_somebody_s_work_is_left_alone(done):
    root = done.parent.parent
    git(root, "switch", "-q", "autoresearch/x")
    git(root, "commit", "-q", "--allow-empty", "-m", "mine")
    mine = git(root, "rev-parse", "HEAD")
    git(root, "switch", "-q", "main")
    assert "not of this search: left as it is" in call("sync", "name=x", "--git")
    assert git(root, "rev-parse", "autoresearch/x") == mine


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
    assert {p.name for p in done.iterdir()} <= {"journal.db", "lock", "losses", "report", "events.jsonl"}
    assert Journal(done / "journal.db").experiments() == before
    left = {int(p.name) for p in (done / "losses").iterdir()}
    assert left == {t.id for e in before if e.number in (0, 4, 5) or e.kept for t in e.trials}
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
    search.worktree.remove()


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
    journal.update(finished=1.0)
    journal.close()
    assert "all of it" in call("clean", "--all", "--yes")
    assert not done.exists()
    assert git(done.parent.parent, "rev-parse", "--verify", "autoresearch/x"), "what was kept stays in git"


def test_the_status_says_where_the_time_went(done):
    told = json.loads(call("status", "name=x", "--json"))["time"]
    assert told["wall_seconds"] >= 0 and "record" in told["phases"]


def test_a_trace_is_written(done):
    assert "trace: " in call("trace", "name=x")
    assert (done / "report/trace.json").stat().st_size > 100


def test_phases_of_a_trial_are_in_the_timeline_once(done):
    journal = Journal(done / "journal.db")
    trial = journal.start_trial(5, "screen", 1, "c" * 40)
    phases = (("startup", 1.0, 2.0), ("train", 2.0, 5.0))
    journal.finish_trial(trial, replace(Measurement(Outcome.OK, 1.0), phases=phases))
    found = [(s.phase, s.started, s.finished) for s in journal.timeline(5) if s.trial == trial.id]
    assert found == [*phases] and journal.experiment(5).verdict.kind in VerdictKind
    assert journal.experiment(5).trials[-1].result.phases == ()
