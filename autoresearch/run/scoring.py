"""From submitted weights to a score: two model servers, and the scorer that compares them.

Invariant: the servers have run no candidate code until they are handed weights, so they can be started
while the candidate still warms up, and whatever is wrong with them before that is the host's fault. The
first one is dead before the second one, the witness, gets its own copy of the weights: they cannot agree on
what to say, neither while both live nor through a file that both hold.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.run.handshake import Account, Ended
from autoresearch.run.log import Log
from autoresearch.run.process import Candidate
from autoresearch.run.scorer import Scorer, ScorerDied
from autoresearch.run.weights import copy_weights
from autoresearch.types import Outcome
from nanomodel.wire import WireError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

START_SECONDS = 120.0
DIED = "the model server died"


class Scoring:
    """The scoring of one trial.

    Args:
        scorer: The trusted process.
        servers: The model's server and the witness's.
        account: Where to note how long it took.
        folder: Where `SPLIT.npy` goes: nats and bytes of each document, or part of a long one.
    """

    def __init__(self, scorer: Scorer, servers: Sequence[Candidate], account: Account, folder: Path) -> None:
        self._scorer = scorer
        self._servers = servers
        self._account = account
        self._folder = folder
        self._words = ["hello", "warm"]

    @property
    def logs(self) -> list[Log]:
        """What the servers print."""
        return [server.log for server in self._servers]

    def wait_for_hello(self) -> None:
        """Make sure that a process can run in the sandbox at all.

        Raises:
            UserError: If it cannot.
        """
        if "hello" in self._words:
            self._hear("hello")

    def wait(self) -> None:
        """Wait until everything is loaded, so that none of it competes with the training.

        Raises:
            UserError: If something does not start.
        """
        self.wait_for_hello()
        self._hear("warm")
        self._scorer.wait()

    def _hear(self, word: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        for server in self._servers:
            try:
                server.wire.recv(max(0.0, deadline - time.monotonic()))
            except WireError as error:
                raise UserError(
                    f"The model server does not start in the sandbox ({error}): {server.why_it_ended()}",
                    "See what `autoresearch doctor` says about this machine.",
                    code=3,
                ) from None
        self._words.remove(word)

    def score(self, weights: int, job: Mapping[str, object], seconds: float) -> dict[str, float]:
        """Score submitted weights.

        Args:
            weights: Descriptor of the weights; closed afterwards.
            job: What to score on, as `nanomodel.score.Job` has it.
            seconds: Most time it may take.

        Returns:
            Bits per byte of each split.

        Raises:
            Ended: If there is no score, for a reason that lies with the candidate.
            UserError: If the reason lies with the host.
        """
        begun = time.monotonic()
        # The seed chooses the probes: it must not be known to the candidate, nor be the same twice.
        job = {**job, "seed": secrets.randbits(32)}
        fds = [weights, *(server.wire.fileno() for server in self._servers)]

        def retire() -> int:
            self._servers[0].kill()
            return copy_weights(weights)

        try:
            answer, received = self._scorer.score(job, seconds, fds, retire)
        except ScorerDied as error:
            raise Ended(Outcome.CRASH, f"the scorer died: {error}") from None
        finally:
            os.close(weights)
            self._account.metrics["score_seconds"] = time.monotonic() - begun
        tables = [_table(fd) for fd in received]
        if answer["type"] == "error":
            raise UserError(f"The scorer failed: {answer['reason']}", "Is the prepared data whole?", code=3)
        if answer["type"] == "failed":
            raise Ended(Outcome(answer["outcome"]), self._explained(answer["reason"]))
        scores = {str(split): float(about["score"]) for split, about in answer["scores"].items()}
        self._keep(dict(zip(scores, tables, strict=True)))
        return scores

    def _explained(self, reason: str) -> str:
        """A reason, with what the dead server has to say about its end; the first one may be dead by then."""
        dead = [server for server in self._servers if not server.alive] if reason == DIED else []
        return f"{reason}: {dead[-1].why_it_ended()}" if dead else reason

    def _keep(self, tables: Mapping[str, NDArray[np.float64]]) -> None:
        import numpy as np

        for split, table in tables.items():
            np.save(self._folder / f"{split}.npy", table)


def _table(fd: int) -> NDArray[np.float64]:
    import numpy as np

    with os.fdopen(fd, "rb") as file:
        return np.frombuffer(file.read(), np.float64).reshape(-1, 2)
