"""A change of the working tree is an experiment like any other."""

import json
from pathlib import Path

import pytest

from autoresearch.api import attempt
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from tests.support.cli import inside
from tests.support.stub import PATH, SCRIPT, git, make_repository, make_search


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository = make_repository(tmp_path / "repo", SCRIPT.replace("OTHER", "\n\n\nOTHER", 1))
    search = make_search(repository, [0.5], "experiments=1", "tracking=none")
    search.run()
    search.journal.update(config=search.config.model_dump(mode="json"))
    search.journal.close()
    return search.repository.root


def edit(root: Path, old: str, new: str) -> None:
    text = (root / PATH).read_text()
    assert old in text
    (root / PATH).write_text(text.replace(old, new))


def test_what_cannot_be_tried_is_refused_with_what_to_do(root: Path) -> None:
    assert "needs a sentence" in inside(root, "try", "name=x", code=2)
    assert "Nothing is changed" in inside(root, "try", "-m", "nothing", "name=x", code=2)
    edit(root, "LEVEL = 1.0", "LEVEL = 0.2")  # the incumbent has changed this line
    said = inside(root, "try", "-m", "lower", "name=x", code=2)
    assert "has changed the same lines" in said and "git switch --detach autoresearch/x" in said
    assert not Inbox(root / "runs" / "x").entries()


def test_a_change_is_left_to_the_search_that_runs(root: Path) -> None:
    edit(root, "OTHER = 0", "OTHER = 1")
    journal = Journal(root / "runs/x/journal.db")
    journal.set("lease", Lease.ours().to_json())
    assert "Idea 1 waits in x" in inside(root, "try", "-m", "another", "name=x", "--no-wait")
    (entry,) = Inbox(root / "runs" / "x").entries()
    assert entry.idea.text == "another" and "+OTHER = 1" in entry.idea.patch
    assert git(root, "status", "--porcelain") == f"M {PATH}"


def test_only_what_is_changed_here_is_tried_on_the_incumbent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working tree stands on the start, the incumbent is further: its change is not undone."""
    edit(root, "OTHER = 0", "OTHER = 1")
    ran = []

    def run(overrides: list[str], view: str, patches_only: bool) -> object:
        assert patches_only and view == "quiet" and overrides == ["name=x"]
        ran.append(1)
        inside_search = make_search(
            attempt.Repository(root), [], "tracking=none", "experiments=2", proposer=queue(root)
        )

        class Opened:
            def __enter__(self) -> object:
                return inside_search

            def __exit__(self, *exc: object) -> None: ...

        return Opened()

    monkeypatch.setattr(attempt, "open_search", run)
    row = json.loads(inside(root, "try", "-m", "another", "name=x", "--json"))
    assert ran and row["number"] == 2 and row["hypothesis"] == "another" and row["verdict"]
    diff = Journal(root / "runs/x/journal.db").experiment(2).diff
    assert "+OTHER = 1" in diff and "LEVEL" not in "".join(x for x in diff.splitlines() if x[:1] in "+-")


def queue(root: Path) -> object:
    from autoresearch.propose.queue import QueueProposer

    return QueueProposer(Inbox(root / "runs" / "x"), wait=False)
