"""The compile cache: what compiling the starting script left behind, lent to every later trial as a copy.

Invariant: what is kept was written by a jailed process that ran the starting commit's own code and nothing
else, and no candidate is ever given more than a copy, which is thrown away with its trial. So a candidate can
spoil its own compilation only. (The cache holds executable code: whoever could write it would run in others.)
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from autoresearch.execute.sandbox import remove_tree
from autoresearch.execute.sandbox.usage import folder_bytes
from autoresearch.execute.tree_hash import digest
from autoresearch.tasks.gpt.process import CACHES
from autoresearch.tasks.gpt.processes import OURS

MOST_BYTES = 1 << 30
"""A larger cache would cost more to copy than it saves."""


class CompileCache:
    """Keeps the caches of one trial of the starting script."""

    def __init__(self, folder: Path, trusted: Path) -> None:
        """Find what an earlier run of the same search has kept.

        Args:
            folder: Where it is kept; no candidate can write it.
            trusted: The tree of the starting commit.
        """
        self._folder, self._starting = folder, digest(trusted)
        for partial in folder.parent.glob(f"{folder.name}.*"):
            if not partial.name.startswith(f"{folder.name}.{OURS}"):  # a killed runner's, half done
                remove_tree(partial)

    def keep(self, code: Path, folder: Path) -> None:
        """Keep what a finished trial compiled, if it ran the starting script and nothing is kept yet.

        Args:
            code: The tree it ran.
            folder: What its training process could write; the process is dead.
        """
        found = [folder / name for name in CACHES.values() if (folder / name).is_dir()]
        if self._folder.exists() or not found or digest(code) != self._starting:
            return
        if sum(map(folder_bytes, found)) > MOST_BYTES:
            return
        partial = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}.{OURS}.", dir=self._folder.parent))
        for source in found:
            shutil.copytree(source, partial / source.name, symlinks=True)
        try:
            partial.rename(self._folder)
        except OSError:  # another place of the same search was first
            remove_tree(partial)

    def lend(self, folder: Path) -> None:
        """Put a copy into the folder of a training process that has not started yet."""
        if self._folder.is_dir():
            shutil.copytree(self._folder, folder, symlinks=True, dirs_exist_ok=True)
