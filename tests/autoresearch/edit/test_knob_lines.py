"""Knobs of files in any language: found without executing them, and set without touching anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.edit.apply import apply
from autoresearch.edit.knob_lines import knobs_in, set_in, values_in
from autoresearch.edit.knobs import Choice, Range

YAML = """\
model:
  width: 128          # 64..256 log; of the residual stream
  act: gelu           # relu | gelu
  bias: true          # true | false
  name: small
optimizer: {lr: 0.1}  # x4
lr: 0.02              # x4
"""
C = """\
#define ROWS 32          // 8..128
#define NAME "fast"      // fast | slow
#include <stdio.h>
static const float decay = 0.1f;  /* 0..0.3 */
int main() { return 0; } // 1..2
"""
INI = "[train]\nsteps = 100   ; 10..1000\ntwice = 1  # 0..2\ntwice = 2  # 0..2\n"


def test_reads_the_knobs_of_a_configuration():
    found = {knob.name: knob for knob in knobs_in("a.yaml", YAML, 0)}
    assert list(found) == ["width", "act", "bias", "lr"]
    assert found["width"].space == Range(64, 256, log=True, integer=True) and found["width"].line == 2
    assert found["act"].space == Choice(("relu", "gelu")) and found["act"].value == "gelu"
    assert found["lr"].space == Range(0.005, 0.08, log=True) and found["lr"].declared == "x4"
    assert found["bias"].value is True


def test_reads_the_knobs_of_a_program_and_leaves_its_code_alone():
    found = {knob.name: knob.value for knob in knobs_in("k.c", C, 0)}
    assert found == {"ROWS": 32, "NAME": "fast", "decay": 0.1}
    assert [knob.name for knob in knobs_in("a.ini", INI, 0)] == ["steps"], "a name that stands twice is none"
    assert values_in("a.yaml", YAML, 0)["name"] == "small"
    assert [knob.name for knob in knobs_in("a.yaml", "rate: 3\n", 0, named=["rate"])] == ["rate"]


def test_sets_the_value_and_nothing_else():
    new = {"width": 96, "act": "relu", "bias": False, "lr": 3e-05, "name": "small", "none": 1}
    edits = set_in("a.yaml", YAML, new, 0)
    changed = apply({"a.yaml": YAML}, edits)["a.yaml"]
    assert changed == YAML.replace(" 128", " 96").replace("gelu  ", "relu  ").replace(
        "true  ", "false  "
    ).replace("0.02", "3e-5")
    edits = set_in("k.c", C, {"NAME": "slow", "decay": 0.25}, 0)
    assert apply({"k.c": C}, edits)["k.c"] == C.replace('"fast"', '"slow"').replace("0.1f", "0.25f")


def test_python_is_parsed():
    source = "def f():\n    WIDTH = 3  # 1..9\nLR = 1.0  # x4\n"
    assert [knob.name for knob in knobs_in("a.py", source, 0)] == ["LR"]
    with pytest.raises(SyntaxError):
        knobs_in("a.py", "def (", 0)


@given(st.text(max_size=200), st.sampled_from(["a.yaml", "b.cu", "c.toml"]))
def test_any_text_can_be_read_and_what_is_set_is_read_back(text, path):
    source = text + "\nrate = 0.5  # 0..1\n"
    knobs = knobs_in(path, source, 0)
    new = {knob.name: knob.space.value(0.25) for knob in knobs if isinstance(knob.space, Range)}
    edits = set_in(path, source, new, 0)
    if "\r" not in source and "rate" in new:
        read = values_in(path, apply({path: source}, edits)[path], 0)
        assert read["rate"] == new["rate"]
