"""Gives a trial its training data as an open descriptor, and watches the files behind it.

Invariants: a trial with a budget of tokens gets exactly that many tokens, whatever it counts. No two trials
share an open file, and so no position in it. If a candidate changes the data, or the mode, times or
attributes of its file (which a descriptor allows the owner), the runner detects and undoes it: no later trial
trains or is scored on changed data, or finds a message.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.tasks.gpt.outputs import seal
from nanomodel.data import DataError, open_cache
from nanomodel.data.token_budget import draw_tokens

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

    @contextmanager
    def all_tokens(self) -> Iterator[int]:
        """A descriptor of all the training tokens, opened anew.

        Raises:
            OSError: If the data was closed or cannot be opened.
        """
        if self.descriptor < 0:
            raise OSError("the training data was closed")
        opened = os.open(self._files["train"], os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield opened
        finally:
            os.close(opened)

    @contextmanager
    def some_tokens(self, amount: int, seed: int) -> Iterator[int]:
        """A descriptor of the tokens that a trial may read, in sealed memory."""
        drawn = draw_tokens(self._prepared.tokens("train"), amount, seed).astype("<u2")
        memory = seal(drawn.tobytes())
        try:
            yield memory
        finally:
            os.close(memory)

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
