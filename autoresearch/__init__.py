"""Autonomous machine-learning research whose results can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoresearch.api.handle import SearchHandle

__version__ = "0.1.0"


def open(name: str = "", runs: str = "runs") -> SearchHandle:
    """A search as an object, for a notebook: pandas frames, status, and a way to steer it.

    Args:
        name: Of the search, or the path of a file that `autoresearch export` wrote. Empty: the search that
            runs, or else the one begun last.
        runs: The folder of searches.

    Raises:
        UserError: If there is no such search.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from autoresearch.api.handle import SearchHandle

    if name.endswith(".zip") and Path(name).is_file():
        from autoresearch.finish.export import unpack

        place = TemporaryDirectory(prefix="autoresearch-")
        unpack(Path(name), folder := Path(place.name, "search"))
        return SearchHandle(folder, place)
    if not name:
        from autoresearch.store.searches import meant

        return SearchHandle(meant(Path(runs))[0].folder)
    return SearchHandle(Path(runs) / name)
