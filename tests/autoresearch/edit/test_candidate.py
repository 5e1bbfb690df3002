"""A candidate is a proposal applied to its parent: sources, what changed, fingerprint, diff, size added."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.edit.candidate import carried_edits, carry, diff, make_candidate
from autoresearch.errors import Refused
from autoresearch.types import Edit

SOURCES = {"a.py": "x = 1\ny = 2\n\n\nz = 3\n", "b.txt": "words\n"}


def test_a_candidate_holds_all_that_follows_from_the_edits():
    candidate = make_candidate("abc", SOURCES, [Edit("a.py", "y = 2", "y = 3\nw = f(y, 4) + g(y)")])
    assert candidate.parent == "abc" and candidate.growth == 1
    assert candidate.sources == {"a.py": "x = 1\ny = 3\nw = f(y, 4) + g(y)\n\n\nz = 3\n", "b.txt": "words\n"}
    assert list(candidate.changed) == ["a.py"]
    assert "-y = 2\n+y = 3\n+w = f(y, 4) + g(y)\n" in candidate.diff and "b.txt" not in candidate.diff


def test_the_fingerprint_ignores_comments_and_the_task_may_bring_its_own():
    edits = [Edit("a.py", "y = 2", "y = 2  # two")]
    plain = make_candidate("abc", SOURCES, [Edit("a.py", "y = 2", "y = 2  # deux")])
    assert make_candidate("abc", SOURCES, edits).fingerprint == plain.fingerprint
    own = make_candidate("abc", SOURCES, edits, fingerprint=lambda s: s["a.py"], growth=lambda old, new: 7)
    assert own.fingerprint == own.sources["a.py"] and own.growth == 7


def test_a_program_that_cannot_be_parsed_still_makes_a_candidate():
    candidate = make_candidate("abc", SOURCES, [Edit("a.py", "y = 2", "y = (2")])
    assert candidate.fingerprint and candidate.diff, "refusing it is up to the task"


def test_an_edit_that_does_not_apply_is_refused():
    with pytest.raises(Refused, match=r"not in a\.py"):
        make_candidate("abc", SOURCES, [Edit("a.py", "q = 2", "q = 3")])


TEXTS = st.lists(st.sampled_from(["a", "b", "", "  c", "d\r", "e\x0cf"]), max_size=12).map("\n".join)


@settings(max_examples=30, deadline=None)
@given(TEXTS, TEXTS, st.booleans())
def test_git_applies_the_diff(tmp_path_factory, old, new, newline):
    """To the letter, with carriage returns, form feeds, and without a newline at the end."""
    folder = tmp_path_factory.mktemp("repo")
    (folder / "f").write_bytes((old := old + "\nend" + "\n" * newline).encode())
    new += "\nend"
    if old == new:
        assert diff({"f": old}, {"f": new}) == ""
        return
    subprocess.run(["git", "apply", "-"], input=diff({"f": old}, {"f": new}).encode(), cwd=folder, check=True)
    assert (folder / "f").read_bytes().decode() == new


def side(ours, base, theirs):
    """A merge that only knows when one side did nothing."""
    return theirs if ours == base else ours if theirs == base else None


def test_a_change_is_carried_over_by_merging_or_as_it_is_written():
    base = {"a": "one\ntwo\n", "b": "three\n"}
    moved = {"a": "one\ntwo\nmore\n", "b": "three\n"}
    edits = (Edit("b", "three", "four"),)
    assert carried_edits(moved, base, edits, side) == edits
    near = (Edit("a", "one", "1"),)
    assert carry(moved, base, {**base, "a": "1\ntwo\n"}, near, side)["a"] == "1\ntwo\nmore\n"


def test_a_change_of_changed_lines_is_refused():
    base, ours = {"a": "one\n"}, {"a": "uno\n"}
    with pytest.raises(Refused, match="same lines of a"):
        carried_edits(ours, base, (Edit("a", "one", "1"),), side)


def test_a_whole_file_is_carried_by_merging_alone():
    base, ours = {"a": "one\n"}, {"a": "one\nmore\n"}
    with pytest.raises(Refused, match="same lines of a"):
        carried_edits(ours, base, (Edit("a", "", "1\n"),), side)
    edits = carried_edits(ours, base, (Edit("a", "", "1\n"),), lambda ours, base, theirs: "1\nmore\n")
    assert edits == (Edit("a", "", "1\nmore\n"),)
