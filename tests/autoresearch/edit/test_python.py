"""Programs are compared by what they do, counted in lines of code, and parsed by one thread at a time."""

import ast
import gc
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.edit.python import code_lines, fingerprint, net_lines, parse
from tests.autoresearch.edit.test_rules import TRAIN


@pytest.fixture
def often() -> Iterator[None]:
    """Garbage is looked for often, as in a process with many objects."""
    usual = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*usual)
    gc.callbacks[:] = [callback for callback in gc.callbacks if callback.__name__ != "let_another_in"]


@pytest.mark.usefixtures("often")
def test_two_threads_may_parse_at_once() -> None:
    """Garbage is collected halfway through one tree, and another thread comes in, halfway through its own."""
    halfway, other_halfway, done = threading.Event(), threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def let_another_in(phase: str, info: dict[str, int]) -> None:
        name = threading.current_thread().name
        if name == "first" and not halfway.is_set():
            halfway.set()
            other_halfway.wait(0.3)  # in vain if it may not begin
        elif name == "second" and not other_halfway.is_set():
            other_halfway.set()
            done.wait(0.3)

    def first() -> None:
        try:
            parse("x = [1, 2, 3]\n" * 300)
        except SystemError as error:
            failed.append(error)
        done.set()

    def second() -> None:
        halfway.wait(10)
        try:
            parse("x = " + "[" * 60 + "]" * 60 + "\n" + "x = [1, 2, 3]\n" * 300)
        except SystemError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, name=work.__name__) for work in (first, second)]
    gc.callbacks.append(let_another_in)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_files_that_are_not_python_count_as_they_are():
    assert fingerprint({"a.txt": "x"}) != fingerprint({"a.txt": "x "})


def test_lines_of_code():
    assert code_lines(TRAIN) == 9
    assert code_lines('x = """\na\n"""\n\n# c\ny = [\n    1,\n]\n') == 6
    longer = TRAIN.replace("    # a comment", "    x = x + 1\n    # b\n\n    x = x - 1")
    assert net_lines({"train.py": TRAIN}, {"train.py": longer}) == 2
    assert net_lines({"train.py": longer, "a.txt": "x"}, {"train.py": TRAIN}) == -2


@given(
    st.sampled_from(["0.02", "x * lr", "torch.zeros(3)", "SEED"]), st.sampled_from(["0.5", "x", "LR", "seed"])
)
def test_unparsing_never_changes_the_fingerprint(old, new):
    text = TRAIN.replace(old, new)
    try:
        plain = ast.unparse(ast.parse(text))
    except SyntaxError:
        return
    assert fingerprint({"train.py": text}) == fingerprint({"train.py": plain})
    assert (fingerprint({"train.py": text}) == fingerprint({"train.py": TRAIN})) == (
        ast.unparse(ast.parse(TRAIN)) == plain
    )


def test_a_file_that_cannot_be_parsed_counts_no_lines():
    assert net_lines({"train.py": "x = 1\n"}, {"train.py": "x = (\n"}) == -1
