"""Kills a search at a chosen boundary, in a forked child, as `kill -9` would: nothing is tidied up.

A boundary is the moment after an effect: a journal transaction, a git command that writes, a trial's export,
training or end, an answer of the proposer.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from autoresearch.execute import local
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from tests.support.stub import measurers

WRITING = ("hash-object", "mktree", "commit-tree", "update-ref")
KILLED = 9


class Boundaries:
    """Counts boundaries as they are passed, and dies at one of them."""

    def __init__(self, die_at: int | None = None) -> None:
        self.names: list[str] = []
        self._die_at = die_at
        self._lock = threading.Lock()

    def passed(self, name: str) -> None:
        with self._lock:
            self.names.append(name)
            if len(self.names) == self._die_at:
                os._exit(KILLED)

    def after(self, name: Callable[..., str | None], function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if (what := name(*args, **kwargs)) is not None:
                self.passed(what)
            return result

        return call


def install(boundaries: Boundaries, patch: Callable[[object, str, object], None]) -> None:
    """Make journal, git and trials tell of their boundaries.

    Args:
        boundaries: To be told.
        patch: Replaces an attribute, e.g. `setattr`, or `MonkeyPatch.setattr`.
    """
    write = Journal._write

    @contextmanager
    def transaction(journal: Journal) -> Any:
        with write(journal) as db:
            yield db
        boundaries.passed("journal")

    def command(_: Repository, *arguments: str, **__: object) -> str | None:
        found = next((a for a in arguments if a in WRITING), None)
        return f"git {found}" if found else None

    patch(Journal, "_write", transaction)
    patch(Repository, "_raw", boundaries.after(command, Repository._raw))
    patch(Repository, "export", boundaries.after(lambda *_: "export", Repository.export))
    patch(local, "remove_tree", boundaries.after(lambda *_: "trial removed", local.remove_tree))


def install_in(search: Search, boundaries: Boundaries) -> None:
    """Make the measurers and the proposer of a search tell of their boundaries."""
    for stub in measurers(search):
        stub.measure = boundaries.after(lambda *_: "trained", stub.measure)  # type: ignore[method-assign]
    propose = boundaries.after(lambda *_: "proposed", search.proposer.ask)
    search.proposer.ask = propose  # type: ignore[method-assign]


def in_child(work: Callable[[], None], kill_after: float | None = None) -> int:
    """Do something in a forked child; gives its exit status, 1 for an exception.

    Args:
        work: What to do.
        kill_after: Seconds after which it is killed, wherever it is then.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        time.sleep(0.3)  # a git that it had started may end first, as it would before a person is back
        return KILLED
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
