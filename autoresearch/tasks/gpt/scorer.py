"""The trusted scorer process: started once, used for every trial, started again if it dies.

Invariant: the scorer runs from a tree that no candidate can write, with an environment built from nothing,
and outside of any jail. Its failure is the host's fault, unless it happens again with the same weights (see
`scoring`).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.output import Log
from autoresearch.execute.sandbox.usage import waited_seconds
from autoresearch.tasks.gpt.data import closing
from autoresearch.tasks.gpt.program import environment
from nanomodel.wire import Message, Timeout, WireError, pair

START_SECONDS = 120.0
OVERRUN_SECONDS = 15.0
"""Seconds that the scorer may take beyond its limit, which it checks itself."""


class ScorerDied(Exception):
    """The scorer ended in the middle of a job; the message holds the end of its log."""


class ScorerSlow(UserError):
    """The scorer runs but has not answered in time; waiting again may help."""


class Scorer:
    """A persistent `python -m MODULE` that scores weights.

    Args:
        module: The module to run, such as "nanomodel.score".
        trusted: The tree it is run from.
        threads: CPU threads for its sums.
        only: The only GPU that it sees; empty: those that we see.
    """

    def __init__(self, module: str, trusted: Path, threads: int, only: str = "") -> None:
        self._module, self._trusted, self._threads, self._only = module, trusted, threads, only
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start it, if it does not run; returns at once, while it loads its libraries."""
        if not self._lock.acquire(blocking=False):
            return  # another thread uses it, and starts it if needed
        try:
            self._start()
        finally:
            self._lock.release()

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Wait until no other job runs, and keep other threads waiting meanwhile."""
        with self._lock:
            yield

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._wire, theirs = pair()
        fd = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module],
            env={**environment(self._trusted, self._threads, self._only), "HARNESS_FD": str(fd)},
            cwd=self._trusted,
            pass_fds=(fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        theirs.close()
        assert self._process.stdout is not None
        self._log = Log(self._process.stdout)
        self._greeted = False

    def wait(self) -> None:
        """Wait until it is ready for a job.

        Raises:
            ScorerSlow: If it takes too long.
            UserError: If it does not start.
        """
        with self._lock:
            self._start()
            if self._greeted:
                return
            try:
                self._wire.recv(START_SECONDS)
            except Timeout as error:
                raise ScorerSlow(f"The scorer does not start ({error}).", _HINT, code=3) from None
            except WireError as error:
                tail = self._log.text(wait=1.0).strip()
                self.close()
                raise UserError(
                    f"The scorer does not start ({error}): {tail[-2000:]}", _HINT, code=3
                ) from None
            self._greeted = True

    def score(
        self, job: Message, seconds: float, fds: list[int], retire: Callable[[], int]
    ) -> tuple[Message, list[int]]:
        """Do one job; the caller has `reserved` the scorer.

        Args:
            job: As `nanomodel.score` describes it, without type and seconds.
            seconds: Limit on its time.
            fds: Weights, and the sockets of the model servers.
            retire: Called when a server is no longer needed, in the order of the sockets; kills it and
                returns another copy of the weights, which is closed here.

        Returns:
            The answer, and its descriptors: the caller owns them.

        Raises:
            ScorerDied: If it ended, or went silent.
            UserError: If it does not start.
        """
        self.wait()
        deadline = time.monotonic() + seconds
        try:
            self._wire.send({"type": "score", "seconds": seconds, **job}, fds)
            while True:
                answer, received = self._wire.recv(deadline + OVERRUN_SECONDS - time.monotonic())
                if answer["type"] != "measured":
                    return answer, received
                with closing(retire()) as copy:
                    self._wire.send({"type": "retired"}, [copy])
        except WireError as error:
            self.close()
            raise ScorerDied(f"{error}: {self._log.text(wait=1.0).strip()[-1000:]}") from None

    @property
    def waited_seconds(self) -> float:
        """Time in which its threads have waited for a core so far."""
        return sum(waited_seconds([self._process.pid]).values()) if self._process is not None else 0.0

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        self._wire.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


_HINT = "Reinstall the environment (make setup), and check that the trusted tree is complete."
