"""Keeps a program that is shown held-out text apart in time from all programs that could hear of it.

Two processes that run at the same time can tell each other something: by names that the kernel remembers, by
words of a shared file on which they wait, by the caches of the processor. No filter closes all such ways. So
a model is scored while no other candidate's process runs. Processes that wait for their trial and have run no
candidate's code do not count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

LOOK = 0.2
"""Seconds between two calls of `meanwhile`."""


class Turns:
    """Many may run together, or one alone. Who waits to run alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = self._waiting = 0
        self._alone = False

    @contextmanager
    def together(self, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Run beside others, but not beside one that runs alone.

        Args:
            meanwhile: Called a few times a second while this waits; may raise.
        """
        with self._changed:
            self._wait(lambda: not self._alone and not self._waiting, meanwhile)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Run while nobody else does; see `together`."""
        with self._changed:
            self._waiting += 1
            try:
                self._wait(lambda: not self._alone and not self._together, meanwhile)
                self._alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
        while not free():
            self._changed.wait(LOOK)
            self._changed.release()  # it may take a while, or raise
            try:
                meanwhile()
            finally:
                self._changed.acquire()


@cache
def this_process() -> Turns:
    """The turns that all trials of this process share."""
    return Turns()
