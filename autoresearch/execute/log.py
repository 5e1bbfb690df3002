"""Reads what a candidate prints, as it comes, and keeps a bounded part that is harmless to show.

Invariant: however much is printed, the writer is never blocked and the runner keeps at most the beginning
and the end. The text is data: control characters are removed, so it cannot repaint a terminal.
"""

from __future__ import annotations

import threading
from typing import IO

from autoresearch.text import clean

HEAD, TAIL = 4_000, 12_000
"""Bytes that are kept of the beginning and of the end."""


class Log:
    """The output of one process, read from a pipe by a thread of its own."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="candidate-log", daemon=True)
        self._thread.start()

    def text(self, wait: float = 0.0) -> str:
        """What was printed so far, its middle left out if that was much.

        Args:
            wait: Most seconds to wait for the pipe to be closed, after the process has ended.
        """
        if wait:
            self._thread.join(wait)
        with self._lock:
            head, tail, dropped = bytes(self._head), bytes(self._tail), self._dropped
        gap = f"\n[... {dropped} bytes left out ...]\n".encode() if dropped else b""
        return clean((head + gap + tail).decode(errors="replace"))

    def _read(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(1 << 16):  # type: ignore[attr-defined]
                with self._lock:
                    space = HEAD - len(self._head)
                    self._head += chunk[:space]
                    self._tail += chunk[max(0, space) :]
                    excess = max(0, len(self._tail) - TAIL)
                    del self._tail[:excess]
                    self._dropped += excess
