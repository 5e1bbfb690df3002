"""Syntax trees made in several threads."""

import gc
import threading
from collections.abc import Iterator

import pytest

from autoresearch.edit.syntax import parse


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
