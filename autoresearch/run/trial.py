"""One training and one scoring of one candidate: the trial.

    training process  jailed    trains, and writes weights         (`handshake`: protocol, clock)
    two model servers jailed    run the submitted model            (started early, idle without weights)
    scorer            trusted   compares their answers, and sums   (`scorer`: one for all trials)

The jailed ones are a crew (`crew`); that of the next trial can be started before this one ends.

Invariants: whatever a candidate does ends in a `TrialResult`, in bounded time, with nothing of it alive;
only a fault of the host raises. The training process is dead before its weights are read. No candidate is
given a path or a descriptor of held-out data: its servers see inputs alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.run import crash
from autoresearch.run.compiled import CompileCache
from autoresearch.run.crew import FOLDERS, Crew, Kit, Standby
from autoresearch.run.data import TrainingData
from autoresearch.run.frozen import digest
from autoresearch.run.handshake import Account, Budget, Ended, Training
from autoresearch.run.health import Health
from autoresearch.run.log import Log
from autoresearch.run.process import one_gpu
from autoresearch.run.sandbox import Limits, Sandbox, remove_tree
from autoresearch.run.scorer import Scorer
from autoresearch.run.scoring import Scoring
from autoresearch.run.weights import take_weights
from autoresearch.types import Outcome, Progress, TrialResult

GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
LARGEST_RATION = 1 << 28
"""In tokens. With a larger budget the harness is trusted to count: the copy would take too much memory."""
FULL_BYTES = 64 << 20
"""A disk with less free space than this counts as full."""
STANDBY_AT = 0.8
"""Share of the budget after which the next trial's processes are started: they cost a few seconds of one
core, which near the end of a training is little, and between two trainings would be waited for."""
SMOKE_STEPS = 4
"""Batches of a tryout: weights that begin at zero take two or three to have any effect."""
SMOKE_PROBES = 16


@dataclass(frozen=True)
class Modules:
    """What is run, as `python -m NAME`."""

    train: str
    serve: str
    score: str


@dataclass(frozen=True)
class Plan:
    """What is done with a candidate.

    Attributes:
        seed: Random seed of the training.
        budget: What the training may use.
        compile: Whether it may compile.
        splits: What to score on.
        probes: Windows to ask the witness about.
        brief: Whether a few windows are enough.
    """

    seed: int
    budget: Budget
    compile: bool
    splits: tuple[str, ...]
    probes: int
    brief: bool = False


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
        standby: Path | None = None,
        editable: Sequence[str] = (),
        compiled: Path | None = None,
        health: Health | None = None,
    ) -> None:
        """Check that there is data; nothing is started yet.

        Args:
            sandbox: How candidates are confined.
            limits: How much of the host one candidate process may use.
            modules: What trains, serves and scores.
            cache: The prepared data.
            trusted: A tree with the scorer's package, which no candidate can write.
            device: "cpu", "cuda", "auto", or one of several GPUs, such as "cuda:1": it sees no other.
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
            standby: Where the next trial's processes wait, started near the end of the one before; None: each
                trial starts its own.
            editable: The files in which a candidate may differ from the trusted tree; for `standby`.
            compiled: Where to keep what compiling the starting script left behind; None: nowhere.
            health: Looks at the GPU while it trains; None: nobody does.

        Raises:
            UserError: If the prepared data cannot be read.
        """
        self.max_seconds = max_seconds
        self._data = TrainingData(cache)
        (self._device, only), self._threads = one_gpu(device), threads
        self._gpu = device != "cpu" and any(Path(node).exists() for node in GPU_NODES)
        self._budget = Budget(budget_kind, budget_amount, max_seconds)
        self._startup_seconds, self._score_seconds = startup_seconds, score_seconds
        self._max_bytes = int(weights_gb * 1e9)
        self._context, self._compile, self._probes = context, compile, probes
        trusted = trusted.resolve()
        self._health = health
        self._scorer = Scorer(modules.score, trusted, threads, only)
        # Without walls a candidate could reach what waits for the next one, or what is lent to it.
        walled = sandbox.name != "none"
        self._cache = CompileCache(compiled, trusted) if compiled and walled and compile else None
        furnish = self._cache.lend if self._cache else lambda folder: None
        self._kit = Kit(sandbox, limits, modules.train, modules.serve, threads, self._gpu, furnish, only)
        self._standby = (
            Standby(self._kit, standby.resolve(), trusted, editable) if standby and walled else None
        )

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

        If the GPU was slowed down or shared meanwhile, it is done once more, and the metrics say "repeated".

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
        plan = Plan(
            seed,
            replace(self._budget, max_seconds=self.max_seconds),
            self._compile,
            tuple(splits),
            self._probes,
        )
        code, scratch = code.resolve(), scratch.resolve()
        first, trouble = self._watched(plan, code, scratch, progress, should_prune)
        if not trouble:
            return first
        _clear(scratch)
        second, _ = self._watched(plan, code, scratch, progress, should_prune)
        metrics = {**second.metrics, "repeated": 1.0}
        return replace(second, metrics=metrics, phases=(*first.phases, *second.phases))

    def smoke(
        self, *, code: Path, scratch: Path, progress: Callable[[Progress], None] = lambda sign: None
    ) -> TrialResult:
        """Try a candidate out: a few steps at real shapes, then a few windows through the real probes.

        Finds in seconds what would fail in the first seconds of a trial or at its end. Nothing held out is
        read, nothing is compiled (unless it runs out of memory otherwise), and there is no score.

        Args:
            code: As for `run`.
            scratch: As for `run`; not that of the trial.
            progress: As for `run`.

        Raises:
            UserError: As for `run`.
        """
        code, scratch = code.resolve(), scratch.resolve()
        budget = Budget("steps", SMOKE_STEPS, self._score_seconds)
        plan = Plan(0, budget, False, ("train",), SMOKE_PROBES, brief=True)
        result = self._trial(plan, code, scratch, progress, None)
        if self._compile and result.reason.startswith(crash.MEMORY):  # compiled, it may need less
            _clear(scratch)
            result = self._trial(replace(plan, compile=True), code, scratch, progress, None)
        return replace(result, score=None)

    def _watched(
        self,
        plan: Plan,
        code: Path,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Callable[[Progress], bool] | None,
    ) -> tuple[TrialResult, str]:
        """A trial, and why its result is worthless, for a reason that lies with the GPU; empty if it is not.

        Raises:
            UserError: If the GPU has stopped answering, besides the reasons of `run`.
        """
        if self._health is None:
            return self._trial(plan, code, scratch, progress, should_prune), ""

        def seen(sign: Progress) -> None:
            if sign.phase == "train":
                watch.begin()
            elif sign.phase == "score":
                watch.end()
            progress(sign)

        with self._health.watch() as watch:
            result = self._trial(plan, code, scratch, seen, should_prune)
        if watch.lost:
            self._health.look()  # raises, if it is lost for good
        return replace(result, metrics={**result.metrics, **watch.metrics}), watch.trouble

    def _trial(
        self,
        plan: Plan,
        code: Path,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Callable[[Progress], bool] | None,
    ) -> TrialResult:
        account = Account()
        account.enter("startup")

        def seen(sign: Progress) -> None:
            if sign.phase == "train" and sign.fraction >= STANDBY_AT:
                self._prepare(plan)
            progress(sign)

        score: float | None = None
        logs: list[Log] = []
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            with self._crew(plan, code, scratch) as crew:
                logs += [process.log for process in (crew.trainer, *crew.servers)]
                scoring = Scoring(self._scorer, crew.servers, account, scratch)
                training = Training(crew.trainer, plan.budget, account, seen)
                training.get_ready(self._task(plan), self._startup_seconds, scoring.wait_for_hello)
                scoring.wait()
                with self._handed(plan) as data:
                    training.train(data, should_prune)
                self._prepare(plan)
                weights = take_weights(crew.folder / "train", self._max_bytes)
                account.metrics["memory_mb"] = training.candidate.peak_memory / 1e6
                account.metrics["weights_mb"] = os.fstat(weights).st_size / 1e6
                progress(Progress(1.0, account.metrics["train_seconds"], phase="score"))
                scores = scoring.score(weights, self._job(plan), self._score_seconds)
                if self._cache:
                    self._cache.keep(code, crew.folder / "train")
            score = scores[plan.splits[0]]
            account.metrics.update({f"{name}_bpb": scores[name] for name in plan.splits[1:]})
            outcome, reason = Outcome.OK, ""
        except Ended as ended:
            outcome, reason = ended.outcome, str(ended)
        except OSError as error:
            raise UserError(
                f"The trial cannot be run: {error}.", "Check the disk and permissions.", 3
            ) from error
        finally:
            account.enter(None)
        self._prepare(plan)
        if self._data.was_touched():
            outcome, reason, score = Outcome.INVALID, "it changed the file of the training data", None
        if outcome is not Outcome.OK:
            score = None
            _check_disk(scratch)
        text = "\n".join(text for log in logs if (text := log.text(wait=1.0).strip()))
        metrics, curve, phases = dict(account.metrics), tuple(account.curve), tuple(account.phases)
        return TrialResult(outcome, score, reason, metrics, curve, text, phases)

    def close(self) -> None:
        """End the scorer and whoever waits, and let go of the data."""
        if self._standby:
            self._standby.close()
        self._scorer.close()
        self._data.close()

    @contextmanager
    def _crew(self, plan: Plan, code: Path, scratch: Path) -> Iterator[Crew]:
        """The processes of a trial: those that wait for it, or else new ones; dead afterwards."""
        self._scorer.start()
        crew = self._standby.take(code) if self._standby and not plan.brief else None
        if crew is None or self._standby is None:
            with Crew(self._kit, code, scratch) as crew:
                yield crew
            return
        try:
            yield crew
            crew.kill()
            if digest(crew.code) != digest(code):
                raise Ended(Outcome.INVALID, "frozen code changed during the trial")
        finally:
            self._standby.leave(crew, keep=scratch)

    def _prepare(self, plan: Plan) -> None:
        """Have the next trial's processes started; a tryout leaves that to the trial it precedes."""
        if self._standby and not plan.brief:
            self._standby.prepare()

    @contextmanager
    def _handed(self, plan: Plan) -> Iterator[int]:
        """The training data of a trial; under a budget of tokens no more of it than may be read."""
        if not self._rationed(plan):
            yield self._data.descriptor
            return
        with self._data.ration(int(plan.budget.amount), plan.seed) as descriptor:
            yield descriptor

    def _rationed(self, plan: Plan) -> bool:
        return plan.budget.kind == "tokens" and plan.budget.amount <= LARGEST_RATION

    def _task(self, plan: Plan) -> dict[str, object]:
        """The task message of protocol 1."""
        return {
            "seed": plan.seed,
            "device": self._device,
            "threads": self._threads,
            "vocab": self._data.vocab,
            "context": self._context,
            "budget": {"kind": plan.budget.kind, "amount": plan.budget.amount},
            "compile": plan.compile,
            "ration": self._rationed(plan),
            "token_bytes": None,
        }

    def _job(self, plan: Plan) -> dict[str, object]:
        """What the scorer is told."""
        return {
            "cache": str(self._data.path),
            "splits": list(plan.splits),
            "brief": plan.brief,
            "context": self._context,
            "device": self._device,
            "threads": self._threads,
            "probes": plan.probes,
        }


def _clear(scratch: Path) -> None:
    """Remove what the candidate's processes wrote."""
    for name in FOLDERS:
        remove_tree(scratch / name)


def _check_disk(scratch: Path) -> None:
    """Raise if a failed trial may have failed for want of space that was not its own to waste."""
    if not scratch.exists() or shutil.disk_usage(scratch).free > FULL_BYTES:
        return
    _clear(scratch)
    if shutil.disk_usage(scratch).free <= FULL_BYTES:
        raise UserError(
            f"The disk of {scratch} is full.", "Free some space, then run the same again.", code=3
        )
