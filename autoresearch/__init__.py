"""Autonomous machine-learning research whose results can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoresearch.report.frames import SearchFrames

__version__ = "0.1.0"


def open(name: str, runs: str = "runs") -> SearchFrames:
    """A search as pandas frames, for a notebook.

    Args:
        name: Of the search, or the path of a file that `autoresearch export` wrote.
        runs: The folder of searches.

    Raises:
        UserError: If there is no such search.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from autoresearch.report.frames import SearchFrames

    if not (name.endswith(".zip") and Path(name).is_file()):
        return SearchFrames(Path(runs) / name)
    from autoresearch.finish.export import unpack

    place = TemporaryDirectory(prefix="autoresearch-")
    unpack(Path(name), folder := Path(place.name, "search"))
    return SearchFrames(folder, place)
