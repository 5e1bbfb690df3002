"""Edits from changed files and from patches: exact, or refused."""

import difflib
import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.edit.apply import apply, line_ending
from autoresearch.edit.patch import edits_between, edits_from_patch, like
from autoresearch.errors import Refused

OLD = "".join(f"line {n}\n" for n in range(1, 31)) + "same\nsame\nsame\n"
PATH = "nanomodel/train.py"

lines = st.lists(st.sampled_from(["a", "b", "x = 1", "  y", "", "same"]), max_size=12)
texts = st.tuples(lines, st.sampled_from(["\n", "\r\n"]), st.booleans()).map(
    lambda parts: parts[1].join(parts[0]) + (parts[1] if parts[2] else "")
)


@settings(max_examples=300, deadline=None)
@given(texts, texts.filter(str.strip))
def test_edits_between_any_two_texts_are_exact(old, new):
    edits = edits_between({"f": old, "g": "1"}, {"f": new, "g": "1"})
    assert (apply({"f": old}, edits)["f"] if edits else old) == like(old, new)


def test_small_changes_are_small_edits():
    new = OLD.replace("line 5\n", "line 5.5\n").replace("line 20\n", "")
    edits = edits_between({"f": OLD}, {"f": new.replace("\n", "\r\n")})
    assert len(edits) == 2 and all(0 < len(edit.search) < 60 for edit in edits)
    moved = "first\n" + OLD.replace("line 12", "line twelve")
    assert "line 5.5" in apply({"f": moved}, edits)["f"], "they apply when the script has moved on elsewhere"


def test_what_cannot_be_told_apart_replaces_the_file():
    old = "same\n" * 60
    edits = edits_between({"f": old}, {"f": "same\n" * 29 + "other\n" + "same\n" * 30})
    assert [edit.search for edit in edits] == [""]


def unified(old, new, path=PATH, context=3):
    return "".join(
        difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}", n=context
        )
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_patch_of_ours_applies(data):
    before = OLD.splitlines(keepends=True)
    keep = data.draw(
        st.lists(st.sampled_from(["keep", "drop", "change", "insert"]), min_size=33, max_size=33)
    )
    after = []
    for line, what in zip(before, keep, strict=True):
        after += {"keep": [line], "drop": [], "change": [f"new {line}"], "insert": [line, "more\n"]}[what]
    new = "".join(after)
    if new == OLD or not new.strip():
        return
    edits = edits_from_patch(unified(OLD, new), {PATH: OLD})
    assert apply({PATH: OLD}, edits)[PATH] == new


def test_a_patch_by_git_applies(tmp_path):
    new = OLD.replace("line 3\n", "line three\n").replace("line 25\n", "line 25\nline 25b\n")
    (tmp_path / "train.py").write_text(OLD)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    (tmp_path / "train.py").write_text(new)
    patch = subprocess.run(["git", "diff"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert apply({PATH: OLD}, edits_from_patch(patch, {PATH: OLD}))[PATH] == new
    no_newline = edits_from_patch(
        "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n",
        {"f": "x"},
    )
    assert apply({"f": "x"}, no_newline) == {"f": "y"}


def test_a_hunk_that_has_moved_finds_its_place():
    patch = unified(OLD, OLD.replace("line 20\n", "line twenty\n"))
    moved = "new\n" * 7 + OLD
    assert "line twenty" in apply({PATH: moved}, edits_from_patch(patch, {PATH: moved}))[PATH]


GOOD = unified(OLD, OLD.replace("line 20\n", "line twenty\n"))


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("", "no change"),
        ("just words", "no change"),
        ("@@ -1 +1 @@\n-line 1\n+x\n", "which file"),
        (GOOD.replace(PATH, "nanomodel/score.py"), "only nanomodel/train.py may be edited"),
        (GOOD.replace("line 19", "line nineteen"), "nearest text"),
        (GOOD.replace(f"+++ b/{PATH}", "+++ /dev/null"), "cannot be deleted"),
        ("".join(GOOD.splitlines(keepends=True)[:-2]), "cut off|malformed"),
        (GOOD.replace("+line twenty", "?line twenty"), "malformed"),
        (GOOD.replace("+line twenty", "+line 20"), "changes nothing"),
    ],
)
def test_what_does_not_apply_is_refused_with_the_reason(patch, says):
    with pytest.raises(Refused, match=says):
        edits_from_patch(patch, {PATH: OLD})


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("-+@ \n1,ab/\\"), max_size=80))
def test_any_text_is_a_patch_or_refused(text):
    try:
        edits = edits_from_patch(f"--- a/f\n+++ b/f\n{text}", {"f": "a\nb\n"})
    except Refused:
        return
    assert apply({"f": "a\nb\n"}, edits)["f"] != "a\nb\n"


def test_a_patch_leaves_mixed_line_endings_alone_where_it_changes_nothing():
    mixed = "a\r\nb\nc\n"
    patch = "--- a/f\n+++ b/f\n@@ -3 +3 @@\n-c\n+d\n"
    assert apply({"f": mixed}, edits_from_patch(patch, {"f": mixed}))["f"].splitlines() == ["a", "b", "d"]
    assert line_ending(mixed) == "\n" and line_ending("a\r\nb\r\n") == "\r\n"


@pytest.mark.parametrize(
    "meddle, does",
    [
        ("git mv other.py renamed.py", "renames a file"),
        ("git mv nanomodel/train.py nanomodel/main.py", "renames a file"),
        ("git rm -q other.py", "deletes a file"),
        ("chmod +x nanomodel/train.py", "changes the mode"),
        ("echo new > added.py", "creates a file"),
        ("ln -sf train.py nanomodel/link.py", "creates a file"),
        ("head -c 999 /dev/zero > blob", "binary|creates"),
        ("head -c 99 /dev/zero > picture", "binary"),
    ],
)
def test_a_patch_that_does_more_is_refused_as_a_whole(tmp_path, meddle, does):
    def run(command):
        return subprocess.run(
            ["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "nanomodel").mkdir()
    (tmp_path / PATH).write_text(OLD)
    (tmp_path / "other.py").write_text(OLD * 2)
    (tmp_path / "picture").write_bytes(b"\0\1\2")
    run("git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm start")
    run(f"sed -i 's/line 7/line seven/' {PATH}")
    run(f"{meddle} && git add -A")
    for options in ("-M", "-M --binary", "--no-renames"):
        with pytest.raises(Refused) as refused:
            edits_from_patch(run(f"git diff --cached {options}"), {PATH: OLD})
        if options != "--no-renames":
            assert re.search(does, str(refused.value))


def test_words_before_a_patch_are_no_part_of_it():
    patch = "rename from here to there\n" + unified(OLD, OLD.replace("line 7", "line seven"))
    assert edits_from_patch(patch, {PATH: OLD})


@pytest.mark.parametrize("size", [400_001, 3_000_000])
def test_huge_patches_are_refused(size):
    with pytest.raises(Refused, match="more than"):
        edits_from_patch(unified(OLD, OLD + "x" * size), {PATH: OLD})


def test_too_many_hunks_are_refused():
    old = "".join(f"{n}\n" for n in range(2000))
    new = "".join(f"{n}x\n" if n % 8 == 0 else f"{n}\n" for n in range(2000))
    with pytest.raises(Refused, match="200 hunks"):
        edits_from_patch(unified(old, new, context=1), {PATH: old})


@pytest.mark.parametrize("blank", ["\n", " \n", "x\n"])
def test_files_of_equal_lines_are_compared_in_bounded_time(blank):
    old, new = "a\n" + blank * 8000, blank * 7000 + "b\n" + blank * 900
    edits = edits_between({"f": old}, {"f": new})
    assert apply({"f": old}, edits)["f"] == new
