"""What a killed run, a full disk or a tidy person leaves behind: the next `run` goes on."""

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from autoresearch.errors import UserError
from autoresearch.execute.base import Cancelled
from autoresearch.search.loop import Search
from autoresearch.search.recovery import end_orphans
from autoresearch.store import connection
from autoresearch.store.git.repository import Repository
from autoresearch.types import Progress
from tests.support import toy
from tests.support.gpt import make_measurer, measure
from tests.support.stub import git, make_repository, make_search, measurer, said

IDEAS: list[float | str] = [0.2, "OTHER = 7", 0.1]


def half_done(root: Path) -> Search:
    """A search of three that has come through one experiment."""
    search = make_search(make_repository(root), IDEAS, "experiments=1")
    search.run()
    return search


def goes_on(search: Search) -> None:
    """The same command again ends as it should."""
    root = search.repository.root
    search.journal.close()
    again = make_search(search.repository, IDEAS, "experiments=3")
    again.run()
    assert [e.verdict.kind.value for e in again.journal.experiments() if e.verdict] == [
        "keep",
        "discard",
        "keep",
    ]
    refs = git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/x").split()
    assert refs == [e.commit for e in again.journal.experiments()[1:]]
    assert git(root, "rev-parse", "autoresearch/x") == again.state.incumbent.commit == refs[-1]
    left = (path for pattern in ("trials/*", "compiled.*", "worktree") for path in again.folder.glob(pattern))
    assert not list(left) and git(root, "worktree", "list").count("\n") == 0


def lock_refs(search: Search) -> None:
    for ref in ("refs/heads/autoresearch/x", "refs/autoresearch/x/0001"):
        (search.repository.root / ".git" / f"{ref}.lock").touch()


def delete_refs(search: Search) -> None:
    for ref in ("refs/autoresearch/x/0001", "refs/heads/autoresearch/x"):
        git(search.repository.root, "update-ref", "-d", ref)


def leave_the_worktree_of_an_older_version(search: Search) -> None:
    git(search.repository.root, "worktree", "add", "-q", "--detach", str(search.folder / "worktree"))


def keep_half_a_compile_cache(search: Search) -> None:
    (search.folder / "compiled.abc").mkdir()


def leave_a_trial(search: Search) -> None:
    (search.folder / "trials" / "7" / "scratch").mkdir(parents=True)
    search.journal.start_trial(1, "confirm", 9, search.state.incumbent.commit)


def go_back_to_version_1(search: Search) -> None:
    """Leaves what the first version of this program would have left."""
    info = {key: value for key, value in asdict(search.journal.info()).items() if key != "metric"}
    search.journal.set("info", json.dumps(info))
    db = search.journal._db
    for index in ("experiments_by_version", "experiments_by_dirty", "experiments_by_decided"):
        db.execute(f"DROP INDEX {index}")
    db.execute("DROP INDEX trials_by_finished")
    for column in ("version", "fingerprint", "decided"):
        db.execute(f"ALTER TABLE experiments DROP COLUMN {column}")
    db.execute("ALTER TABLE trials DROP COLUMN place")
    for table in ("drafts", "timeline"):
        db.execute(f"DROP TABLE {table}")
    db.execute("PRAGMA user_version = 1")


LEFTOVERS = [
    lock_refs,
    delete_refs,
    leave_the_worktree_of_an_older_version,
    keep_half_a_compile_cache,
    leave_a_trial,
    go_back_to_version_1,
]


@pytest.mark.slow
@pytest.mark.parametrize("leave", LEFTOVERS, ids=lambda leave: leave.__name__)
def test_leftovers_do_no_harm(tmp_path: Path, leave) -> None:  # type: ignore[no-untyped-def]
    search = half_done(tmp_path / "repo")
    leave(search)
    goes_on(search)


def elsewhere(search: Search, root: Path) -> Repository:
    """A fresh clone of what the search began with, and beside it a copy of its folder."""
    git(search.repository.root, "clone", "-q", "--no-local", "--single-branch", ".", str(root))
    shutil.copytree(search.repository.root / "runs", root / "runs")
    return Repository(root)


def log(search: Search) -> str:
    return git(search.repository.root, "log", "autoresearch/x")


def test_a_search_goes_on_beside_a_fresh_clone_and_git_log_is_the_same(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), IDEAS, "experiments=2")
    search.run()
    search.journal.close()
    before = git(search.repository.root, "for-each-ref")
    again = make_search(elsewhere(search, tmp_path / "clone"), IDEAS, "experiments=3")
    again.run()
    assert "Made 2 commits again that git had lost." in said(again)
    there = git(search.repository.root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch")
    here = git(again.repository.root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch")
    assert here.split()[:2] == there.split() and len(here.split()) == 3
    assert log(again).endswith(log(search)) and log(again) != log(search)
    assert git(search.repository.root, "for-each-ref") == before, "the copy has touched the original"


def test_only_what_the_search_rests_on_must_be_there(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), IDEAS, "experiments=2")
    search.run()

    def spoil(number: int) -> None:
        with search.journal._write() as db:
            db.execute(
                "UPDATE experiments SET proposal = replace(proposal, 'set ', 'let ') WHERE number = ?",
                (number,),
            )

    spoil(2)  # discarded: nothing needs its commit
    again = make_search(elsewhere(search, tmp_path / "one"), IDEAS, "experiments=3")
    again.run()
    assert "Git has lost the commits of experiments 2; the search goes on." in said(again)
    spoil(1)  # kept: everything builds on it
    again = make_search(elsewhere(search, tmp_path / "two"), IDEAS, "experiments=3")
    with pytest.raises(UserError, match="commit of experiment 1 is gone") as told:
        again.run()
    assert told.value.code == 3 and "git fetch" in told.value.hint


def checkout(root: Path) -> list[object]:
    """All that a person has: HEAD, index, files, branches of their own."""
    files = {
        p: p.read_bytes() for p in root.rglob("*") if p.is_file() and not {".git", "runs"} & set(p.parts)
    }
    branches = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads").splitlines()
    own = [line for line in branches if "autoresearch/x" not in line]
    index = (root / ".git" / "index").read_bytes()
    return [(root / ".git" / "HEAD").read_bytes(), index, files, own, git(root, "stash", "list")]


SITUATIONS = {
    "a hook": {"GIT_DIR": ".git", "GIT_INDEX_FILE": ".git/index", "GIT_PREFIX": ""},
    "an editor": {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_OPTIONAL_LOCKS": "1"},
}


@pytest.mark.parametrize("situation", [*SITUATIONS, "sparse checkout", "in the middle of a merge"])
def test_whatever_state_git_is_in_the_person_s_checkout_stays_as_it_was(
    tmp_path: Path, situation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_repository(tmp_path / "repo").root
    (root / "docs").mkdir()
    (root / "docs" / "mine").write_text("untracked")
    (root / ".gitignore").write_text("runs/\n# dirty\n")
    (root / "staged").write_text("staged")
    git(root, "add", "staged")
    if situation == "sparse checkout":
        git(root, "sparse-checkout", "set", "docs")
    if situation == "in the middle of a merge":
        (root / ".git" / "MERGE_HEAD").write_text(git(root, "rev-parse", "HEAD") + "\n")
    before = checkout(root)
    with monkeypatch.context() as patch:
        for name, value in SITUATIONS.get(situation, {}).items():
            patch.setenv(name, str(root / value) if value else value)
        search = make_search(Repository(root), IDEAS)
        search.run()
        assert [e.kept for e in search.journal.experiments()[1:]] == [True, False, True]
    assert checkout(root) == before
    assert git(root, "rev-parse", "autoresearch/x") == search.state.incumbent.commit
    assert git(root, "worktree", "list").count("\n") == 0


def test_a_commit_of_a_person_on_the_branch_is_never_overwritten(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), IDEAS)
    root, ref = search.repository.root, "refs/heads/autoresearch/x"
    mine = ""

    def commit() -> None:
        nonlocal mine
        if search.state.tried == 3 and not mine:  # one change is kept, and the next will be
            tip = git(root, "rev-parse", ref)
            mine = git(root, "commit-tree", "-p", tip, "-m", "mine", f"{tip}^{{tree}}")
            git(root, "update-ref", ref, mine, tip)

    measurer(search).on_run = commit
    with pytest.raises(UserError, match=f"Somebody moved the branch autoresearch/x to {mine[:10]}") as told:
        search.run()
    assert mine and git(root, "rev-parse", ref) == mine and f"git branch mine {mine[:10]}" in told.value.hint
    search.journal.close()
    git(root, "branch", "mine", mine)
    git(root, "branch", "-D", "autoresearch/x")
    goes_on(search)
    assert git(root, "rev-parse", "mine") == mine


def test_a_branch_that_is_checked_out_stays_until_it_is_left(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), IDEAS, "experiments=1")
    root, base = search.repository.root, git(search.repository.root, "rev-parse", "HEAD")

    def look() -> None:
        if search.state.tried == 1 and git(root, "branch", "--show-current") == "main":
            git(root, "switch", "-q", "autoresearch/x")

    measurer(search).on_run = look
    search.run()
    assert git(root, "status", "--porcelain") == "" and git(root, "rev-parse", "HEAD") == base
    assert any(f"autoresearch/x is checked out in {root}" in line for line in said(search))
    git(root, "switch", "-q", "main")
    goes_on(search)


def test_a_full_disk_is_an_error_that_can_be_mended_and_nothing_is_lost(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), IDEAS)
    db, calls = search.journal._db, iter(range(100))

    def fill() -> None:
        if next(calls) == 4:  # the file may not grow any more
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")

    measurer(search).on_run = fill
    with pytest.raises(UserError, match="full") as told:
        search.run()
    assert told.value.code == 3 and "same command" in told.value.hint
    goes_on(search)


def test_a_reader_may_hold_the_journal_and_a_writer_is_waited_for_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = half_done(tmp_path / "repo")
    reader = sqlite3.connect(search.journal.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM experiments").fetchall()
    search.config = search.config.model_copy(update={"experiments": 2})
    search.run()  # a reader in the middle of its transaction is in nobody's way
    reader.execute("ROLLBACK")
    writer = sqlite3.connect(search.journal.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    search.journal._db.execute("PRAGMA busy_timeout = 10")
    search.config = search.config.model_copy(update={"experiments": 3})
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.0)
    with pytest.raises(UserError, match="cannot be written: database is locked") as told:
        search.run()
    assert told.value.code == 3 and "another process" in told.value.hint
    monkeypatch.setattr(connection, "WAIT_SECONDS", 3600.0)
    waited: list[str] = []

    def say(text: str) -> None:
        waited.append(text)
        writer.execute("ROLLBACK")

    search.journal.say = say
    search.run()
    assert len(waited) == 1 and f"a lock on {search.journal.path}" in waited[0]
    goes_on(search)


RUNNER = """
import sys
from pathlib import Path
from tests.support.gpt import make_measurer, measure
from autoresearch.store.lock import lock
folder = Path(sys.argv[1])
with lock(folder):
    more = dict(trusted=folder / "trusted", amount=10**9, startup_seconds=300.0)
    runner = make_measurer(folder / "cache", **more)
    told = lambda progress: print(progress.phase, flush=True)
    measure(runner, folder / "code", folder / "scratch", told)
"""


@pytest.mark.slow
def test_killed_with_9_no_process_and_no_lock_of_a_real_trial_survives(tmp_path: Path) -> None:
    toy.write_cache(tmp_path / "cache", train=50_000, validation=1_501)
    code = toy.write_code(tmp_path / "code", toy.TRAIN)
    shutil.copytree(code, tmp_path / "trusted")
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith(("start-up", "train")):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4  # a trainer and two servers in their jails, and the scorer
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    end_orphans(tmp_path)
    deadline = time.monotonic() + 90
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.soak
def test_a_real_trial_that_is_not_needed_any_more_leaves_no_process(tmp_path: Path) -> None:
    cache = toy.write_cache(tmp_path / "cache", train=50_000, validation=1_501)
    code = toy.write_code(tmp_path / "code", toy.TRAIN)
    runner = make_measurer(cache, amount=10**9)

    def unneeded(progress: Progress) -> None:
        if progress.phase == "train":
            raise Cancelled

    def jailed() -> list[psutil.Process]:
        inside = str(tmp_path / "scratch")
        children = psutil.Process().children(recursive=True)
        return [p for p in children if p.is_running() and inside in p.environ().get("HOME", "")]

    try:
        with pytest.raises(Cancelled):
            measure(runner, code, tmp_path / "scratch", unneeded)
        assert jailed() == []
    finally:
        runner.close()


@pytest.mark.slow
def test_orphans_are_known_by_what_only_the_runner_gives_them(tmp_path: Path) -> None:
    def sleeper(**environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], **environment})

    environment = {"PATH": os.environ["PATH"], "HARNESS_FD": "3", "PYTHONPATH": f"{tmp_path}/x/trials"}
    leave = ["sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!"]
    orphan = int(subprocess.run(leave, env=environment, capture_output=True, check=True).stdout)
    bystanders = [sleeper(), sleeper(PYTHONPATH=str(tmp_path / "x")), sleeper(HARNESS_FD="3")]
    try:
        assert end_orphans(tmp_path / "y") == 0 and psutil.pid_exists(orphan)
        assert end_orphans(tmp_path / "x") == 1
        assert all(process.poll() is None for process in bystanders)
    finally:
        for process in bystanders:
            process.kill()
            process.wait()
