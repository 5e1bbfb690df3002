"""The training data as a trial hands it over: one open descriptor, and a watch on the files behind it.

Invariants: a trial with a budget of tokens is handed so many tokens and no more, whatever it counts. A
candidate that managed to write to the data, or even to its file's mode (which a descriptor allows its owner),
does not go unnoticed, and no later trial is trained or scored on changed data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.run.weights import seal
from nanomodel.data import DataError, open_cache
from nanomodel.ration import draw_ration


class TrainingData:
    """Prepared data, opened for a runner.

    Attributes:
        path: The folder.
        vocab: Number of tokens.
        descriptor: The training tokens, open for reading.
    """

    def __init__(self, cache: Path) -> None:
        """Open the data.

        Raises:
            UserError: If it cannot be read.
        """
        self.path = cache.resolve()
        try:
            self._prepared = open_cache(self.path)
            self.vocab = self._prepared.vocab
            self._files = {split: self._prepared.file(split) for split in self._prepared.splits}
            self.descriptor = os.open(self._files["train"], os.O_RDONLY | os.O_CLOEXEC)
        except (DataError, OSError) as error:
            raise UserError(str(error), getattr(error, "hint", ""), code=3) from None
        self._modes = {path: path.stat().st_mode for path in self._files.values()}
        self._known = self._stamp()

    @contextmanager
    def ration(self, amount: int, seed: int) -> Iterator[int]:
        """A descriptor of the tokens that a run may read, in memory that nobody can write."""
        drawn = draw_ration(self._prepared.tokens("train"), amount, seed).astype("<u2")
        memory = seal(drawn.tobytes())
        try:
            yield memory
        finally:
            os.close(memory)

    def was_touched(self) -> bool:
        """Whether something was done to the files since the last look, though their contents are the same.

        Raises:
            UserError: If the contents changed.
        """
        if self._stamp() == self._known:
            return False
        for path, mode in self._modes.items():
            path.chmod(mode & 0o7777)
        try:
            self._prepared.verify()
        except (DataError, OSError) as error:
            raise UserError(
                f"Prepared data changed while a trial ran: {error}",
                f"Delete {self.path} and prepare the data again.",
                code=3,
            ) from None
        self._known = self._stamp()
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.descriptor)

    def _stamp(self) -> tuple[tuple[int, ...], ...]:
        stats = [path.stat() for path in self._files.values()]
        return tuple((s.st_ino, s.st_size, s.st_mode, s.st_mtime_ns, s.st_ctime_ns) for s in stats)
