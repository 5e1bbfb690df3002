"""Programs are compared by what they do, measured in usual lines, and parsed by one thread at a time."""

import ast
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nanomodel
from autoresearch.edit.python import SPARSE_BYTES, code_size, fingerprint, net_size, parse, without_seeds
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
        halfway.wait(60)
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


def test_a_script_is_about_as_large_as_it_has_lines_of_code():
    assert round(code_size((Path(nanomodel.__file__).parent / "train.py").read_text())) in range(220, 260)
    assert round(code_size(TRAIN)) in range(4, 10)


@pytest.mark.parametrize(
    "old, new",
    [("# a comment", "# another, longer"), ("    # a comment\n", ""), ("x * lr", "(x   *  lr)"),
     ('"""Train."""', '"""Train the model on all of the data."""'), ("LR = 0.02", "LR = 0.03"),
     ("import torch\n", "import torch\n\n\n")],
)  # fmt: skip
def test_comments_docstrings_layout_and_other_numbers_are_free(old, new):
    assert old in TRAIN
    assert net_size({"train.py": TRAIN}, {"train.py": TRAIN.replace(old, new)}) == 0


def test_size_is_the_same_however_the_code_is_laid_out():
    body = "\n".join(f"x{i} = f(x{i}, {i})" for i in range(90))
    plain = code_size(body)
    assert 40 < plain < 120
    assert code_size(body.replace("\n", "; ")) == plain
    assert code_size("a = (\n1\n)\n") == code_size("a = 1\n")
    for hidden in (f"exec({body!r})\n", f"exec({body.encode()!r})\n", f"def f():\n    return {body!r}\n"):
        assert code_size(hidden) > plain / 2


@pytest.mark.parametrize(
    "hoard",
    ["DATA = {text!r}\n", "DATA = {data!r}\n", "DATA = 0x{number}\n", "# {text}\n", "{text} = 1\n",
     "'{text}'\n",
     'def f():\n    "{text}"\n', "x = f'{text}{{1}}'\n"],
)  # fmt: skip
def test_a_hoard_of_bytes_has_its_price_wherever_it_lies(hoard):
    text = "abcdefgh" * 20_000
    source = hoard.format(text=text, data=text.encode(), number="f" * 2 * len(text))
    assert net_size({"train.py": TRAIN}, {"train.py": TRAIN + source}) > 160_000 / SPARSE_BYTES / 9 - 100


def test_a_chain_of_seeds_takes_bounded_time():
    chain = "".join(f"x{i} = x{i - 1}\n" for i in range(1, 500))
    sources = {"train.py": f"import torch\nx0 = 1\n{chain}torch.manual_seed(x499)\n"}
    assert "x499" not in without_seeds(sources)["train.py"]


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


@given(
    st.text(max_size=200)
    | st.sampled_from(["x = (", "# a\rimport os\rx = 1", "#\f\x85", "-" * 9999 + "1", "\0"])
)
@example("x = 0x" + "f" * 20_000)
@example("(" * 5000 + ")" * 5000)
@example("\ud800")
def test_any_text_can_be_measured(text):
    assert code_size(text) >= 0
    net_size({"train.py": TRAIN}, {"train.py": text})
    fingerprint({"train.py": text.encode("utf-8", "replace").decode()})
