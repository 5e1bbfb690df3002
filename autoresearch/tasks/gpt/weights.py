"""Taking over what a dead candidate left behind.

Invariant: what is scored is what was submitted. The file is copied into sealed memory, so nothing can change
it any more; it is opened without following links and must have no second name, so that it cannot be a file
of the host that the candidate could not read itself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.tasks.gpt.training import Ended
from autoresearch.types import Outcome
from nanomodel.wire import WEIGHTS

CHUNK = 1 << 22

SEALS = 15
"""Nothing may be written, shrunk or grown any more, nor these seals taken off (Linux: fcntl.F_SEAL_*)."""


def take_weights(folder: Path, max_bytes: int) -> int:
    """Copy submitted weights into sealed memory.

    Args:
        folder: The dead candidate's scratch folder.
        max_bytes: Largest size that is taken.

    Returns:
        A descriptor of the copy; the caller closes it.

    Raises:
        Ended: If the file is missing, too large, empty, or not a plain file.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        place = os.open(folder, flags | os.O_DIRECTORY)
        try:
            source = os.open(WEIGHTS, flags, dir_fd=place)
        finally:
            os.close(place)
    except FileNotFoundError:
        raise Ended(Outcome.INVALID, f"it submitted without writing {WEIGHTS}") from None
    except OSError as error:
        raise Ended(Outcome.INVALID, f"{WEIGHTS} is no plain file: {error.strerror}") from None
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise Ended(Outcome.INVALID, f"{WEIGHTS} is not a plain file of its own")
        if not 0 < status.st_size <= max_bytes:
            raise Ended(Outcome.INVALID, f"{WEIGHTS} has {status.st_size} bytes; 1 to {max_bytes} are taken")
        return _sealed_copy(source, status.st_size)
    finally:
        os.close(source)


@contextmanager
def submitted(folder: Path, max_bytes: int) -> Iterator[int]:
    """What `take_weights` gives, closed afterwards."""
    weights = take_weights(folder, max_bytes)
    try:
        yield weights
    finally:
        os.close(weights)


def copy_weights(weights: int) -> int:
    """Another sealed copy, for a process that must share nothing with the holders of the first.

    Args:
        weights: What `take_weights` gave.

    Returns:
        A descriptor of the copy; the caller closes it.
    """
    return _sealed_copy(weights, os.fstat(weights).st_size)


def seal(data: bytes) -> int:
    """A descriptor of bytes that nobody can change; the caller closes it."""
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
