"""One training and one scoring of one candidate: the trial.

    training process  jailed    trains, and writes weights         (`handshake`: protocol, clock)
    two model servers jailed    run the submitted model            (started early, idle without weights)
    scorer            trusted   compares their answers, and sums   (`scorer`: one for all trials)

Invariants: whatever a candidate does ends in a `TrialResult`, in bounded time, with nothing of it alive;
only a fault of the host raises. The training process is dead before its weights are read. No candidate is
given a path or a descriptor of held-out data: its servers see inputs alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.run.data import TrainingData
from autoresearch.run.handshake import Account, Budget, Ended, Training
from autoresearch.run.log import Log
from autoresearch.run.process import Candidate
from autoresearch.run.sandbox import Limits, Sandbox, remove_tree
from autoresearch.run.scorer import Scorer
from autoresearch.run.scoring import Scoring
from autoresearch.run.weights import take_weights
from autoresearch.types import Outcome, Progress, TrialResult

GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
FULL_BYTES = 64 << 20
"""A disk with less free space than this counts as full."""


@dataclass(frozen=True)
class Modules:
    """What is run, as `python -m NAME`."""

    train: str
    serve: str
    score: str


class TrialRunner:
    """Trains and scores candidates, one at a time.

    Attributes:
        max_seconds: Wall-clock cap on training under a token budget; may be changed between trials.
    """

    def __init__(
        self,
        *,
        sandbox: Sandbox,
        limits: Limits,
        modules: Modules,
        cache: Path,
        trusted: Path,
        device: str,
        threads: int,
        context: int,
        compile: bool,
        budget_kind: str,
        budget_amount: float,
        startup_seconds: float,
        max_seconds: float,
        score_seconds: float,
        weights_gb: float,
        probes: int,
    ) -> None:
        """Check that there is data; nothing is started yet.

        Args:
            sandbox: How candidates are confined.
            limits: How much of the host one candidate process may use.
            modules: What trains, serves and scores.
            cache: The prepared data.
            trusted: A tree with the scorer's package, which no candidate can write.
            device: "cpu", "cuda" or "auto".
            threads: CPU threads of each process.
            context: Tokens that the model reads at a time in scoring.
            compile: Whether candidates may compile.
            budget_kind: "seconds" or "tokens".
            budget_amount: How many.
            startup_seconds: Cap on everything before the clock starts.
            max_seconds: Cap on training under a token budget.
            score_seconds: Cap on scoring.
            weights_gb: Largest submission, in 10^9 bytes.
            probes: Windows on which the witness is compared with the model; at least 8.

        Raises:
            UserError: If the prepared data cannot be read.
        """
        self.max_seconds = max_seconds
        self._sandbox, self._limits, self._modules = sandbox, limits, modules
        self._data = TrainingData(cache)
        self._device, self._threads = device, threads
        self._gpu = device != "cpu" and any(Path(node).exists() for node in GPU_NODES)
        self._budget = Budget(budget_kind, budget_amount, max_seconds)
        self._startup_seconds, self._score_seconds = startup_seconds, score_seconds
        self._max_bytes = int(weights_gb * 1e9)
        self._context, self._compile, self._probes = context, compile, probes
        self._scorer = Scorer(modules.score, trusted.resolve(), threads)

    def run(
        self,
        *,
        code: Path,
        seed: int,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Callable[[Progress], bool] | None = None,
        splits: Sequence[str] = ("validation",),
    ) -> TrialResult:
        """Train and score the candidate in `code`. Never raises for what the candidate does.

        Args:
            code: The candidate's tree: the folder that holds its package. Nobody may write it meanwhile.
            seed: Random seed of the training.
            scratch: A folder for this trial, made if missing. `train`, `model` and `witness` in it are what
                the candidate's processes may write; `documents.npy` is put there after scoring: float64
                [pieces, 2], nats and bytes of text of each document, or part of a long one.
            progress: Called a few times a second.
            should_prune: Asked at every sign of life whether to stop.
            splits: What to score on. The first gives the score, the others `SPLIT_bpb` among the metrics.

        Raises:
            UserError: If the host fails: the data changed, the disk is full, the scorer does not start.
        """
        account = Account()
        score: float | None = None
        logs: list[Log] = []
        try:
            with ExitStack() as stack:
                scoring, training = self._start(stack, code.resolve(), scratch.resolve(), progress, account)
                logs += [training.candidate.log, *scoring.logs]
                training.get_ready(self._task(seed), self._startup_seconds, scoring.wait_for_hello)
                scoring.wait()
                training.train(self._data.descriptor, should_prune)
                weights = take_weights(scratch / "train", self._max_bytes)
                account.metrics["memory_mb"] = training.candidate.peak_memory / 1e6
                account.metrics["weights_mb"] = os.fstat(weights).st_size / 1e6
                progress(Progress(1.0, account.metrics["train_seconds"], phase="score"))
                scores = scoring.score(weights, self._job(splits), self._score_seconds)
            score = scores[splits[0]]
            account.metrics.update({f"{name}_bpb": scores[name] for name in splits[1:]})
            outcome, reason = Outcome.OK, ""
        except Ended as ended:
            outcome, reason = ended.outcome, str(ended)
        except OSError as error:
            raise UserError(
                f"The trial cannot be run: {error}.", "Check the disk and permissions.", 3
            ) from error
        if self._data.was_touched():
            outcome, reason, score = Outcome.INVALID, "it changed the file of the training data", None
        if outcome is not Outcome.OK:
            _check_disk(scratch)
        text = "\n".join(text for log in logs if (text := log.text(wait=1.0).strip()))
        return TrialResult(outcome, score, reason, dict(account.metrics), tuple(account.curve), text)

    def close(self) -> None:
        """End the scorer, and let go of the data."""
        self._scorer.close()
        self._data.close()

    def _start(
        self,
        stack: ExitStack,
        code: Path,
        scratch: Path,
        progress: Callable[[Progress], None],
        account: Account,
    ) -> tuple[Scoring, Training]:
        """Start the training and, while it prepares itself, everything that will be needed after it."""

        def candidate(module: str, name: str) -> Candidate:
            folder = scratch / name
            folder.mkdir(parents=True, exist_ok=True)
            return stack.enter_context(
                Candidate(
                    self._sandbox,
                    module,
                    code=code,
                    folder=folder,
                    threads=self._threads,
                    gpu=self._gpu,
                    limits=self._limits,
                )
            )

        trainer = candidate(self._modules.train, "train")
        self._scorer.start()
        servers = [candidate(self._modules.serve, name) for name in ("model", "witness")]
        budget = replace(self._budget, max_seconds=self.max_seconds)
        scoring = Scoring(self._scorer, servers, account, scratch)
        return scoring, Training(trainer, budget, account, progress)

    def _task(self, seed: int) -> dict[str, object]:
        """The task message of protocol 1."""
        return {
            "seed": seed,
            "device": self._device,
            "threads": self._threads,
            "vocab": self._data.vocab,
            "context": self._context,
            "budget": {"kind": self._budget.kind, "amount": self._budget.amount},
            "compile": self._compile,
            "token_bytes": None,
        }

    def _job(self, splits: Sequence[str]) -> dict[str, object]:
        """What the scorer is told."""
        return {
            "cache": str(self._data.path),
            "splits": list(splits),
            "context": self._context,
            "device": self._device,
            "threads": self._threads,
            "probes": self._probes,
        }


def _check_disk(scratch: Path) -> None:
    """Raise if a failed trial may have failed for want of space that was not its own to waste."""
    if shutil.disk_usage(scratch).free > FULL_BYTES:
        return
    for name in ("train", "model", "witness"):
        remove_tree(scratch / name)
    if shutil.disk_usage(scratch).free <= FULL_BYTES:
        raise UserError(
            f"The disk of {scratch} is full.", "Free some space, then run the same again.", code=3
        )
