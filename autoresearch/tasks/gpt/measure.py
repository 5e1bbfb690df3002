"""Trials: one training and one scoring of one candidate each.

    training process  jailed    trains, and writes weights         (`handshake`: protocol, clock)
    two model servers jailed    run the submitted model            (started early, idle without weights)
    scorer            trusted   compares their answers, and sums   (`scorer`: one for all trials)

The jailed ones are a crew (`crew`); that of the next trial can be started before this one ends. What happens
from their start to a result is an `attempt`; here is decided what is attempted, and what makes a result worth
nothing is left to `repeat`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.execute import crash
from autoresearch.execute.health import Health
from autoresearch.execute.retry import unspoiled, watched
from autoresearch.execute.sandbox import Limits, Sandbox
from autoresearch.tasks.gpt.attempt import Plan, Rig, attempt, clear
from autoresearch.tasks.gpt.compile_cache import CompileCache
from autoresearch.tasks.gpt.data import TrainingData
from autoresearch.tasks.gpt.process import one_gpu
from autoresearch.tasks.gpt.processes import Kit, Standby
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.tasks.gpt.training import Budget
from autoresearch.types import Measurement, Outcome, Progress

GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
SMOKE_STEPS = 4
"""Batches of a tryout: weights that begin at zero take two or three to have any effect."""
SMOKE_PROBES = 16
CLOSELY = 8
"""Times as many windows for a suspect: a share of its gain an eighth as large is found as surely."""
SMOKE_SECONDS = 120.0
"""What a tryout may take to get ready, and to train: it does not compile, so whoever needs more hangs."""


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
        standby: Path | None = None,
        editable: Sequence[str] = (),
        serve_threads: int | None = None,
        compiled: Path | None = None,
        health: Health | None = None,
        say: Callable[[str], None] = lambda text: None,
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
            serve_threads: CPU threads of a model server; None: as many as any other process has.
            compiled: Where to keep what compiling the starting script left behind; None: nowhere.
            health: Looks at the GPU while it trains; None: nobody does.
            say: Tells a person something, from the thread of a trial.

        Raises:
            UserError: If the prepared data cannot be read.
        """
        self.max_seconds = max_seconds
        self._budget = Budget(budget_kind, budget_amount, max_seconds)
        self._compile, self._probes, self._health, self._say = compile, probes, health, say
        self._startup_seconds = startup_seconds
        self._alone = threading.Lock()
        trusted = trusted.resolve()
        # Without walls a candidate could reach what waits for the next one, or what is lent to it.
        walled = sandbox.name != "none"
        cached = CompileCache(compiled, trusted) if compiled and walled and compile else None
        furnish = cached.lend if cached else lambda folder: None
        device, only = one_gpu(device)
        gpu = device != "cpu" and any(Path(node).exists() for node in GPU_NODES)
        kit = Kit(sandbox, limits, modules.train, modules.serve, threads, gpu, furnish, only)
        self._rig = Rig(
            data=TrainingData(cache),
            kit=kit,
            scorer=Scorer(modules.score, trusted, threads, only),
            standby=Standby(kit, standby.resolve(), trusted, editable) if standby and walled else None,
            compiled=cached,
            device=device,
            context=context,
            serve_threads=serve_threads or threads,
            score_seconds=score_seconds,
            max_bytes=int(weights_gb * 1e9),
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
        closely: bool = False,
    ) -> Measurement:
        """Train and score the candidate in `code`. Never raises for what the candidate does.

        If the GPU was slowed down or shared meanwhile, it is done again, and the metrics say "repeated".

        Args:
            code: The candidate's tree: the folder that holds its package. Nobody may write it meanwhile.
            seed: Random seed of the training.
            scratch: A folder for this trial, made if missing. `train`, `model` and `witness` in it are what
                the candidate's processes may write; `SPLIT.npy` is put there after scoring: float64
                [pieces, 2], nats and bytes of text of each document, or part of a long one.
            progress: Called a few times a second.
            should_prune: Asked at every sign of life whether to stop.
            splits: What to score on. The first gives the score, the others `SPLIT_bpb` among the metrics.
            closely: Whether to ask the witness about more windows, since the candidate is suspected to cheat.
                How long that takes is not its doing, so "score_seconds" is not among the metrics then.

        Raises:
            UserError: If the host fails: the data changed, the disk is full, the scorer does not start.
        """
        plan = Plan(
            seed,
            replace(self._budget, max_seconds=self.max_seconds),
            self._compile,
            self._startup_seconds,
            tuple(splits),
            self._probes * (CLOSELY if closely else 1),
        )
        code, scratch = code.resolve(), scratch.resolve()
        health = self._health

        def whole(seen: Callable[[Progress], None]) -> Measurement:
            return attempt(self._rig, plan, code, scratch, seen, should_prune)

        def once() -> tuple[Measurement, str]:
            clear(scratch)  # of an attempt that did not count
            return watched(health, whole, progress) if health else (whole(progress), "")

        with self._alone:
            timed = self._budget.kind == "seconds"
            result = unspoiled(once, timed=timed, say=self._say, progress=progress)
        if closely:
            metrics = {k: v for k, v in result.metrics.items() if k != "score_seconds"}
            result = replace(result, metrics=metrics)
        return result

    def smoke(
        self, *, code: Path, scratch: Path, progress: Callable[[Progress], None] = lambda sign: None
    ) -> Measurement:
        """Try a candidate out: a few steps at real shapes, then a few windows through the real probes.

        Finds in seconds what would fail in the first seconds of a trial or at its end. Nothing held out is
        read, nothing is compiled, and there is no score. May be called while a trial runs; on a GPU, what
        runs out of memory is tried again, as a trial would be, when no trial runs.

        Args:
            code: As for `run`.
            scratch: As for `run`; not that of the trial.
            progress: As for `run`.

        Raises:
            UserError: As for `run`.
        """
        code, scratch = code.resolve(), scratch.resolve()
        budget = Budget("steps", SMOKE_STEPS, SMOKE_SECONDS)
        patience = min(SMOKE_SECONDS, self._startup_seconds)
        plan = Plan(0, budget, False, patience, ("train",), SMOKE_PROBES, brief=True)
        result = attempt(self._rig, plan, code, scratch, progress)
        again = self._compile or self._rig.kit.gpu
        if again and result.reason.startswith(crash.MEMORY):
            # Compiled it may need less, and without a trial beside it there is more to be had.
            clear(scratch)
            plan = replace(plan, compile=self._compile, startup_seconds=self._startup_seconds)
            with self._alone:
                result = attempt(self._rig, plan, code, scratch, progress)
        if result.outcome is Outcome.CRASH and self._health is not None:
            strangers = self._health.look().strangers  # raises if the GPU is lost
            if strangers and result.reason.startswith(crash.MEMORY):
                # Theirs, perhaps: a trial, which is made again while they are there, will tell.
                result = replace(result, outcome=Outcome.OK)
        return replace(result, score=None)

    def close(self) -> None:
        """End the scorer and whoever waits, and let go of the data."""
        self._rig.close()
