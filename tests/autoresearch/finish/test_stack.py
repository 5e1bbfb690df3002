"""A branch to be reviewed: one commit for each kept change, any of them left out."""

from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.finish.stack import make_branch
from autoresearch.search.loop import Search
from tests.support.cli import inside
from tests.support.stub import PATH, git, make_repository, make_search


@pytest.fixture
def search(tmp_path: Path) -> Search:
    """Two kept changes of lines of their own, and one that builds on the first."""
    script = "LEVEL = 1.0  # 0..2\nOTHER = 0\n\n\nprint(LEVEL, OTHER)\n"
    made = make_search(make_repository(tmp_path / "repo", script), [0.8, "OTHER = 1; GAIN = 0.04", 0.5])
    made.run()
    assert [e.number for e in made.state.kept] == [1, 2, 3]
    return made


def test_all_changes_together_are_the_tip(search: Search) -> None:
    root = search.repository.root
    before = git(root, "status", "--porcelain", "--branch"), git(root, "rev-parse", "HEAD")
    made = make_branch(search.state)
    assert made.branch == "autoresearch/x-review" and made.whole
    assert made.commits == tuple(e.commit for e in search.state.kept), "the same commits, to the byte"
    assert git(root, "rev-parse", made.branch) == git(root, "rev-parse", "autoresearch/x")
    assert before == (git(root, "status", "--porcelain", "--branch"), git(root, "rev-parse", "HEAD"))
    assert make_branch(search.state) == made, "asked again, nothing is made"


def test_a_change_is_left_out_and_the_rest_keeps_its_messages(search: Search) -> None:
    made = make_branch(search.state, [2], "mine/review")
    root = search.repository.root
    assert made.branch == "mine/review" and not made.whole
    text = search.repository.sources(made.commits[-1], [PATH])[PATH]
    assert "LEVEL = 0.5" in text and "GAIN" not in text
    told = git(root, "log", "--format=%s", "main..mine/review").splitlines()
    assert told == ["set 0.5", "set 0.8"]
    with pytest.raises(UserError, match="1 cannot be left out: experiment 3 builds on"):
        make_branch(search.state, [1])
    with pytest.raises(UserError, match="There is a branch mine/review already"):
        make_branch(search.state, [], "mine/review")
    with pytest.raises(UserError, match="Experiment 9 was not kept"):
        make_branch(search.state, [9])
    with pytest.raises(UserError, match=r"no branch a\.\.b"):
        make_branch(search.state, [], "a..b")


def test_a_branch_of_somebody_else_stays(search: Search) -> None:
    git(search.repository.root, "branch", "autoresearch/x-review", "main")
    assert make_branch(search.state).branch == "autoresearch/x-review-2"
    main = git(search.repository.root, "rev-parse", "main")
    assert git(search.repository.root, "rev-parse", "autoresearch/x-review") == main


def test_on_the_command_line(done: Path) -> None:
    root = done.parent.parent
    said = inside(root, "branch", "name=x", "--as", "review")
    assert "branch review: 2 commits" in said and "git log -p --reverse" in said
    assert len(git(root, "log", "--format=%h", "main..review").splitlines()) == 2
