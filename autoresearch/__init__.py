"""Autonomous machine-learning research whose results can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoresearch.report.frames import SearchFrames

__version__ = "0.1.0"


def open(name: str, runs: str = "runs") -> SearchFrames:
    """A search as pandas frames, for a notebook.

    Args:
        name: Of the search.
        runs: The folder of searches.

    Raises:
        UserError: If there is no such search.
    """
    from pathlib import Path

    from autoresearch.report.frames import SearchFrames

    return SearchFrames(Path(runs) / name)
