"""Edits are applied exactly or refused: examples of each slip, then properties over random files."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoresearch.edit.apply import apply, nearest
from autoresearch.errors import Refused
from autoresearch.types import Edit

TRAIN = """import torch

DEPTH = 3
WIDTH = 32


def main():
    model = build(DEPTH)
    for step in range(10):
        loss = model(step)
        loss.backward()
    for step in range(10):
        loss = model(step)
"""


def edited(search, replace, text=TRAIN):
    return apply({"train.py": text}, [Edit("train.py", search, replace)])["train.py"]


def refusal(*edits, text=TRAIN):
    with pytest.raises(Refused) as refused:
        apply({"train.py": text}, [Edit("train.py", *edit) for edit in edits])
    return str(refused.value)


def test_replaces_exactly_one_passage():
    assert edited("DEPTH = 3\n", "DEPTH = 4\n") == TRAIN.replace("DEPTH = 3", "DEPTH = 4")


def test_several_edits_all_refer_to_the_original_text():
    new = apply(
        {"train.py": TRAIN},
        [Edit("train.py", "WIDTH = 32", "DEPTH = 3"), Edit("train.py", "DEPTH = 3", "WIDTH = 32")],
    )["train.py"]
    assert "WIDTH = 32\nDEPTH = 3\n" in new


def test_other_files_stay():
    new = apply({"train.py": TRAIN, "b.py": "x = 1\n"}, [Edit("b.py", "x = 1", "x = 2")])
    assert new == {"train.py": TRAIN, "b.py": "x = 2\n"}


def test_whole_file():
    assert edited("", "import torch\n") == "import torch\n"
    assert edited("", "import torch") == "import torch\n", "the file's final newline is kept"
    assert edited("", "a\nb\n", text="x\r\ny\r\n") == "a\r\nb\r\n"


def test_whole_file_cannot_be_emptied_or_mixed_with_other_edits():
    assert "deleted" in refusal(("", " \n"))
    assert "overlap" in refusal(("", "import torch\n"), ("DEPTH = 3", "DEPTH = 4"))


def test_no_edits_and_no_effect():
    with pytest.raises(Refused, match="no edits"):
        apply({"train.py": TRAIN}, [])
    assert "edit 1 (train.py) changes nothing" in refusal(("DEPTH = 3", "DEPTH = 3"))
    assert "as it was" in refusal(("", TRAIN))


REAL = ("WIDTH = 32", "WIDTH = 64")


@pytest.mark.parametrize(
    "idle",
    [
        ("DEPTH = 3  ", "DEPTH = 3"),
        ("DEPTH = 3\r\n", "DEPTH = 3\n"),
        ("    for step in range(10):\n        loss = model(step)\n        loss.backward()  ",
         "    for step in range(10):\n        loss = model(step)\n        loss.backward()"),
    ],
)  # fmt: skip
def test_an_edit_that_changes_nothing_is_refused_beside_one_that_does(idle):
    assert "edit 2 (train.py) changes nothing" in refusal(REAL, idle)


def test_lines_that_follow_a_passage_without_its_indentation_are_not_guessed():
    text = "def f(a):\n    x = 1\n    save(a)\n"
    assert "indentation" in refusal(("save(a)", "save(a)\nprint('done')"), text=text)
    assert "indentation" in refusal(("save(a)\n", "save(a)\nprint('done')\n"), text=text)
    whole = edited("    save(a)", "    save(a)\nprint('done')", text)
    assert whole == text + "print('done')\n", "whole lines say what they mean"
    assert edited("save(a)", "save(a)\n    print(a)", text) == text + "    print(a)\n"
    assert edited("1", "(1 +\n2)", text) == text.replace("1", "(1 +\n2)")


def test_unknown_file_names_the_nearest():
    with pytest.raises(Refused, match=r"did you mean 'nanomodel/train\.py'"):
        apply({"nanomodel/train.py": TRAIN}, [Edit("train.py", "a", "b")])


def test_unknown_text_shows_the_nearest_lines_with_numbers():
    message = refusal(("    model = build(WIDTH)\n", "x"))
    assert "   8 |     model = build(DEPTH)" in message
    assert "line numbers" not in message


def test_copied_line_numbers_are_named_as_the_reason():
    assert "leave out the line numbers" in refusal(("   3 | DEPTH = 3\n   4 | WIDTH = 32", "DEPTH = 1"))


def test_ambiguous_text_names_every_line():
    message = refusal(("        loss = model(step)", "        loss = 0"))
    assert "2 times" in message and "lines 10, 13" in message


def test_overlap_is_refused_and_touching_is_not():
    message = refusal(("DEPTH = 3\nWIDTH", "DEPTH = 4\nWIDTH"), ("WIDTH = 32", "WIDTH = 64"))
    assert "edits 1 and 2 overlap" in message
    new = apply(
        {"train.py": TRAIN},
        [Edit("train.py", "DEPTH = 3\n", "DEPTH = 4\n"), Edit("train.py", "WIDTH = 32\n", "WIDTH = 64\n")],
    )["train.py"]
    assert "DEPTH = 4\nWIDTH = 64\n" in new


@pytest.mark.parametrize("search", ["DEPTH = 3", "EPTH = 3", "DEPTH = 3\nWIDTH = 3"])
def test_a_match_inside_a_number_or_name_does_not_count(search):
    text = "DEPTH = 32\nDEPTH = 3.5\nWIDTH = 32\n"
    assert "not in" in refusal((search, "y"), text=text)


def test_the_match_that_is_not_inside_a_token_is_found():
    assert edited("A = 1", "A = 2", text="AA = 1\nA = 10\nA = 1\n") == "AA = 1\nA = 10\nA = 2\n"


def test_deleting_whole_lines_leaves_no_blank_line():
    assert edited("WIDTH = 32", "") == TRAIN.replace("WIDTH = 32\n", "")
    assert edited("WIDTH = 32\n", "") == TRAIN.replace("WIDTH = 32\n", "")
    assert edited(" = 32", "") == TRAIN.replace(" = 32", "")


def test_crlf_files_keep_their_line_endings():
    text = TRAIN.replace("\n", "\r\n")
    assert edited("DEPTH = 3\nWIDTH = 32\n", "DEPTH = 4\n", text) == text.replace(
        "DEPTH = 3\r\nWIDTH = 32", "DEPTH = 4"
    )
    assert edited("DEPTH = 3\r\n", "DEPTH = 4\r\n") == TRAIN.replace("DEPTH = 3", "DEPTH = 4")


def test_missing_final_newline():
    assert edited("b = 2\n", "b = 3\n", "a = 1\nb = 2") == "a = 1\nb = 3"
    assert edited("b = 2", "b = 3\n", "a = 1\nb = 2") == "a = 1\nb = 3\n"


def test_uniform_indentation_drift_is_mended():
    new = edited(
        "loss = model(step)\nloss.backward()", "loss = model(step) * 2\nif loss:\n    loss.backward()"
    )
    assert "        loss = model(step) * 2\n        if loss:\n            loss.backward()\n    for" in new
    new = edited("            DEPTH = 3\n            WIDTH = 32\n", "            DEPTH = 4\n")
    assert new == TRAIN.replace("DEPTH = 3\nWIDTH = 32", "DEPTH = 4")


def test_trailing_blanks_are_mended():
    assert edited("DEPTH = 3  \nWIDTH = 32", "DEPTH = 4") == TRAIN.replace(
        "DEPTH = 3\nWIDTH = 32", "DEPTH = 4"
    )


def test_drift_that_can_be_read_two_ways_is_refused():
    assert "2 times" in refusal(("for step in range(10):\n    loss = model(step)", "pass"))
    assert "not in" in refusal(("model = build(DEPTH)\n  for step in range(10):", "pass")), "not uniform"


def test_drift_is_not_mended_where_it_could_change_a_string():
    assert "not in" in refusal(("loss = model(step)\nloss.backward()", 'x = """\na\n"""'))
    assert "not in" in refusal(("    DEPTH = 3\n    WIDTH = 32", "  DEPTH = 4")), "cannot be dedented"


def test_nearest_of_an_empty_file_is_empty():
    assert nearest("", "x") == ""


words = st.sampled_from(["x = 1", "    y = 2", "def f():", "", "        return x", "x = 10", "# é"])
files = st.lists(words, min_size=1, max_size=12)


@given(files, st.data(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_unique_block_is_replaced_exactly_and_nothing_else_moves(lines, data, eol, final):
    text = eol.join(lines) + (eol if final else "")
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, len(lines) - 1))
    search = "\n".join(lines[first : last + 1])
    new = "\n".join(data.draw(st.lists(words.filter(bool), min_size=1, max_size=4)))
    assume(search.strip() and new != search and eol in text)
    literal = search.replace("\n", eol)
    places = [match.start() for match in re.finditer(f"(?={re.escape(literal)})", text)]
    assume(len(places) == 1)
    expected = text.replace(literal, new.replace("\n", eol))
    assert edited(search, new, text) == expected


@given(files, st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_every_edit_shows_in_the_result_or_all_are_refused(lines, pairs):
    text = "\n".join(lines) + "\n"
    sources = {"train.py": text}
    try:
        new = apply(sources, [Edit("train.py", *pair) for pair in pairs])
    except Refused as refused:
        assert str(refused)
        assert sources == {"train.py": text}
    else:
        assert new["train.py"] != text
        for search, replace in pairs:
            assert search != replace
            for line in replace.split("\n"):
                assert line.strip() in new["train.py"]


@given(
    st.integers(1, 8), st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=1, max_size=5)
)
def test_no_line_leaves_the_block_that_a_passage_stands_in_unless_it_says_so(depth, further):
    text = f"def f():\n{' ' * depth}save(a)\n"
    replace = "\n".join(["save(b)", *(" " * n + name for n, name in further)])
    try:
        new = edited("save(a)", replace, text)
    except Refused:
        assert any(n < depth for n, _ in further)
    else:
        assert all(n >= depth for n, _ in further) and new == text.replace("save(a)", replace)


@given(files, st.lists(st.tuples(words, st.sampled_from(["", "  ", "\t"])), min_size=1, max_size=3))
def test_edits_of_blanks_at_the_ends_of_lines_alone_are_never_accepted(lines, slips):
    edits = [Edit("train.py", f"{line}{blanks}", line) for line, blanks in slips if line]
    assume(edits)
    with pytest.raises(Refused):
        apply(
            {"train.py": "\n".join([*lines, "real = 1", ""])},
            [Edit("train.py", "real = 1", "real = 2"), *edits],
        )


@given(st.text(max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_no_text_makes_it_fail_in_another_way(text, search, replace):
    try:
        new = apply({"a": text}, [Edit("a", search, replace)])
    except Refused:
        return
    assert new["a"] != text


@pytest.mark.parametrize(
    "edits",
    [
        [Edit("a.py", "x = 1", "x" * 400_001)],
        [Edit("a.py", "x" * 400_001, "y")],
        [Edit("x" * 400_001, "x = 1", "y")],
        [Edit("a.py", "x = 1", f"x = {i}") for i in range(201)],
    ],
)
def test_proposals_that_are_too_large_are_refused(edits):
    with pytest.raises(Refused, match="are allowed"):
        apply({"a.py": "x = 1\n"}, edits)


@pytest.mark.parametrize(
    "search",
    [
        "x" + " " * 60_000,
        " " * 60_000,
        "\n" * 60_000 + "x",
        "x\n" + " \n" * 30_000,
        "x " * 60_000,
        "x" * 60_000,
    ],
)
@pytest.mark.parametrize("text", ["x = 1\n" * 400, " " * 70_000 + "\n", "\n" * 10_000, "x" * 70_000])
def test_odd_blocks_are_refused_in_bounded_time(text, search):
    with pytest.raises(Refused) as refused:
        apply({"a.py": text}, [Edit("a.py", search, "y")])
    assert len(str(refused.value)) < 20_000


QUOTED = "def f():\n    return \"masked\"\n\n\nname = 'it'\n"


@pytest.mark.parametrize(
    ("search", "replace", "line"),
    [
        ("    return “masked”", '    return "flex"', '    return "flex"'),
        ("    return “masked”", "    return “flex”", '    return "flex"'),
        ("name = ‘it’", "name = ‘them’", "name = 'them'"),
        ('\u00a0\u00a0\u00a0\u00a0return\u202f"masked"', "    return 'flex'", "    return 'flex'"),
    ],
)
def test_curly_quotes_and_special_blanks_are_mapped_where_the_match_is_unique(search, replace, line):
    assert line in apply({"a.py": QUOTED}, [Edit("a.py", search, replace)])["a.py"].split("\n")


def test_what_the_file_itself_has_is_kept():
    text = "x = '“masked”'\n"
    assert (
        apply({"a.py": text}, [Edit("a.py", "x = '\"masked\"'", "x = '“flex”'")])["a.py"] == "x = '“flex”'\n"
    )
    assert apply({"a.py": text}, [Edit("a.py", "“masked”", "“flex”")])["a.py"] == "x = '“flex”'\n"


def test_two_places_that_differ_in_their_quotes_are_not_guessed_between():
    with pytest.raises(Refused):
        apply({"a.py": "a = 'x'; b = \"x\"\nc = 'x'\n"}, [Edit("a.py", "‘x’", "y")])
