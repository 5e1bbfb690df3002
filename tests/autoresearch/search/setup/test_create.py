"""How a search begins: what is on its shelf of ideas."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoresearch.config import CONFIGS, load
from autoresearch.edit.apply import apply
from autoresearch.edit.patch import edits_from_patch
from autoresearch.edit.rules import check
from autoresearch.errors import UserError
from autoresearch.search.setup.create import earlier_judge, shelve
from autoresearch.search.setup.required import check_new
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from tests.support.searches import INFO
from tests.support.stub import git
from tests.support.toy_task import PATH, ToyTask, write_repository

SCRIPT = "nanomodel/train.py"
SOURCES = {SCRIPT: (CONFIGS.parent / SCRIPT).read_text(encoding="utf-8")}


@pytest.mark.slow
def test_shipped_ideas_apply_to_the_script_one_by_one_and_on_each_other(tmp_path: Path) -> None:
    config = load([f"ideas={CONFIGS / 'shelf'}"], {})
    shelve(inbox := Inbox(tmp_path), config.idea_paths)
    ideas, stack = inbox.ideas(), SOURCES
    assert len(ideas) == len(config.idea_paths) > 3
    for idea in ideas:
        assert 20 < len(idea.text) < 160 and "\n" not in idea.text
        new = apply(SOURCES, edits_from_patch(idea.patch, SOURCES))
        check(SOURCES, new, [SCRIPT])  # within the rules, and a change of the program
        stack = apply(stack, edits_from_patch(idea.patch, stack))


def test_a_beginning_that_was_cut_off_leaves_no_idea_twice(tmp_path: Path) -> None:
    paths = load([f"ideas={CONFIGS / 'shelf'}"], {}).idea_paths
    inbox = Inbox(tmp_path)
    shelve(inbox, paths[:2])
    shelve(inbox, paths)
    assert len(inbox.entries()) == len(paths)


def test_what_git_puts_before_a_diff_is_no_part_of_the_words(tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    diff = f"diff --git a/{SCRIPT} b/{SCRIPT}\nindex 1..2 100644\n--- a/{SCRIPT}\n+++ b/{SCRIPT}\n"
    patch.write_text(f"Fewer --- or more --- heads.\n\n{diff}")
    shelve(inbox := Inbox(tmp_path), [patch])
    [idea] = inbox.ideas()
    assert (idea.text, idea.patch) == ("Fewer --- or more --- heads.", diff)


def test_what_is_no_shelf_is_refused(tmp_path: Path) -> None:
    assert load([], {}).idea_paths == []
    with pytest.raises(UserError, match="no patches"):
        assert load([f"ideas={tmp_path}"], {}).idea_paths
    (tmp_path / "a.patch").write_text("just words")
    with pytest.raises(UserError, match="no idea"):
        shelve(Inbox(tmp_path), load([f"ideas={tmp_path}"], {}).idea_paths)
    (tmp_path / "a.patch").write_bytes(b"words\xff")
    with pytest.raises(UserError, match="cannot be read"):
        shelve(Inbox(tmp_path), load([f"ideas={tmp_path}"], {}).idea_paths)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = write_repository(tmp_path_factory.mktemp("toy") / "repo")
    (root / "toy" / "__init__.py").touch()
    (root / "toy" / "score.py").write_text("from toy import answer\n")
    git(root, "init", "-q", "-b", "main")
    for key, value in {"name": "Somebody", "email": "somebody@example.org"}.items():
        git(root, "config", f"user.{key}", value)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return Repository(root)


@pytest.mark.parametrize("name", ["x.", "con..x", "a.lock"])
def test_a_name_that_git_cannot_hold_is_refused_at_the_start(repository: Repository, name: str) -> None:
    with pytest.raises(UserError, match="no branch autoresearch/"):
        check_new(name, repository, ToyTask())


@pytest.mark.parametrize("name", ["cache", "MLflow", "README.md"])
def test_a_name_of_something_else_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="something else"):
        load([f"name={name}"], {})


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("refs/heads/autoresearch", "a branch called autoresearch"),
        ("refs/autoresearch", "a ref called refs/autoresearch"),
        ("refs/heads/autoresearch/x", "autoresearch/x exists already"),
        ("refs/heads/autoresearch/x/y", "autoresearch/x exists already"),
        ("refs/autoresearch/x/0001", "candidates of an earlier search x"),
    ],
)
def test_refs_in_the_way_are_refused_with_the_command_that_helps(
    repository: Repository, ref: str, says: str
) -> None:
    repository.update_refs({ref: repository.resolve("HEAD") or ""})
    try:
        with pytest.raises(UserError, match=says) as told:
            check_new("x", repository, ToyTask())
        assert "git " in told.value.hint or "clean --all --git name=x" in told.value.hint
        check_new("y", repository, ToyTask()) if "/x" in ref else None
    finally:
        git(repository.root, "update-ref", "-d", ref)
    check_new("x", repository, ToyTask())


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("from toy import local", True),
        ("from . import local", True),
        ("from .local import x", True),
        ("import os, toy.local", True),
        ("import toy.answer", False),
        ("try:\n    import toy.local\nexcept ImportError:\n    pass", False),
        ("def f():\n    import toy.local", False),
    ],
)
def test_code_that_imports_what_is_not_committed_is_named(
    repository: Repository, line: str, refused: bool
) -> None:
    root, start = repository.root, git(repository.root, "rev-parse", "HEAD")
    (root / PATH).write_text(f"{line}\nLEVEL = 1.0\n")
    git(root, "commit", "-qam", "import")
    (root / "toy" / "local.py").write_text("x = 1\n")
    try:
        if refused:
            with pytest.raises(
                UserError, match=f"{PATH} imports toy/local.py, which is not committed"
            ) as told:
                check_new("x", repository, ToyTask())
            assert "git add toy/local.py" in told.value.hint
        else:
            check_new("x", repository, ToyTask())
    finally:
        (root / "toy" / "local.py").unlink()
        git(root, "reset", "-q", "--hard", start)


def test_the_latest_search_of_the_same_task_and_device_gives_the_prior_of_the_noise(tmp_path: Path) -> None:
    def search(name: str, judge: str = "", **other: Any) -> Journal:
        journal = Journal.create(tmp_path / name / "journal.db", replace(INFO, name=name, **other))
        if judge:
            journal.set("judge", judge)
        return journal

    now = search("now", "its own")
    assert earlier_judge(now) == ("", "")
    search("elsewhere", "x", device="cuda"), search("more", "x", data={"key": "other"}), search("unjudged")
    assert earlier_judge(now) == ("", "")
    search("before", "state")
    assert earlier_judge(now) == ("before", "state")
