"""Shows the progress of a preparation on stderr: a bar on a terminal, plain lines elsewhere.

All slow steps report through one plain function, so that a caller can show the progress differently.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[str, int, int | None], None]
"""Called as report(phase, done, total), in bytes; total is None if unknown, and 0 for a mere message."""

EVERY_SECONDS = 5.0
"""Pause between two plain lines about the same phase."""
REDRAW_SECONDS = 0.1
"""Pause between two updates of a bar."""


def silent(phase: str, done: int, total: int | None) -> None:
    """Report nothing."""


@contextmanager
def shown() -> Iterator[Report]:
    """A `Report` for a person: a Rich bar if stderr is a terminal and Rich is installed, else lines."""
    bar = _rich_bar() if sys.stderr.isatty() else None
    if bar is None:
        yield _Seldom(EVERY_SECONDS, _line)
        return
    with bar:
        yield _Seldom(REDRAW_SECONDS, _Bars(bar))


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


class _Seldom:
    """Passes on the first and the last report of a phase, and some in between."""

    def __init__(self, pause: float, show: Report) -> None:
        self._pause, self._show = pause, show
        self._seen = ("", -1)
        self._next = 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        new, last = phase != self._seen[0], done == total and (phase, done) != self._seen
        if new or last or time.monotonic() >= self._next:
            self._show(phase, done, total)
            self._seen, self._next = (phase, done), time.monotonic() + self._pause


class _Bars:
    """One Rich bar a phase."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        if total == 0:
            self._bar.console.print(phase)
            return
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(phase, total=total)
        self._bar.update(self._tasks[phase], completed=done, total=total)


def _line(phase: str, done: int, total: int | None) -> None:
    end = f" of {total / 1e6:.1f}" if total else ""
    amount = "" if total == 0 else f": {done / 1e6:.1f}{end} MB"
    print(f"{phase}{amount}", file=sys.stderr, flush=True)
