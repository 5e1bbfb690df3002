import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nanomodel
from autoresearch.execute.output import (
    classify,
    excerpt,
    explain,
    explain_without_words,
    last_useful_line,
    where,
)
from autoresearch.text import clean

TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 3, in main\n    work()\n'


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out of memory"),
        (
            "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried",
            "out of memory",
        ),
        ("MemoryError", "out of memory"),
        ("nanomodel.harness.Diverged: the training loss is nan at step 7", "diverged"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "import error"),
        ("IndentationError: unexpected indent (train.py, line 3)", "syntax error"),
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", "shape error"),
        ("RuntimeError: The size of tensor a (3) must match the size of tensor b (4)", "shape error"),
        ("RuntimeError: shape '[2, 3]' is invalid for input of size 7", "shape error"),
        ("torch._inductor.exc.InductorError: CppCompileError: C++ compile error", "compiler error"),
        ("torch._dynamo.exc.Unsupported: data-dependent branching", "compiler error"),
        ("OSError: [Errno 28] No space left on device", "disk full"),
        ("PermissionError: [Errno 13] Permission denied: '/home'", "refused by the sandbox"),
        ("nanomodel.runner.HarnessError: the budget is less than one batch", "error"),
        ("ValueError: anything else", "error"),
    ],
)
def test_causes(line, cause):
    assert explain(f"step 1\n{TRACEBACK}{line}\n", 1) == f"{cause}: {line}"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ValueError: Alice was beginning", "error: ValueError at line 3"),
        ("torch.OutOfMemoryError: CUDA out of memory: Alice", "out of memory: an error at line 3"),
        ("RuntimeError: mat1 and mat2: Alice", "shape error: RuntimeError at line 3"),
        ("AliceError: was beginning", "error: an error at line 3"),
        ("Alice.was.BeginningError", "error: an error at line 3"),
        ("Alice was beginning to get very tired", "error: an error at line 3"),
    ],
)
def test_of_a_process_that_has_seen_held_out_text_only_kind_and_line_are_told(line, reason):
    assert explain_without_words(f"Alice\n{TRACEBACK}{line}\n", 1) == reason


@given(st.text(), st.sampled_from([None, 0, 1, -9, -11, 137]))
def test_its_words_are_never_told(text, status):
    said = explain_without_words(f"{text}\nAlice {text}", status)
    assert "Alice" not in said and len(said) < 80


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (-11, "killed: SIGSEGV after: last words"),
        (139, "killed: SIGSEGV after: last words"),
        (137, "out of memory, or killed from outside: SIGKILL after: last words"),
        (2, "ended with status 2 before it submitted, after: last words"),
        (0, "ended before it submitted, after: last words"),
        (None, "ended before it submitted, after: last words"),
    ],
)
def test_without_an_error_the_status_speaks(status, reason):
    assert explain("first\nlast words\n\n", status) == reason


def test_the_line_of_an_error_counts_more_than_what_is_printed_after_it():
    assert last_useful_line("ValueError: real\nbye\n") == "ValueError: real"


@given(st.text(), st.none() | st.integers(-64, 300))
def test_any_log_gives_one_short_line(log, status):
    reason = explain(clean(log), status)
    assert reason and len(reason) < 400 and "\n" not in reason


@given(st.binary())
def test_clean_text_cannot_steer_a_terminal(data):
    text = clean(data.decode(errors="replace"))
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in text)


def test_the_place_of_a_stopped_process():
    dump = 'x\nThread 0x7f (most recent call first):\n  File "/tmp/code/train.py", line 31 in forward\n'
    assert where(dump) == " (at train.py:31)" and where("nothing") == ""


FAILURES = """
import sys, traceback
import torch, torch.nn as nn, torch.nn.functional as F
from nanomodel.meter import Diverged

def grab():
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    return torch.zeros(1 << 33)

CASES = {
    "shape error: linear": lambda: nn.Linear(3, 4)(torch.zeros(2, 5)),
    "shape error: add": lambda: torch.zeros(2, 3) + torch.zeros(2, 4),
    "shape error: view": lambda: torch.zeros(2, 3).view(4, 2),
    "shape error: cat": lambda: torch.cat([torch.zeros(2, 3), torch.zeros(3, 4)]),
    "shape error: load": lambda: nn.Linear(3, 4).load_state_dict(nn.Linear(3, 5).state_dict()),
    "shape error: dim": lambda: torch.zeros(2).sum(3),
    "shape error: heads": lambda: F.scaled_dot_product_attention(*(torch.zeros(1, 3, d) for d in (4, 5, 5))),
    "shape error: loss": lambda: F.cross_entropy(torch.zeros(4, 7), torch.zeros(5, dtype=torch.long)),
    "shape error: bmm": lambda: torch.bmm(torch.zeros(2, 3, 4), torch.zeros(2, 5, 6)),
    "shape error: broadcast": lambda: torch.zeros(3).expand(4, 2),
    "import error: module": lambda: __import__("flash_attn"),
    "import error: name": lambda: exec("from torch import nothing_like_it"),
    "syntax error: if": lambda: exec("if True\\n    pass"),
    "diverged: loss": lambda: exec("raise Diverged('the training loss is nan at step 3')"),
    "out of memory: torch": grab,
    "out of memory: python": lambda: bytearray(1 << 40),
}

def innermost(case):
    return CASES[case]()

for case in CASES:
    print(f"=== {case}", flush=True)
    try:
        innermost(case)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
"""


@pytest.fixture(scope="module")
def failures(once):
    """What real failures print: case -> text."""

    def make(folder):
        folder.mkdir()
        (folder / "train.py").write_text(FAILURES)
        root = Path(nanomodel.__file__).parent.parent
        command = [sys.executable, str(folder / "train.py")]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, timeout=120
        )
        assert done.returncode == 0, done.stderr
        (folder / "said").write_text(done.stdout)

    said = (once("failures", make) / "said").read_text()
    parts = re.split(r"^=== (.*)\n", said, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.slow
def test_real_failures_have_their_causes(failures):
    found = {case: explain(text, 1) for case, text in failures.items()}
    wrong = {case: reason for case, reason in found.items() if classify(reason) != case.partition(":")[0]}
    assert len(found) == 16 and wrong == {}


@pytest.mark.slow
def test_real_failures_are_told_in_a_few_lines_of_their_own(failures):
    text = failures["shape error: linear"]
    assert "site-packages" in text
    lines = excerpt(f"step 1\n{text}").splitlines()
    assert "site-packages" not in "\n".join(lines) and "linear.py" not in "\n".join(lines)
    assert lines[-1].startswith("RuntimeError: mat1 and mat2 shapes")
    assert any(line.startswith("  train.py:") and line.endswith("in innermost") for line in lines)


def test_without_a_traceback_the_last_lines_are_told():
    assert excerpt("".join(f"line {i}\n\n" for i in range(50)), 3) == "line 47\nline 48\nline 49"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("timeout: not ready after 60 s (at train.py:3)", "timeout"),
        ("out of memory, or killed from outside: SIGKILL after: x", "out of memory"),
        ("refused by the sandbox: it ran more than 48 processes and threads", "refused by the sandbox"),
        ("GPU error: torch.AcceleratorError: CUDA error: an illegal memory access", "GPU error"),
        ("error: ValueError: out of memory: no", "other"),
        ("", "other"),
    ],
)
def test_classes(reason, cause):
    assert classify(reason) == cause


@given(st.text())
def test_any_log_gives_a_short_excerpt(log):
    assert len(excerpt(clean(log), 5).splitlines()) <= 5
