"""Knobs are read with their spaces and set by one-line edits that say exactly the value asked for."""

import ast
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.config import CONFIGS
from autoresearch.edit.apply import apply
from autoresearch.edit.knobs import Choice, Knob, Range, literal, read_knobs, read_values, rounded, set_knobs

SCRIPT = '''"""DEPTH = 3 is only talk."""
from nanomodel.harness import at

DEPTH = at(3, 8)            # 2..6; layers
MATRIX_LR = at(0.02, 0.01)  # x4
WIDTH = 128                 # 64..256 log
BATCH = 16                  # x2
WARMUP = 0.0                # 0..0.2
ACTIVATION = "relu2"        # relu2 | gelu | swiglu
TIE = False                 # True | False
HEADS: int = 4              # 1 | 2 | 4 | 8
CAP = 15.0                  # soft cap of the logits
EPS = 1e-10
NAME = "é"; GAIN = -0.5     # -1..1
PAIR = (1, 2)               # 1..2
TWICE = 1                   # 1..3
TWICE = 2                   # 1..3


def at_import():
    LOCAL = 1               # 1..3
    return at(1, 2, 3)
'''

KNOBS = [
    Knob("DEPTH", 3, Range(2, 6, integer=True), 4),
    Knob("MATRIX_LR", 0.02, Range(0.005, 0.08, log=True), 5),
    Knob("WIDTH", 128, Range(64, 256, log=True, integer=True), 6),
    Knob("BATCH", 16, Range(8, 32, log=True, integer=True), 7),
    Knob("WARMUP", 0.0, Range(0, 0.2), 8),
    Knob("ACTIVATION", "relu2", Choice(("relu2", "gelu", "swiglu")), 9),
    Knob("TIE", False, Choice((True, False)), 10),
    Knob("HEADS", 4, Choice((1, 2, 4, 8)), 11),
    Knob("GAIN", -0.5, Range(-1, 1), 14),
]


def test_reads_every_kind_of_space():
    assert [replace(k, declared="") for k in read_knobs(SCRIPT, 0) if k.name != "NAME"] == KNOBS
    assert read_knobs(SCRIPT, 0)[0].declared == "2..6"


def test_the_active_column_counts_and_its_value_always_belongs_to_its_space():
    knobs = {k.name: k for k in read_knobs(SCRIPT, 1)}
    knobs = {name: replace(knob, declared="") for name, knob in knobs.items()}
    assert knobs["DEPTH"] == Knob("DEPTH", 8, Range(2, 8, integer=True), 4)
    assert knobs["MATRIX_LR"] == Knob("MATRIX_LR", 0.01, Range(0.0025, 0.04, log=True), 5)
    assert knobs["WARMUP"].value == 0.0


@pytest.mark.parametrize(
    "line",
    ["A = 0  # x4", "A = 1.0  # x1", "A = 1", "A = f(1)  # 1..2", "A = 1  # 3..3 or so", "A = 'a'  # x2",
     "A = 1  # -1..2 log", "A = at(1)  # 1..2", "A = at(1, gpu=2)  # 1..2", "A = B = 1  # 1..2"],
)  # fmt: skip
def test_what_is_not_a_knob(line):
    assert read_knobs(line + "\n", 0) == []


def test_a_script_that_does_not_parse():
    with pytest.raises(SyntaxError):
        read_knobs("A = (\n", 0)


def test_sets_only_the_active_column_and_keeps_the_comment_where_it_was():
    edits = set_knobs("train.py", SCRIPT, {"DEPTH": 5, "MATRIX_LR": 0.0213, "ACTIVATION": "gelu"}, 0)
    new = apply({"train.py": SCRIPT}, edits)["train.py"].splitlines()
    assert new[3] == "DEPTH = at(5, 8)            # 2..6; layers"
    assert new[4] == "MATRIX_LR = at(0.0213, 0.01)  # x4"
    assert new[8] == 'ACTIVATION = "gelu"         # relu2 | gelu | swiglu'
    assert sum(a != b for a, b in zip(new, SCRIPT.splitlines(), strict=True)) == 3
    edits = set_knobs("train.py", SCRIPT, {"DEPTH": 12}, 1)
    assert edits[0].replace == "DEPTH = at(3, 12)           # 2..6; layers"


FORMATTED = """# Knobs.
DEPTH = at(2, 19)  # 2..8; blocks
RATE = 0.0175  # x5
KIND = 'relu2'  # relu2 | gelu
NEAR = 1 # 0..2
"""


def test_a_formatted_file_stays_formatted():
    new = apply(
        {"t.py": FORMATTED}, set_knobs("t.py", FORMATTED, {"DEPTH": 5, "RATE": 0.02, "KIND": "gelu"}, 0)
    )
    assert new["t.py"] == FORMATTED.replace("2, 19", "5, 19").replace("0.0175", "0.02").replace(
        "relu2'", "gelu'"
    )
    new = apply({"t.py": FORMATTED}, set_knobs("t.py", FORMATTED, {"DEPTH": 8, "NEAR": 2, "KIND": "it's"}, 1))
    assert new["t.py"].splitlines()[1:] == [
        "DEPTH = at(2, 8)  # 2..8; blocks",
        "RATE = 0.0175  # x5",
        'KIND = "it\'s"  # relu2 | gelu',
        "NEAR = 2 # 0..2",
    ]


@pytest.mark.slow
@given(st.data(), st.integers(0, 1))
@settings(max_examples=3)
def test_the_formatter_of_a_repository_has_nothing_to_say_of_the_shipped_script(data, column):
    source = (CONFIGS.parent / "nanomodel" / "train.py").read_text(encoding="utf-8")
    values = {
        knob.name: data.draw(st.sampled_from(knob.space.options))
        if isinstance(knob.space, Choice)
        else knob.space.value(data.draw(st.floats(0, 1)))
        for knob in read_knobs(source, column)
    }
    new = apply({"t.py": source}, set_knobs("t.py", source, values, column))["t.py"]
    command = [sys.executable, "-m", "ruff", "format", "--line-length=110", "-"]
    assert subprocess.run(command, input=new, capture_output=True, text=True, check=True).stdout == new


def test_unknown_and_unchanged_knobs_are_skipped():
    assert set_knobs("train.py", SCRIPT, {"GONE": 1, "DEPTH": 3, "TWICE": 3, "LOCAL": 2}, 0) == ()


def test_values_without_a_space_are_read_too():
    values = read_values(SCRIPT, 1)
    assert values["EPS"] == 1e-10 and values["DEPTH"] == 8 and values["NAME"] == "é"
    assert "TWICE" not in values and "PAIR" not in values


def test_a_line_that_stands_twice_is_widened_to_a_unique_block():
    source = '"""\nA = 1  # 1..3\n"""\nA = 1  # 1..3\nB = 2  # 1..3\n'
    edits = set_knobs("t.py", source, {"A": 2}, 0)
    assert apply({"t.py": source}, edits)["t.py"] == '"""\nA = 1  # 1..3\n"""\nA = 2  # 1..3\nB = 2  # 1..3\n'


def test_crlf():
    source = "A = 1  # 1..3\r\nB = 2  # 1..3\r\n"
    new = apply({"t.py": source}, set_knobs("t.py", source, {"A": 2, "B": 3}, 0))["t.py"]
    assert new == "A = 2  # 1..3\r\nB = 3  # 1..3\r\n"


@pytest.mark.parametrize(
    "value, text",
    [(0.0213, "0.0213"), (1e-05, "1e-5"), (0.0003, "3e-4"),
     (0.004, "0.004"), (1200000.0, "1.2e6"), (2.0, "2.0"), (12, "12"),
     (True, "True"), ('a"b', '"a\\"b"'), (0.1, "0.1"), (0.0, "0.0"), (-0.0125, "-0.0125")],
)  # fmt: skip
def test_literals_are_short(value, text):
    assert literal(value) == text


numbers = st.floats(1e-9, 1e9).map(rounded)


@given(st.one_of(numbers, st.integers(-1000, 1000), st.booleans(), st.text(max_size=8)))
def test_literals_mean_what_they_say(value):
    read = ast.literal_eval(literal(value))
    assert read == value and type(read) is type(value)


@given(numbers, numbers, st.booleans(), st.booleans(), st.floats(0, 1))
def test_positions_and_values_agree(a, b, log, integer, unit):
    low, high = min(a, b), max(a, b)
    if integer:
        low, high = max(1, round(low)), max(2, min(round(high), 10**6))
    if low >= high:
        return
    space = Range(low, high, log, integer)
    value = space.value(unit)
    assert low <= value <= high
    assert isinstance(value, int) == integer
    assert space.value(space.unit(value)) == value
    assert space.unit(low) == 0 and space.unit(high) == 1


@given(st.data(), st.integers(0, 1))
def test_what_is_set_is_what_is_read_back(data, column):
    knobs = read_knobs(SCRIPT, column)
    values = {}
    for knob in data.draw(st.lists(st.sampled_from(knobs), unique_by=lambda k: k.name)):
        space = knob.space
        draw = (
            st.sampled_from(space.options) if isinstance(space, Choice) else st.floats(0, 1).map(space.value)
        )
        values[knob.name] = data.draw(draw)
    edits = set_knobs("t.py", SCRIPT, values, column)
    changed = {k.name for k in knobs if k.name in values and values[k.name] != k.value}
    assert len(edits) == len(changed)
    new = apply({"t.py": SCRIPT}, edits)["t.py"] if edits else SCRIPT
    assert {k.name: k.value for k in read_knobs(new, column)} == {k.name: k.value for k in knobs} | values


ODD = [
    "1 | 1", "1|1|1", "1", "1e999 | 1", "0..1e999", "-1e999..1e999", "x1e999", "x 1e308", "1e-320..1e-310",
    "0..1e-323", "-1e308..1e308", "1..1", "x1", "x0", "x-2", "0..2 log", "1e308..1.1e308 log", "| | |", "|",
    "nan | nan", "..", "x", "9" * 400 + "..1", "x" + "9" * 400, " | ".join(map(str, range(101))), "1 | " * 50,
    "((((", "\\", "1 | {", "x4" * 999,
]  # fmt: skip


@pytest.mark.parametrize("comment", ODD)
@pytest.mark.parametrize("value", ["1", "1.0", "-1", "0", '"a"', "True", "1e999", "1e-320", "9" * 400])
def test_any_comment_gives_a_space_to_compute_with_or_none(comment, value):
    knobs = read_knobs(f"K = {value}  # {comment}\n", 0)
    for knob in knobs:
        if isinstance(knob.space, Choice):
            assert len(set(map(repr, knob.space.options))) >= 2
        else:
            assert 0 <= knob.space.unit(knob.value) <= 1
            for at in (0.0, 0.3, 1.0):
                found = knob.space.value(at)
                assert math.isfinite(found) and knob.space.low <= found <= knob.space.high


def test_equal_options_count_once():
    [knob] = read_knobs("K = 1  # 1 | 2 | 1 | True\n", 0)
    assert knob.space == Choice((1, 2, True))


def test_a_constant_that_is_named_needs_no_range():
    script = "LR = 0.1\nUSE = False\nNAME = 'x'\nLOSS = -1.0\nOTHER = 3\n"
    found = {knob.name: knob.space for knob in read_knobs(script, 0, ("LR", "USE", "NAME", "LOSS", "NONE"))}
    assert found == {"LR": Range(0.025, 0.4, log=True), "USE": Choice((False, True))}
    assert not read_knobs(script, 0)
