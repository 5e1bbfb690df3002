import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.run.crash import explain, last_useful_line, where
from autoresearch.run.log import clean

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
        ("nanomodel.host.HarnessError: the budget is less than one batch", "error"),
        ("ValueError: anything else", "error"),
    ],
)
def test_causes(line, cause):
    assert explain(f"step 1\n{TRACEBACK}{line}\n", 1) == f"{cause}: {line}"


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
