import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.errors import UserError
from autoresearch.store.git.objects import Memory
from autoresearch.store.git.repository import Repository


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
    commit = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "subject\n\nbody", 1000.0)
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
    first = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 5.0)
    repository.commit(base, {"pkg/train.py": "A = 3\n"}, "m", 6.0)
    assert repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 5.0) == first
    assert repository.resolve(repository.reword(first, base, "m2", 5.0) + "^{tree}") is None
    assert git(root, "rev-parse", repository.reword(first, base, "m2", 5.0) + "^{tree}") == git(
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
    assert base and repository.commit(base, {"pkg/train.py": ""}, "m", 1.0)


def test_line_endings_and_encodings_are_kept_to_the_byte(root: Path) -> None:
    git(root, "config", "core.autocrlf", "true")
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert base
    text = "A = 'é'\r\nB = 2"
    commit = repository.commit(base, {"pkg/train.py": text}, "m", 1.0)
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
    with pytest.raises(UserError, match="outside"):
        repository.commit(base, {"../../evil.py": "x"}, "m", 1.0)
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
    for place in (tmp_path / "stick" / "theirs", root / "runs" / "gone", root / "runs" / "here"):
        git(root, "worktree", "add", "-q", "--detach", str(place))
    (tmp_path / "stick").rename(tmp_path / "away")
    (root / "runs" / "gone").rename(tmp_path / "moved")
    Repository(root).prune_worktrees(root / "runs")
    listed = git(root, "worktree", "list")
    assert "stick/theirs" in listed and "runs/here" in listed and "runs/gone" not in listed


def test_git_waits_until_its_objects_are_on_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut must not leave a commit that the journal names, and that cannot be read."""
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    trace = root / "trace"
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(trace))
    commit = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0)
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    if not any(e.get("category") == "fsync" for e in events):
        pytest.skip("this git does not say what it flushes")
    (writer,) = (e["sid"] for e in events if "commit-tree" in e.get("argv", ()))
    flushed = [e for e in events if e["sid"] == writer and e.get("category") == "fsync"]
    assert flushed and repository.existing([commit])


RAW = {
    "pkg/dropped.py": b"D = 1\n",
    "pkg/stamped.py": b"# $Format:%H$ $Id$\nS = 1\n",
    "pkg/lines.py": b"L = 1\r\nM = 2\n",
    "pkg/filtered.py": b"F = 'secret'\n",
    "pkg/tool.sh": b"#!/bin/sh\n",
    "pkg/odd \udcff": b"\xff\x00",
    "pkg/ends in a blank ": b"x",
}
ATTRIBUTES = """* text=auto eol=crlf ident
pkg/dropped.py export-ignore
pkg/stamped.py export-subst
pkg/filtered.py filter=shout diff=shout
"""


def commit_as_it_is(root: Path, files: dict[str, bytes]) -> str:
    """Commit files byte for byte, whatever the attributes say."""
    for path, content in files.items():
        (root / path).write_bytes(content)
        blob = git(root, "hash-object", "-w", "--no-filters", str(root / path))
        mode = "100755" if path.endswith(".sh") else "100644"
        git(root, "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}")
    git(root, "commit", "-qm", "raw")
    return git(root, "rev-parse", "HEAD")


def test_trees_are_read_and_made_to_the_byte_whatever_attributes_say(root: Path, tmp_path: Path) -> None:
    git(root, "config", "filter.shout.clean", "tr a-z A-Z")
    git(root, "config", "filter.shout.smudge", "tr a-z A-Z")
    git(root, "config", "diff.shout.textconv", "tr a-z A-Z <")
    git(root, "config", "core.autocrlf", "true")
    (root / ".gitattributes").write_text(ATTRIBUTES)
    git(root, "add", ".gitattributes")
    base = commit_as_it_is(root, RAW)
    repository = Repository(root)
    changed = {"pkg/filtered.py": "f = 'é'\r\n", "pkg/new/deep.py": "n = 1\n"}
    commit = repository.commit(base, changed, "m", 1.0)
    expected = RAW | {path: text.encode() for path, text in changed.items()}
    repository.export(commit, ["pkg"], tmp_path / "out")
    for path, content in expected.items():
        assert (tmp_path / "out" / path).read_bytes() == content, path
    assert os.access(tmp_path / "out/pkg/tool.sh", os.X_OK)
    assert not os.access(tmp_path / "out/pkg/lines.py", os.X_OK)
    assert repository.sources(commit, changed) == changed
    assert "-F = 'secret'" in repository.diff(base, commit) and "+f = 'é'" in repository.diff(base, commit)
    assert git(root, "diff", "--name-only", base, commit).split() == ["pkg/filtered.py", "pkg/new/deep.py"]
    assert git(root, "fsck", "--strict", "--no-dangling") == ""


ELSEWHERE = {
    "GIT_DIR": ".git",
    "GIT_INDEX_FILE": ".git/index",
    "GIT_WORK_TREE": ".",
    "GIT_COMMON_DIR": ".git",
    "GIT_OBJECT_DIRECTORY": ".git/objects",
    "GIT_CEILING_DIRECTORIES": ".",
    "GIT_NAMESPACE": "other",
    "GIT_PREFIX": "pkg/",
    "GIT_AUTHOR_DATE": "2001-01-01T00:00:00Z",
    "GIT_ATTR_SOURCE": "HEAD",
    "GIT_QUARANTINE_PATH": ".git/objects",
}


@pytest.mark.parametrize("whose", ["this", "another"])
def test_what_a_hook_or_an_editor_says_in_the_environment_is_ignored(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", "--no-local", "repo", "other")
    (root / "pkg" / "train.py").write_text("A = 5\n")
    git(root, "add", "-A")

    def state() -> list[object]:
        parts: list[object] = []
        for place in (root, other):
            parts += [git(place, "rev-parse", "HEAD"), git(place, "for-each-ref"), git(place, "branch")]
            parts += [(place / ".git/index").read_bytes(), (place / ".git/HEAD").read_bytes()]
            parts += [sorted(p.name for p in (place / ".git").iterdir())]
        return parts

    before, (base, commits) = state(), (git(root, "rev-parse", "HEAD"), [])
    for environment in ({}, {k: str((root if whose == "this" else other) / v) for k, v in ELSEWHERE.items()}):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            repository = Repository(root / "pkg")
            assert repository.root == root and repository.resolve("HEAD") == base
            commits.append(repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 7.0))
            repository.export(commits[-1], ["pkg"], tmp_path / f"out{len(commits)}")
            assert repository.is_modified(["pkg"])
    assert state() == before and commits[0] == commits[1]
    assert git(root, "cat-file", "-t", commits[1]) == "commit"


def test_how_git_works_is_still_the_user_s_to_say(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "demo.key")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "value")
    assert Repository(root)._git("config", "demo.key") == "value"


def test_a_sparse_checkout_changes_nothing(root: Path, tmp_path: Path) -> None:
    git(root, "sparse-checkout", "set", "docs")
    before = git(root, "ls-files", "-t")
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    commit = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 1.0)
    repository.export(commit, ["pkg"], tmp_path / "out")
    assert (tmp_path / "out/pkg/train.py").read_text() == "A = 2\n"
    assert not repository.is_modified(["pkg"]) and git(root, "ls-files", "-t") == before


def test_links_are_exported_as_links_unless_they_lead_out(root: Path, tmp_path: Path) -> None:
    (root / "pkg" / "alias.py").symlink_to("../pkg/train.py")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a link")
    repository = Repository(root)
    repository.export("HEAD", ["pkg"], tmp_path / "out")
    assert (tmp_path / "out/pkg/alias.py").read_text() == "A = 1\n"
    for number, to in enumerate(("/etc/passwd", "../../x")):
        (root / "pkg" / "alias.py").unlink()
        (root / "pkg" / "alias.py").symlink_to(to)
        git(root, "commit", "-qam", "out")
        with pytest.raises(UserError, match="out of the repository"):
            repository.export("HEAD", ["pkg"], tmp_path / f"out{number}")
    with pytest.raises(UserError, match="does not hold nowhere"):
        repository.export("HEAD", ["nowhere"], tmp_path / "none")


@pytest.mark.parametrize("path", ["../evil.py", "/evil.py", "pkg/../evil.py", ".git/hooks/x", ".GIT/x", ""])
def test_a_path_outside_the_repository_is_refused(root: Path, path: str) -> None:
    repository = Repository(root)
    with pytest.raises(UserError, match="outside"):
        repository.commit(repository.resolve("HEAD") or "", {path: "x"}, "m", 1.0)
    with pytest.raises(UserError, match="no folder"):
        repository.commit(repository.resolve("HEAD") or "", {"pkg/train.py/x": "x"}, "m", 1.0)


def test_a_ref_that_is_not_where_it_was_expected_is_left_alone(root: Path) -> None:
    repository = Repository(root)
    base = repository.resolve("HEAD") or ""
    mine = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "mine", 1.0)
    ref = "refs/heads/topic"
    repository.update_refs({ref: base}, expected={ref: None})
    repository.update_refs({ref: mine}, expected={ref: base})
    for wrong in (base, None):
        with pytest.raises(UserError, match="topic"):
            repository.update_refs({ref: base, "refs/x/y": base}, expected={ref: wrong})
    assert repository.resolve(ref) == mine and repository.refs("refs/x") == {}


@pytest.mark.parametrize("name", [b"ends in a blank ", b"latin \xff", "ümlaut".encode(), b"a\nb"])
def test_the_folder_of_a_repository_may_have_any_name(root: Path, tmp_path: Path, name: bytes) -> None:
    there = tmp_path / os.fsdecode(name)
    root.rename(there)
    repository = Repository(there / "pkg")
    assert repository.root == there
    repository.export("HEAD", ["pkg"], there / "runs" / "out")
    repository.unlock(["refs/heads/x"])
    repository.prune_worktrees(there / "runs")


def test_a_script_that_is_not_utf8_is_said_with_its_line(root: Path) -> None:
    (root / "pkg" / "train.py").write_bytes(b"A = 1\n# caf\xe9\n")
    git(root, "commit", "-qam", "latin")
    with pytest.raises(UserError, match=r"pkg/train\.py at .* not UTF-8 text: byte 0xe9 in line 2"):
        Repository(root).sources("HEAD", ["pkg/train.py"])


def test_what_is_no_repository_is_told_what_helps(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not inside a git repository") as told:
        Repository(tmp_path)
    assert "git init" not in told.value.hint and "git add" not in told.value.hint
    git(tmp_path, "init", "-q")
    with pytest.raises(UserError, match="no commit yet") as told:
        Repository(tmp_path)
    assert "add -A" not in told.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder to another user")
def test_a_repository_of_another_user_is_told_to_be_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    for place in (root, root / ".git"):
        os.chown(place, 4242, 4242)
    with pytest.raises(UserError, match="another user owns it") as told:
        Repository(root / "pkg")
    assert told.value.hint.endswith(f"git config --global --add safe.directory {root}")
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": str(root)}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert Repository(root / "pkg").root == root


def test_a_branch_that_is_checked_out_is_known_with_its_place(root: Path, tmp_path: Path) -> None:
    git(root, "branch", "topic")
    repository = Repository(root)
    base = repository.resolve("HEAD")
    assert repository.branch("topic") == (base, "") and repository.branch("top") == (None, "")
    git(root, "worktree", "add", "-q", str(tmp_path / "linked"), "topic")
    assert repository.branch("topic") == (base, str(tmp_path / "linked"))
    assert repository.branch("main") == (base, str(root))


def test_names_that_git_cannot_have_are_known(root: Path) -> None:
    repository = Repository(root)
    names = {
        name: repository.valid_ref(f"refs/heads/autoresearch/{name}") for name in ("x.", "con..x", "a.lock")
    }
    assert not any(names.values()) and repository.valid_ref("refs/heads/autoresearch/night-1.2")


def test_what_the_checkout_has_beyond_the_commit(root: Path) -> None:
    (root / "pkg" / "local.py").write_text("L = 1\n")
    (root / "pkg" / "staged.py").write_text("S = 1\n")
    git(root, "add", "pkg/staged.py")
    (root / "pkg" / "train.py").write_text("changed\n")
    assert Repository(root).uncommitted(["pkg"]) == ["pkg/local.py", "pkg/staged.py"]


def test_a_commit_without_all_its_content_is_said_to_be_so(root: Path, tmp_path: Path) -> None:
    repository = Repository(root)
    (root / "large.bin").write_text("large")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "large")
    name = git(root, "rev-parse", "HEAD:large.bin")
    (root / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(UserError, match=r"does not hold the content of large.bin"):
        repository.export("HEAD", ["."], tmp_path / "out")


def test_globs_name_files_of_a_commit_and_plain_paths_stay(root: Path) -> None:
    for path in ("a.py", "src/b.py", "src/deep/c.py", "src/d[1].txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "files")
    repository = Repository(root)
    assert {"src/b.py", "src/deep/c.py"} <= set(repository.matching("HEAD", ["src/**/*.py"]))
    assert set(repository.matching("HEAD", ["src/*.py"])) == {"src/b.py"}
    assert repository.matching("HEAD", ["none.py"]) == ["none.py"]
    assert repository.missing("HEAD", ["none/*.py", "src/*.py", ".", "none.py"]) == ["none/*.py", "none.py"]
    assert "a.py" in repository.sources("HEAD", ["?.py"])


def loose(root: Path) -> set[str]:
    """The objects that lie in files of their own."""
    return {path.parent.name + path.name for path in (root / ".git" / "objects").glob("??/*")}


def test_candidates_are_packed_and_what_is_the_users_stays_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "draft.py").write_text("the user's, added and not committed\n")
    git(root, "add", "draft.py")
    repository, before = Repository(root), loose(root)
    base = repository.resolve("HEAD")
    assert base
    text = "".join(f"LINE_{i} = {i}\n" for i in range(200))
    made = [repository.commit(base, {"pkg/train.py": f"{text}{i}"}, "m", i) for i in range(8)]
    repository.update_refs({f"refs/autoresearch/x/{i:04d}": commit for i, commit in enumerate(made[:7])})
    ours, unlink, removed = loose(root) - before, Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(removed) == 5:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", killed)
        repository.pack(made[:6], base)
    assert repository.existing(made) == set(made), "what was killed in between is there"
    assert repository.pack(made, base) == 8, "two commits, each with a file and two folders"
    assert loose(root) & before == before and not repository.pack(made, base)
    assert len(loose(root) & ours) == 24 - 5, "what the kill left is there twice"
    git(root, "fsck", "--full", "--strict")
    assert [repository.sources(c, ["pkg/train.py"])["pkg/train.py"][-1] for c in made] == [*"01234567"]
    git(root, "gc", "--quiet", "--prune=now")
    assert repository.existing(made) == set(made[:7]), "the user's own collection of garbage works as ever"


def test_what_a_full_hash_names_is_read_once_and_what_a_branch_names_each_time(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(root)
    base = repository.resolve("main")
    assert base
    commit = repository.commit(base, {"pkg/train.py": "A = 2\n"}, "m", 5.0)
    repository.export(commit, ["pkg"], tmp_path / "one")
    repository.export("main", ["pkg"], tmp_path / "old")
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "_run", lambda *_, **__: pytest.fail("git was started"))
        repository.export(commit, ["pkg"], tmp_path / "two")
    git(root, "update-ref", "refs/heads/main", commit)
    repository.export("main", ["pkg"], tmp_path / "new")
    told = [(tmp_path / name / "pkg" / "train.py").read_text() for name in ("one", "two", "old", "new")]
    assert told == ["A = 2\n", "A = 2\n", "A = 1\n", "A = 2\n"]


@given(st.lists(st.integers(0, 20)))
def test_memory_is_bounded_and_holds_the_latest(sizes: list[int]) -> None:
    memory: Memory[int] = Memory(80)
    for name, size in enumerate(sizes):
        memory.put(str(name), size, size)
    kept = [name for name in range(len(sizes)) if memory.get(str(name)) is not None]
    small = [name for name, size in enumerate(sizes) if size <= 10]
    assert sum(sizes[name] for name in kept) <= 80
    assert kept == small[len(small) - len(kept) :]
