"""Takes what a dead candidate left: its weights, and its compile cache.

Invariants: the scored weights are the submitted ones. The file is copied into sealed memory, so that nothing
can change it. It is opened without following links and must have no second name, so that it cannot be a file
of the host that the candidate could not read itself. Only a jailed process that ran nothing but the starting
commit's code writes the compile cache. Each trial gets a copy, which is deleted with the trial, so a
candidate can spoil only its own compilation. (The cache holds executable code: if a candidate could write it,
its code would run in other trials.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.execute.sandbox import remove_tree
from autoresearch.execute.sandbox.usage import folder_bytes
from autoresearch.store.files import digest
from autoresearch.tasks.gpt.program import CACHES, RUNNER_ID
from autoresearch.tasks.gpt.training import TrialEnded
from autoresearch.types import Outcome
from nanomodel.wire import WEIGHTS

CHUNK = 1 << 22
SEALS = 15
"""Forbid to write, shrink or grow the memory, and to remove these seals (Linux: fcntl.F_SEAL_*)."""
LARGEST_CACHE = 1 << 30
"""In bytes. A larger compile cache would cost more to copy than it saves."""


def take_weights(folder: Path, max_bytes: int) -> int:
    """Copy submitted weights into sealed memory.

    Args:
        folder: The dead candidate's scratch folder.
        max_bytes: Largest accepted size.

    Returns:
        A descriptor of the copy; the caller closes it.

    Raises:
        TrialEnded: If the file is missing, too large, empty, or not a plain file.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(folder, flags | os.O_DIRECTORY)
        try:
            source = os.open(WEIGHTS, flags, dir_fd=opened)
        finally:
            os.close(opened)
    except FileNotFoundError:
        raise TrialEnded(Outcome.INVALID, f"it submitted without writing {WEIGHTS}") from None
    except OSError as error:
        raise TrialEnded(Outcome.INVALID, f"{WEIGHTS} is no plain file: {error.strerror}") from None
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise TrialEnded(Outcome.INVALID, f"{WEIGHTS} is not a plain file of its own")
        if not 0 < status.st_size <= max_bytes:
            raise TrialEnded(
                Outcome.INVALID, f"{WEIGHTS} has {status.st_size} bytes; 1 to {max_bytes} are taken"
            )
        return _sealed_copy(source, status.st_size)
    finally:
        os.close(source)


@contextmanager
def submitted(folder: Path, max_bytes: int) -> Iterator[int]:
    """The descriptor from `take_weights`, closed afterwards."""
    weights = take_weights(folder, max_bytes)
    try:
        yield weights
    finally:
        os.close(weights)


def copy_weights(weights: int) -> int:
    """Another sealed copy, for a process that must not share the first one.

    Args:
        weights: The descriptor from `take_weights`.

    Returns:
        A descriptor of the copy; the caller closes it.
    """
    return _sealed_copy(weights, os.fstat(weights).st_size)


def seal(data: bytes) -> int:
    """A descriptor of sealed bytes; the caller closes it."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            return os.dup(file.fileno())
    memory = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(data)
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, SEALS)
    return memory


def _sealed_copy(source: int, size: int) -> int:
    if not hasattr(os, "memfd_create"):
        return os.dup(source)
    copy = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    done = 0
    while done < size and (count := os.sendfile(copy, source, done, min(CHUNK, size - done))):
        done += count
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
    return copy


class CompileCache:
    """Keeps the compile cache of one trial of the starting script, and gives copies to later trials."""

    def __init__(self, folder: Path, trusted: Path) -> None:
        """Use the cache of an earlier run of the same search, if it exists.

        Args:
            folder: The folder of the cache; no candidate can write it.
            trusted: The tree of the starting commit.
        """
        self._folder, self._starting = folder, digest(trusted)
        for partial in folder.parent.glob(f"{folder.name}.*"):
            if not partial.name.startswith(f"{folder.name}.{RUNNER_ID}"):  # of a killed runner, incomplete
                remove_tree(partial)

    def keep(self, code: Path, folder: Path) -> None:
        """Keep the cache of a finished trial, if it ran the starting script and none is kept yet.

        Args:
            code: The tree it ran.
            folder: The folder that its training process could write; the process is dead.
        """
        found = [folder / name for name in CACHES.values() if (folder / name).is_dir()]
        if self._folder.exists() or not found or digest(code) != self._starting:
            return
        if sum(map(folder_bytes, found)) > LARGEST_CACHE:
            return
        partial = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}.{RUNNER_ID}.", dir=self._folder.parent))
        for source in found:
            shutil.copytree(source, partial / source.name, symlinks=True)
        try:
            partial.rename(self._folder)
        except OSError:  # another place of the same search was first
            remove_tree(partial)

    def copy_to(self, folder: Path) -> None:
        """Put a copy into the folder of a training process that has not started yet."""
        if self._folder.is_dir():
            shutil.copytree(self._folder, folder, symlinks=True, dirs_exist_ok=True)
