import json
import shutil
import subprocess
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.store.git import Repository


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "train.py").write_text("A = 1\n")
    (root / "pkg" / "other.py").write_text("B = 1\n")
    (root / ".gitignore").write_text("runs/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


def test_a_candidate_is_a_commit_and_the_checkout_is_not_touched(root: Path) -> None:
    (root / "pkg" / "train.py").write_text("A = 'half an idea of the user'\n")
    (root / "new.txt").write_text("untracked")
    git(root, "add", "new.txt")
    before = (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"), git(root, "branch"))
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    tree = repository.worktree(root / "runs" / "x" / "worktree", base)
    commit = tree.commit(base, {"pkg/train.py": "A = 2\n"}, "subject\n\nbody", 1000.0)
    repository.update_refs({"refs/autoresearch/x/0001": commit})
    assert (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"), git(root, "branch")) == before
    assert repository.sources(commit, ["pkg/train.py"]) == {"pkg/train.py": "A = 2\n"}
    assert git(root, "diff", "--name-only", base, commit) == "pkg/train.py"
    assert git(root, "log", "-1", "--format=%an %cn %at", commit) == "autoresearch autoresearch 1000"
    assert git(root, "rev-parse", "refs/autoresearch/x/0001") == commit


def test_the_same_candidate_gives_the_same_commit(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    tree = repository.worktree(root / "runs" / "w", base)
    first = tree.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 5.0)
    tree.commit(base, {"pkg/train.py": "A = 3\n"}, "m", 6.0)
    assert tree.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 5.0) == first
    assert repository.resolve(tree.reword(first, base, "m2", 5.0) + "^{tree}") is None
    assert git(root, "rev-parse", tree.reword(first, base, "m2", 5.0) + "^{tree}") == git(
        root, "rev-parse", first + "^{tree}"
    )


def test_hooks_and_signing_of_the_user_do_not_run(root: Path) -> None:
    hook = root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git(root, "config", "commit.gpgsign", "true")
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base and repository.worktree(root / "runs" / "w", base).commit(
        base, {"pkg/train.py": ""}, "m", 1.0
    )


def test_a_commit_is_made_despite_what_a_killed_run_left(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    folder = root / "runs" / "w"
    tree = repository.worktree(folder, base)
    (folder / "junk").write_text("x")
    (Path(git(folder, "rev-parse", "--absolute-git-dir")) / "index.lock").touch()
    commit = tree.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0)
    assert git(root, "diff", "--name-only", base, commit) == "pkg/train.py"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    assert repository.worktree(folder, base).commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0) == commit
    (folder / ".git").write_text("gitdir: /nowhere\n")
    assert repository.worktree(folder, base).commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0) == commit


def test_line_endings_and_encodings_are_kept_to_the_byte(root: Path) -> None:
    git(root, "config", "core.autocrlf", "true")
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    text = "A = 'é'\r\nB = 2"
    commit = repository.worktree(root / "runs" / "w", base).commit(base, {"pkg/train.py": text}, "m", 1.0)
    assert repository.sources(commit, ["pkg/train.py"])["pkg/train.py"] == text


def test_export_gives_the_asked_paths_only(root: Path, tmp_path: Path) -> None:
    repository = Repository(root)
    repository.export("HEAD", ["pkg"], tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.py")) == [
        "pkg/other.py",
        "pkg/train.py",
    ]


def test_a_path_outside_the_worktree_is_refused(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    tree = repository.worktree(root / "runs" / "w", base)
    with pytest.raises(UserError, match="outside"):
        tree.commit(base, {"../../evil.py": "x"}, "m", 1.0)
    assert not (root / "evil.py").exists()


def test_no_repository_and_no_commit_raise_errors_that_explain_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not inside a git repository"):
        Repository(tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(UserError, match="no commit yet"):
        Repository(tmp_path)


def test_a_missing_file_is_explained(root: Path) -> None:
    with pytest.raises(UserError, match=r"nanomodel/train\.py"):
        Repository(root).sources("HEAD", ["nanomodel/train.py"])


def test_two_changes_are_merged_unless_they_change_the_same_lines(root: Path) -> None:
    base = "".join(f"line {i}\n" for i in range(9))
    ours, theirs = base.replace("line 1\n", "ours\n"), base.replace("line 7\n", "thé\n")
    merge = Repository(root).merge
    assert merge(ours, base, theirs) == ours.replace("line 7\n", "thé\n")
    assert merge(ours, base, ours) == ours and merge(base, base, theirs) == theirs
    assert merge(ours, base, base.replace("line 1\n", "theirs\n")) is None


def test_refs_are_written_all_or_none_and_stale_locks_go(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    names = [f"refs/autoresearch/x/{i:04d}" for i in (1, 2)]
    with pytest.raises(UserError):
        repository.update_refs({names[0]: base, names[1]: "f" * 40})
    assert repository.refs("refs/autoresearch/x") == {}
    repository.update_refs(dict.fromkeys(names, base))
    assert repository.refs("refs/autoresearch/x") == dict.fromkeys(names, base)
    (root / ".git" / f"{names[0]}.lock").touch()
    repository.unlock(names)
    repository.update_refs({names[0]: base})
    repository.update_refs({})


def test_existing_commits_are_told_from_missing_ones_and_other_objects(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    tree = git(root, "rev-parse", "HEAD^{tree}")
    assert repository.existing([base, "f" * 40, tree, base]) == {base}
    assert repository.existing([]) == set()


def test_only_worktrees_of_searches_are_forgotten(root: Path, tmp_path: Path) -> None:
    """The user's may be on a disk that is not there now."""
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "stick" / "theirs"))
    (tmp_path / "stick").rename(tmp_path / "away")
    repository.worktree(root / "runs" / "gone", base)
    (root / "runs" / "gone").rename(tmp_path / "moved")
    kept = repository.worktree(root / "runs" / "here", base)
    repository.prune_worktrees(root / "runs")
    listed = git(root, "worktree", "list")
    assert "stick/theirs" in listed and "runs/here" in listed and "runs/gone" not in listed
    kept.remove()
    (tmp_path / "away").rename(tmp_path / "stick")
    assert git(tmp_path / "stick" / "theirs", "rev-parse", "HEAD") == base


def test_a_copied_worktree_of_another_repository_is_replaced(root: Path, tmp_path: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    repository.worktree(root / "runs" / "w", base)
    git(root, "clone", "-q", "--no-local", ".", str(tmp_path / "clone"))
    shutil.copytree(root / "runs", tmp_path / "clone" / "runs")
    clone = Repository(tmp_path / "clone")
    worktree = clone.worktree(tmp_path / "clone" / "runs" / "w", base)
    commit = worktree.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0)
    assert clone.existing([commit]) == {commit} and repository.existing([commit]) == set()
    assert repository.worktree(root / "runs" / "w", base).commit(base, {"pkg/train.py": ""}, "m", 1.0)


def test_git_waits_until_its_objects_are_on_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut must not leave a commit that the journal names, and that cannot be read."""
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    tree = repository.worktree(root / "runs" / "w", base)
    trace = root / "trace"
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(trace))
    commit = tree.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0)
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    if not any(e.get("category") == "fsync" for e in events):
        pytest.skip("this git does not say what it flushes")
    (writer,) = (e["sid"] for e in events if "commit-tree" in e.get("argv", ()))
    flushed = [e for e in events if e["sid"] == writer and e.get("category") == "fsync"]
    assert flushed and repository.existing([commit])
