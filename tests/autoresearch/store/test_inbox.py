"""The inbox: many writers, one search, and nothing lost."""

import multiprocessing

import pytest

from autoresearch.errors import UserError
from autoresearch.store.inbox import Inbox


def write_notes(folder, name, count):
    for number in range(count):
        Inbox(folder).add_note(f"{name} {number}")


def test_many_processes_write_at_once(tmp_path):
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_notes, args=(tmp_path, name, 10)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    notes = Inbox(tmp_path).notes()
    assert len(notes) == 40 and [n for n in notes if n[0] == "a"] == [f"a {i}" for i in range(10)]


def test_an_empty_inbox_is_no_file(tmp_path):
    inbox = Inbox(tmp_path)
    assert inbox.notes() == inbox.ideas() == inbox.entries() == () and inbox.wished == "run"
    assert not inbox.path.exists()


def test_an_idea_is_taken_refused_or_dropped_once(tmp_path):
    inbox = Inbox(tmp_path)
    one, two, three = inbox.add_idea("tie"), inbox.add_idea("faster", "--- a\n"), inbox.add_idea("wider")
    assert [idea.number for idea in inbox.ideas()] == [one, two, three] == [1, 2, 3]
    inbox.take(one)
    inbox.refuse(two, "it does not apply")
    inbox.drop(three)
    assert inbox.ideas() == ()
    assert [(e.state, e.reason) for e in inbox.entries()] == [
        ("taken", ""), ("refused", "it does not apply"), ("dropped", "")
    ]  # fmt: skip
    with pytest.raises(UserError, match="no idea 9"):
        inbox.drop(9)
    with pytest.raises(UserError, match="taken up"):
        inbox.drop(one)


def test_taken_ideas_that_no_experiment_tests_are_opened_again(tmp_path):
    inbox = Inbox(tmp_path)
    for _ in range(2):
        inbox.take(inbox.add_idea("an idea"))
    inbox.reopen({1})
    assert [idea.number for idea in inbox.ideas()] == [2]


def test_texts_are_bounded_and_not_empty(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.add_note("x" * 100_000 + "\ud800")
    assert len(inbox.notes()[0]) == 4000
    for add in (inbox.add_note, inbox.add_idea):
        with pytest.raises(UserError, match="nothing in that text"):
            add("  \n")
    with pytest.raises(UserError, match="at most"):
        inbox.add_idea("big", "x" * 500_000)


def test_a_new_run_forgets_what_was_asked_for_before(tmp_path):
    inbox = Inbox(tmp_path)
    for wish, then in (("stop", "run"), ("pause", "run"), ("run", "run")):
        inbox.wish(wish)
        assert Inbox(tmp_path).wished == wish
        inbox.begin()
        assert inbox.wished == then


def test_a_broken_inbox_file_raises_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "inbox.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UserError, match="not a database") as raised:
        Inbox(tmp_path).notes()
    assert "can be deleted" in raised.value.hint
