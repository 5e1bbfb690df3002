"""Git and MLflow are brought up to date from the journal: rebuilt, or said to be beyond that."""

import shutil

import pytest
from typer.testing import CliRunner

from autoresearch.cli import app
from autoresearch.errors import UserError
from autoresearch.store.journal import Journal
from tests.support.stub import git

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def store(done, empty_store):
    """The search's own MLflow store has its schema, and no runs."""
    (done.parent / "mlflow").mkdir()
    shutil.copy(empty_store / "mlflow.db", done.parent / "mlflow")


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
    said = call("sync", "name=x", "--git", "tracking=none")
    assert "5 candidates can be reached" in said and "made again" not in said and refs_of(root) == refs
    forget(root)
    git(root, "branch", "autoresearch/x", "main")
    said = call("sync", "name=x", "--git", "tracking=none")
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
    said = call("sync", "name=x", "--git", "tracking=none")
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
    assert "5 candidates can be reached" in call("sync", "name=x", "--git", "tracking=none")
    assert git(root, "rev-parse", "refs/autoresearch/x/0005") == old
    forget(root)
    assert "are gone, their diffs are not: 5" in call("sync", "name=x", "--git", "tracking=none")


def test_a_branch_with_somebody_s_work_is_left_alone(done):
    root = done.parent.parent
    git(root, "switch", "-q", "autoresearch/x")
    git(root, "commit", "-q", "--allow-empty", "-m", "mine")
    mine = git(root, "rev-parse", "HEAD")
    git(root, "switch", "-q", "main")
    assert "Somebody moved the branch" in call("sync", "name=x", "--git", "tracking=none")
    assert git(root, "rev-parse", "autoresearch/x") == mine


def test_what_a_person_has_stays_through_sync_and_clean(done):
    root = done.parent.parent
    (root / "runs" / "mine").mkdir()
    (root / ".git" / "info" / "exclude").write_text("ignored\n")
    for name in ("untracked", "ignored", "staged", "runs/mine/notes", "runs/lock.txt"):
        (root / name).write_text(name)
    git(root, "add", "staged")
    (root / ".gitignore").write_text("runs/\n# dirty\n")

    def has():
        own = [
            p
            for p in sorted(root.rglob("*"))
            if p.is_file() and ".git" not in p.parts and done not in p.parents
        ]
        kept = {p: p.read_bytes() for p in own if "mlflow" not in p.parts}
        return kept, [(root / ".git" / name).read_bytes() for name in ("index", "HEAD", "config")]

    before = has()
    forget(root)
    assert "git: 5 candidates can be reached" in call("sync", "--git", "name=x")
    call("clean")
    assert has() == before
    call("clean", "--all", "--git", "--yes")
    assert has() == before and not done.exists()
