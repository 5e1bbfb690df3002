"""Scores submitted weights with two or three model servers, and the scorer that compares them.

Invariant: the servers run no candidate code before they get weights. So they can start while the candidate
still warms up, and any failure before that is the host's fault. Each server is dead before the next one gets
its own copy of the weights: the one that is asked blind, the one that is scored, the witness. So they cannot
agree on answers, neither while both run nor through a file that both hold, nor by the files that one leaves.

If the scorer dies, new servers score the same weights once more, because the host may have killed it. If it
dies twice in a row, the candidate is blamed, so that one candidate cannot end the search.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialEnded
from autoresearch.store.files import remove_tree
from autoresearch.tasks.gpt.data import sealed_copy
from autoresearch.tasks.gpt.processes import BLIND, TrialProcesses
from autoresearch.tasks.gpt.scorer import Scorer, ScorerDied, ScorerSlow
from autoresearch.tasks.gpt.training import TrialRecord
from autoresearch.types import Outcome
from nanomodel.wire import Timeout, WireError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

START_SECONDS = 120.0
AGAIN_SECONDS = 60.0
"""Seconds that a late server may take after the trainer is dead."""
STARVED = "timeout: it kept the model servers or the scorer from starting: they came up once it was killed"
DIED = "the model server died"
SLOW = "timeout: scoring took longer than"


class Scoring:
    """The scoring of one trial.

    Args:
        scorer: The trusted process.
        processes: The processes of the trial.
        record: Gets the duration.
        folder: Where `SPLIT.npy` goes: nats, bytes times ln 2, and the document of each piece. So does
            `blind.npy`, of each target that was asked for blind.
        before_server: Called before a server gets weights, and so before it runs the candidate's code.
    """

    def __init__(
        self,
        scorer: Scorer,
        processes: TrialProcesses,
        record: TrialRecord,
        folder: Path,
        before_server: Callable[[], None] = lambda: None,
    ) -> None:
        self._scorer, self._processes, self._record, self._folder = scorer, processes, record, folder
        self._before_server = before_server
        self._expected = ["hello", "warm"]

    def wait_for_hello(self) -> None:
        """Check that a process can run in the sandbox at all.

        Raises:
            UserError: If no process can.
        """
        if "hello" in self._expected:
            self._receive("hello")

    def wait(self) -> None:
        """Wait until everything is loaded, so that none of it competes with the training.

        Raises:
            TrialEnded: If the trainer kept the others from starting.
            UserError: If something does not start.
        """
        self.wait_for_hello()
        self._receive("warm")
        try:
            self._scorer.wait()
        except ScorerSlow:
            self._processes.trainer.kill()
            self._scorer.wait()
            raise TrialEnded(Outcome.CRASH, STARVED) from None

    def _receive(self, word: str) -> None:
        """Receive a message from each server; if it is late, find out whether the trainer is the cause."""
        deadline = time.monotonic() + START_SECONDS
        starved = False
        for server in self._processes.servers:
            try:
                try:
                    server.wire.recv(max(0.0, deadline - time.monotonic()))
                except Timeout:
                    self._processes.trainer.kill()
                    server.wire.recv(AGAIN_SECONDS)
                    starved = True
            except WireError as error:
                raise UserError(
                    f"The model server does not start in the sandbox ({error}): {server.why_it_ended()}",
                    "See what `autoresearch doctor` says about this machine.",
                    code=3,
                ) from None
        if starved:
            raise TrialEnded(Outcome.CRASH, STARVED)
        self._expected.remove(word)

    def score(
        self, weights: int, job: Mapping[str, object], seconds: float, stretch: float = 1.0
    ) -> dict[str, float]:
        """Score submitted weights.

        Args:
            weights: Descriptor of the weights.
            job: What to score on, as `nanomodel.score.Job` has it.
            seconds: Most time it may take on a machine with room.
            stretch: By what factor it may take longer now.

        Returns:
            Bits per byte of each split.

        Raises:
            TrialEnded: If there is no score, and the candidate is the reason.
            UserError: If the host is the reason.
        """
        import numpy as np

        limit, seconds, waited = seconds, seconds * stretch, self._waited_seconds()
        try:
            answer, received = self._ask(weights, job, seconds)
        except ScorerDied:
            self._processes.renew_servers()
            self._expected = ["hello", "warm"]
            self.wait()
            try:
                answer, received = self._ask(weights, job, seconds)
            except ScorerDied:  # what it printed may hold held-out text
                raise TrialEnded(Outcome.CRASH, "the scorer died twice") from None
        tables = [_table(fd) for fd in received]
        if answer["type"] == "error":
            raise UserError(f"The scorer failed: {answer['reason']}", "Is the prepared data whole?", code=3)
        if answer["type"] == "failed":
            reason = self._explained(answer["reason"])
            if reason == SLOW:
                now = self._waited_seconds()
                own = waited is not None and now is not None and seconds - (now - waited) >= limit
                reason = f"{SLOW} {limit:g} s" + (" of its own time" if own else "")
            raise TrialEnded(Outcome(answer["outcome"]), reason)
        scores = {str(split): float(about["score"]) for split, about in answer["scores"].items()}
        names = list(scores)
        for about in answer["scores"].values():
            if "blind" in about:
                self._record.metrics["blind_bpb"] = float(about["blind"])
                names.append(BLIND)
        if "slices" in answer:
            first = 0
            for name, pieces in answer["slices"]:
                part, first = tables[-1][first : first + pieces], first + pieces
                if part[:, 1].sum() > 0:
                    self._keep_slice(str(name), part * (1.0, np.log(2), 1.0), job)
            tables.pop()
        for name, table in zip(names, tables, strict=True):
            np.save(self._folder / f"{name}.npy", table * (1.0, np.log(2), 1.0))
        return scores

    def _keep_slice(self, name: str, table: NDArray[np.float64], job: Mapping[str, Any]) -> None:
        """Record the loss on a slice. Of over- and underconfidence the size counts, not the sign."""
        import numpy as np

        value = float(table[:, 0].sum() / table[:, 1].sum())
        if job["slices"][name].get("loss") == "overconfidence" and value < 0:
            table, value = table * (-1.0, 1.0, 1.0), -value
        self._record.metrics[f"guard_{name}"] = value
        np.save(self._folder / f"guard-{name}.npy", table)

    def _ask(
        self, weights: int, job: Mapping[str, object], seconds: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Have the scorer do the job; the time spent waiting for other jobs does not count."""
        answering = zip(self._processes.names, self._processes.servers, strict=True)
        begun = time.monotonic()

        def retire() -> int:
            nonlocal begun
            name, server = next(answering)
            if name == BLIND:
                self._record.metrics["blind_seconds"] = time.monotonic() - begun
                begun = time.monotonic()
            server.kill()
            # A precaution: what it left may shape the numbers of the files that the next one makes.
            remove_tree(self._processes.folders[name])
            self._before_server()
            return sealed_copy(weights, os.fstat(weights).st_size)

        # The seed chooses the probes: the candidate must not know it, and it must differ each time.
        job = {**job, "seed": secrets.randbits(32)}
        fds = [weights, *(server.wire.fileno() for server in self._processes.servers)]
        with self._scorer.reserved():
            self._before_server()
            begun, used = time.monotonic(), self._cpu_seconds()
            try:
                return self._scorer.score(job, seconds, fds, retire)
            finally:
                self._record.metrics["score_seconds"] = time.monotonic() - begun
                # With this time a server could train on, unseen by the clock.
                self._record.metrics["score_cpu_seconds"] = self._cpu_seconds() - used

    def _cpu_seconds(self) -> float:
        """CPU time so far of the servers that every trial has."""
        pairs = zip(self._processes.names, self._processes.servers, strict=True)
        return sum(server.cpu_seconds for name, server in pairs if name != BLIND)

    def _waited_seconds(self) -> float | None:
        """Time in which scorer and servers have waited for a core so far; None where that is not known."""
        known = [server.waited_seconds for server in self._processes.servers]
        return None if None in known else self._scorer.waited_seconds + sum(map(float, filter(None, known)))

    def _explained(self, reason: str) -> str:
        """A reason, with why the server ended; the last dead one is meant, since the first may be retired."""
        dead = [server for server in self._processes.servers if not server.alive] if reason == DIED else []
        return f"{reason}: {dead[-1].why_it_ended(words=False)}" if dead else reason


def _table(fd: int) -> NDArray[np.float64]:
    import numpy as np

    with os.fdopen(fd, "rb") as file:
        content = file.read()
    return np.frombuffer(content[: len(content) // 24 * 24], np.float64).reshape(-1, 3)
