"""Says which attempts count, so that a copy of a trial that was believed dead cannot report.

An engine reruns what it believes dead, while the old process may live on. The runner writes each attempt to
`fence.json` in the folder of the search before it submits it, and strikes it out when the trial ends or is
tried again. A worker that sees this file ends an attempt that is not in it. The runner itself takes reports
of the listed attempts only, so a worker that cannot see the file does no harm either.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from pathlib import Path

NAME = "fence.json"


class Fence:
    """The attempts of one search that count.

    Attributes:
        path: The file.
    """

    def __init__(self, folder: Path) -> None:
        """Begin anew: what an earlier run of the search left no longer counts.

        Args:
            folder: Of the search.
        """
        self.path = (folder / NAME).resolve()
        self._lock = threading.Lock()
        self._attempts: dict[int, str] = {}
        if self.path.exists():
            self._write()

    def claim(self, trial: int) -> str:
        """A new attempt of a trial, the only one from now on; recorded when this returns."""
        with self._lock:
            self._attempts[trial] = attempt = f"{trial}-{uuid.uuid4().hex[:12]}"
            self._write()
            return attempt

    def counts(self, trial: int, attempt: str) -> bool:
        """Whether an attempt may report."""
        return self._attempts.get(trial) == attempt

    def end(self, trial: int) -> None:
        """No attempt of this trial counts any longer."""
        with self._lock:
            if self._attempts.pop(trial, None) is not None:
                self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(self._attempts))
        partial.replace(self.path)


def left_open(folder: Path) -> list[str]:
    """Attempts of a search that an earlier run, which was killed, still wanted."""
    try:
        return list(json.loads((folder / NAME).read_text()).values())
    except (OSError, ValueError):
        return []


def superseded(path: str, attempt: str) -> bool:
    """Whether the file of a fence is there and does not list an attempt."""
    try:
        return bool(path) and attempt not in json.loads(Path(path).read_text()).values()
    except (OSError, ValueError):
        return False
