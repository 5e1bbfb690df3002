"""How a search begins: what is on its shelf of ideas."""

from pathlib import Path

import pytest

from autoresearch.config import CONFIGS, load
from autoresearch.edit.apply import apply
from autoresearch.edit.patch import edits_from_patch
from autoresearch.edit.rules import check
from autoresearch.errors import UserError
from autoresearch.search.create import shelve
from autoresearch.store.inbox import Inbox

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
