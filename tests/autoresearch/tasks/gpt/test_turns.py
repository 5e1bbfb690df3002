"""Who may run beside others, and who runs alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.tasks.gpt.resources import Turns


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=12))
def test_one_that_runs_alone_meets_nobody(kinds: list[bool]) -> None:
    turns, lock, running = Turns(), threading.Lock(), []

    def run(alone: bool) -> None:
        with turns.alone() if alone else turns.together():
            with lock:
                running.append(alone)
                met = list(running)
            time.sleep(0.001)
            with lock:
                met += running
                running.remove(alone)
        assert not alone or met == [True, True]
        assert alone or True not in met

    with ThreadPoolExecutor(len(kinds)) as threads:
        list(threads.map(run, kinds))
    assert running == []


def test_who_waits_to_run_alone_goes_first() -> None:
    turns, order = Turns(), []
    first = turns.together()
    first.__enter__()

    def run(alone: bool) -> None:
        with turns.alone() if alone else turns.together():
            order.append(alone)

    waiting = threading.Thread(target=run, args=(True,))
    waiting.start()
    while not turns._waiting:
        time.sleep(0.001)
    late = threading.Thread(target=run, args=(False,))
    late.start()
    time.sleep(0.01)
    assert order == []
    first.__exit__(None, None, None)
    waiting.join()
    late.join()
    assert order == [True, False]


@pytest.mark.parametrize("alone", [True, False])
def test_one_that_is_cancelled_while_it_waits_holds_up_nobody(alone: bool) -> None:
    class Cancelled(Exception):
        pass

    def cancelled() -> None:
        raise Cancelled

    turns = Turns()
    with (
        turns.alone(),
        pytest.raises(Cancelled),
        turns.alone(cancelled) if alone else turns.together(cancelled),
    ):
        raise AssertionError("it may not run")
    with turns.together(), turns.together():
        pass
    with turns.alone():
        pass
