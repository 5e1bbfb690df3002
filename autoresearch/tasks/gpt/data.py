"""Gives a trial its training data as an open descriptor, and takes its weights into sealed memory.

Invariants: a trial with a budget of tokens gets exactly that many tokens, whatever it counts. No two trials
share an open file, and so no position in it. If a candidate changes the data, or the mode, times or
attributes of its file (which a descriptor allows the owner), the runner detects and undoes it: no later trial
trains or is scored on changed data, or finds a message.

The scored weights are the submitted ones. The file is copied into sealed memory, so that nothing can change
it. It is opened without following links and must have no second name, so that it cannot be a file of the host
that the candidate could not read itself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialEnded
from autoresearch.types import Outcome
from nanomodel.data import DataError, open_cache
from nanomodel.data.token_budget import draw_tokens
from nanomodel.wire import WEIGHTS

CHUNK = 1 << 22
SEALS = 15
"""Forbid to write, shrink or grow the memory, and to remove these seals (Linux: fcntl.F_SEAL_*)."""
SYSTEM = ("security.", "trusted.")
"""Attributes of files that only the system can set."""


class TrainingData:
    """Prepared data, opened for a runner.

    Attributes:
        path: The folder.
        vocab: Number of tokens.
        descriptor: The training tokens, open for reading; -1 once they are closed.
    """

    def __init__(self, folder: Path) -> None:
        """Open the data.

        Raises:
            UserError: If it cannot be read.
        """
        self.path = folder.resolve()
        try:
            self._prepared = open_cache(self.path)
            self.vocab = self._prepared.vocab
            self._files = {split: self._prepared.file(split) for split in self._prepared.splits}
            self.descriptor = os.open(self._files["train"], os.O_RDONLY | os.O_CLOEXEC)
        except (DataError, OSError) as error:
            raise UserError(str(error), getattr(error, "hint", ""), code=3) from None
        self._known = {path: _FileState.of(path) for path in self._files.values()}

    def all_tokens(self) -> AbstractContextManager[int]:
        """A descriptor of all the training tokens, opened anew.

        Raises:
            OSError: If the data was closed or cannot be opened.
        """
        if self.descriptor < 0:
            raise OSError("the training data was closed")
        return closing(os.open(self._files["train"], os.O_RDONLY | os.O_CLOEXEC))

    def some_tokens(self, amount: int, seed: int) -> AbstractContextManager[int]:
        """A descriptor of the tokens that a trial may read, in sealed memory."""
        drawn = draw_tokens(self._prepared.tokens("train"), amount, seed).astype("<u2")
        return closing(seal(drawn.tobytes()))

    def was_touched(self) -> bool:
        """Whether a candidate touched the files since the last call, without changing their contents.

        A new time of the last change proves nothing, since another runner on the same data may have undone
        what its candidate did. It is a reason to check the contents.

        Raises:
            UserError: If the contents changed.
        """
        now = {path: _FileState.of(path) for path in self._known}
        if now == self._known:
            return False
        for path, before in self._known.items():
            before.restore(path, now[path])
        try:
            self._prepared.verify()
        except (DataError, OSError) as error:
            raise UserError(
                f"Prepared data changed while a trial ran: {error}",
                f"Delete {self.path} and prepare the data again.",
                code=3,
            ) from None
        touched = any(not now[path].same(before) for path, before in self._known.items())
        self._known = {path: _FileState.of(path) for path in self._known}
        return touched

    def close(self) -> None:
        """Close the descriptor; a later call of `all_tokens`, for example by a late tryout, raises."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True)
class _FileState:
    """The properties of a file that can be checked without reading it."""

    inode: int
    size: int
    mode: int
    written: int
    attributes: tuple[tuple[str, bytes], ...]
    changed: int

    @classmethod
    def of(cls, path: Path) -> _FileState:
        status = path.stat()
        names: list[str] = []
        with suppress(OSError, AttributeError):  # not every system or file system has attributes
            names = os.listxattr(path)
        return cls(
            status.st_ino,
            status.st_size,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            tuple((name, os.getxattr(path, name)) for name in sorted(names) if not name.startswith(SYSTEM)),
            status.st_ctime_ns,
        )

    def same(self, other: _FileState) -> bool:
        """Whether everything except the time of the last change is the same."""
        return replace(self, changed=0) == replace(other, changed=0)

    def restore(self, path: Path, now: _FileState) -> None:
        """Restore mode, attributes and times, where they differ."""
        if now.mode != self.mode:
            path.chmod(self.mode)
        for name, _ in set(now.attributes) - set(self.attributes):
            os.removexattr(path, name)
        for name, value in set(self.attributes) - set(now.attributes):
            os.setxattr(path, name, value)
        if now.written != self.written:
            os.utime(path, ns=(self.written, self.written))


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """The descriptor, closed afterwards."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def submitted_weights(folder: Path, max_bytes: int) -> AbstractContextManager[int]:
    """A descriptor of a copy of the submitted weights in sealed memory, closed afterwards.

    Args:
        folder: The dead candidate's scratch folder.
        max_bytes: Largest accepted size.

    Raises:
        TrialEnded: If the file is missing, too large, empty, or not a plain file.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with closing(os.open(folder, flags | os.O_DIRECTORY)) as opened:
            source = os.open(WEIGHTS, flags, dir_fd=opened)
    except FileNotFoundError:
        raise TrialEnded(Outcome.INVALID, f"it submitted without writing {WEIGHTS}") from None
    except OSError as error:
        raise TrialEnded(Outcome.INVALID, f"{WEIGHTS} is no plain file: {error.strerror}") from None
    with closing(source):
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise TrialEnded(Outcome.INVALID, f"{WEIGHTS} is not a plain file of its own")
        if not 0 < status.st_size <= max_bytes:
            size = f"{WEIGHTS} has {status.st_size} bytes; 1 to {max_bytes} are taken"
            raise TrialEnded(Outcome.INVALID, size)
        return closing(sealed_copy(source, status.st_size))


def keep_weights(weights: int, path: Path) -> None:
    """Write sealed weights to a file, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    with closing(os.dup(weights)) as source, partial.open("wb") as file:
        done, size = 0, os.fstat(source).st_size
        while done < size and (count := os.sendfile(file.fileno(), source, done, min(CHUNK, size - done))):
            done += count
    partial.rename(path)


def kept_weights(path: Path) -> AbstractContextManager[int]:
    """A descriptor of a sealed copy of weights that `keep_weights` wrote, closed afterwards."""
    with path.open("rb") as file:
        return closing(sealed_copy(file.fileno(), os.fstat(file.fileno()).st_size))


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


def sealed_copy(source: int, size: int) -> int:
    """A descriptor of a sealed copy, which shares nothing with the source; the caller closes it.

    Args:
        source: Descriptor of a file, or of such a copy.
        size: How many of its bytes to copy.
    """
    if not hasattr(os, "memfd_create"):
        return os.dup(source)
    copy = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    done = 0
    while done < size and (count := os.sendfile(copy, source, done, min(CHUNK, size - done))):
        done += count
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
    return copy
