"""What other searches of the task found is shown, and offered to a search."""

import json
from pathlib import Path

import pytest

from autoresearch.propose.queue import QueueProposer
from autoresearch.search.setup.create import earlier_lessons
from autoresearch.store.git.repository import Repository
from autoresearch.store.inbox import Inbox
from tests.support.cli import inside
from tests.support.stub import make_repository, make_search

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A search `a` that has kept changes, and a search `b` that has only begun."""
    found = make_repository(tmp_path_factory.mktemp("learn") / "repo")
    make_search(found, [0.6, 1.5, 0.3], "name=a", "experiments=3").run()
    make_search(found, [], "name=b", "experiments=0").run()
    return found


def test_a_search_tries_what_another_has_kept(repository: Repository) -> None:
    root = repository.root
    told = json.loads(inside(root, "lessons", "a", "--json"))
    assert len(told["kept"]) == 2 and told["themes"][0]["tried"] == 3
    assert "Kept changes" in inside(root, "lessons")
    said = inside(root, "scout", "name=b")
    assert "2 of their kept changes wait in b" in said and "a kept this (#" in said
    assert "nothing new to try" in inside(root, "scout", "name=b")
    entries = Inbox(root / "runs" / "b").entries()
    assert [e.state for e in entries] == ["open"] * 2 and all(e.idea.patch for e in entries)
    assert "search a: 2 ideas, 2 waiting, 0 tried, 0 kept" in inside(root, "idea", "list", "name=b")
    inbox = Inbox(root / "runs" / "b")
    queue = QueueProposer(inbox, wait=False)
    search = make_search(repository, [], "name=b", "experiments=1", proposer=queue, inbox=inbox)
    search.run()
    search.journal.close()
    said = inside(root, "idea", "list", "name=b")
    assert "from search a, experiment 1" in said and "[taken (experiment 1: keep)]" in said
    assert "search a: 2 ideas, 1 waiting, 1 tried, 1 kept, gain " in said and "read for" not in said
    inside(root, "report", "name=b")
    page = (root / "runs/b/report/report.md").read_text()
    assert "## Which sources of ideas paid" in page and "| search a | 2 | 1 | 1 | 1 | +" in page


def test_models_of_a_new_search_can_be_told(repository: Repository) -> None:
    search = make_search(repository, [], "name=c", "experiments=0")
    (told,) = earlier_lessons(search.journal)
    assert "2 of 3 kept" in told and "kept in a" in told
    search.run()


def test_an_unknown_search_is_refused(repository: Repository, tmp_path: Path) -> None:
    said = inside(repository.root, "scout", "nope", "name=b", code=2)
    assert "There is no search called nope." in said
    assert "There is no search" in inside(repository.root, "lessons", f"runs={tmp_path}", code=2)
