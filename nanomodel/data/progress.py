"""How a long preparation shows where it is: a bar on a terminal, plain lines elsewhere, always on stderr.

Everything that takes time reports through one plain function, so that any caller can draw it differently.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[str, int, int | None], None]
"""Called as report(phase, done, total), in bytes; a total of None is unknown, of 0 a mere message."""

EVERY_SECONDS = 5.0
"""Pause between two plain lines about the same phase."""


def silent(phase: str, done: int, total: int | None) -> None:
    """Report nothing."""


@contextmanager
def shown() -> Iterator[Report]:
    """A `Report` for a person: a Rich bar if stderr is a terminal and Rich is installed, else lines."""
    bar = _rich_bar() if sys.stderr.isatty() else None
    if bar is None:
        yield _Lines()
        return
    with bar:
        yield _Bars(bar)


def _rich_bar() -> Any:
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:
        return None
    return rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Bars:
    """One Rich bar a phase."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if total == 0:
            if phase not in self._tasks:
                self._tasks[phase] = None
                self._bar.console.print(phase)
            return
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total)
        self._bar.update(self._tasks[phase], completed=done, total=total)


class _Lines:
    """A line when a phase starts, when it ends, and now and then between."""

    def __init__(self) -> None:
        self._phase = ""
        self._last = 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        new, finished = phase != self._phase, bool(total) and done == total
        if not new and not finished and now - self._last < EVERY_SECONDS:
            return
        self._phase, self._last = phase, now
        amount = "" if total == 0 else f": {done / 1e6:.1f}" + (f" of {total / 1e6:.1f}" if total else "") + " MB"
        print(f"{phase}{amount}", file=sys.stderr, flush=True)
