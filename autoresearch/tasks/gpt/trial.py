"""One trial of a candidate: from the start of its processes to a measurement.

Invariants: whatever a candidate does, the trial ends with a `Measurement` in limited time, and none of its
processes is alive; only a fault of the host raises. The training process is dead before its weights are read.
No candidate gets a path or a descriptor of held-out data: its servers see inputs only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.base import TrialEnded
from autoresearch.execute.load import LoadMeter
from autoresearch.execute.output import Log
from autoresearch.execute.sandbox import gpu as gpus
from autoresearch.execute.sandbox import residency, visible
from autoresearch.execute.sandbox.process import LEAST_FREE
from autoresearch.execute.turns import Turns
from autoresearch.store.files import digest, remove_tree
from autoresearch.tasks.gpt.data import TrainingData, keep_weights, kept_weights, submitted_weights
from autoresearch.tasks.gpt.processes import FOLDERS, CompileCache, Standby, TrialProcesses
from autoresearch.tasks.gpt.program import PACKAGES
from autoresearch.tasks.gpt.sampling import write_texts
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.tasks.gpt.scoring import Scoring
from autoresearch.tasks.gpt.settings import LaunchOptions, Settings, TrialPlan
from autoresearch.tasks.gpt.training import Training, TrialRecord
from autoresearch.types import Measurement, Outcome, Progress

TEXT = "text"
"""The folder of the server that writes text."""
STANDBY_AT = 0.8
"""Share of the budget after which the next trial's processes start. That takes a few seconds of one core,
which matter little near the end of a training but would delay the next trial."""


@dataclass(frozen=True)
class Resources:
    """What all trials of a measurer share.

    Attributes:
        data: The prepared data.
        options: Options for starting candidates' processes.
        scorer: The trusted process.
        standby: Keeps the next trial's processes ready; None: each trial starts its own.
        compiled: The compile cache; None: there is none.
        device: "cpu", "cuda" or "auto".
        load: Says how busy the machine is.
        turns: Lets no other candidate's process run while a model is scored; None: that is not wanted.
    """

    data: TrainingData
    options: LaunchOptions
    scorer: Scorer
    standby: Standby | None
    compiled: CompileCache | None
    device: str
    load: LoadMeter
    turns: Turns | None

    @property
    def settings(self) -> Settings:
        """How candidates are trained and scored."""
        return self.options.settings

    def close(self) -> None:
        """End the scorer and the waiting processes, and close the data."""
        if self.standby:
            self.standby.close()
        self.scorer.close()
        self.data.close()

    def even_out_memory(self) -> None:
        """Have all files that candidates can read in memory, before a candidate's process starts to run.

        Which files the process before it has read then tells this one nothing.
        """
        options = self.options
        if options.sandbox.name != "none":
            others = tuple(gpus.library_folders()) if options.gpu else ()
            residency.read_in(visible.readable(PACKAGES, others))

    @contextmanager
    def processes(self, plan: TrialPlan, code: Path, scratch: Path) -> Iterator[TrialProcesses]:
        """The processes of a trial: waiting ones, or else new ones; they are killed afterwards."""
        self.scorer.start()
        self.even_out_memory()
        ready = self.standby.begin(code) if self.standby and not plan.tryout else None
        if ready is None or self.standby is None:
            with TrialProcesses(self.options, code, scratch) as processes:
                yield processes
            return
        try:
            yield ready
            ready.kill()
            if digest(ready.code) != digest(code):
                raise TrialEnded(Outcome.INVALID, "frozen code changed during the trial")
        finally:
            self.standby.end(ready, keep=scratch)

    @contextmanager
    def turn(self, progress: Callable[[Progress], None]) -> Iterator[Callable[[], None]]:
        """Begin a trial when no other is scored; gives a function that waits until no other process runs."""
        with ExitStack() as turn:
            if self.turns is not None:
                turn.enter_context(
                    self.turns.together(lambda: progress(Progress(0.0, 0.0, phase="start-up")))
                )

            def wait_for_all() -> None:
                turn.close()
                if self.turns is not None:
                    turn.enter_context(self.turns.alone(lambda: progress(Progress(1.0, 0.0, phase="score"))))

            yield wait_for_all

    def prepare_next(self, plan: TrialPlan) -> None:
        """Start the next trial's processes; after a tryout, the trial does that."""
        if self.standby and not plan.tryout:
            self.standby.prepare()

    def tokens(self, plan: TrialPlan) -> AbstractContextManager[int]:
        """The training data of a trial; under a budget of tokens exactly that many tokens."""
        amount = int(plan.budget.amount)
        return self.data.some_tokens(amount, plan.seed) if plan.counted else self.data.all_tokens()

    def task_message(self, plan: TrialPlan) -> dict[str, object]:
        """The task message of protocol 1."""
        return {
            "seed": plan.seed,
            "device": self.device,
            "threads": self.settings.threads,
            "vocab": self.data.vocab,
            "context": self.settings.context,
            "budget": {"kind": plan.budget.kind, "amount": plan.budget.amount},
            "compile": plan.compile,
            "ration": plan.counted,
            "token_bytes": None,
        }

    def score_message(self, plan: TrialPlan) -> dict[str, object]:
        """The job for the scorer."""
        return {
            "cache": str(self.data.path),
            "splits": list(plan.splits),
            "brief": plan.tryout,
            "context": self.settings.context,
            "device": self.device,
            "threads": self.settings.serve_threads,
            "probes": plan.probes,
            "questions": plan.questions,
            "question_seed": plan.question_seed,
            "share": plan.share,
        }


def run_trial(
    resources: Resources,
    plan: TrialPlan,
    code: Path,
    scratch: Path,
    progress: Callable[[Progress], None],
    should_stop: Callable[[Progress], bool] | None = None,
) -> Measurement:
    """Train and score a candidate; see `GptMeasurer.measure`, whose paths these are, resolved.

    Raises:
        UserError: If the host fails.
    """
    record = TrialRecord()
    record.enter("startup")

    def seen(sign: Progress) -> None:
        if sign.phase == "train" and sign.fraction >= STANDBY_AT:
            resources.prepare_next(plan)
        progress(sign)

    score: float | None = None
    log: Log | None = None  # of the trainer alone: servers have seen held-out text
    texts: tuple[str, ...] = ()
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with resources.turn(progress) as wait_for_all, resources.processes(plan, code, scratch) as processes:
            if plan.questions:
                processes.add_blind_server()
            log = processes.trainer.log
            scoring = Scoring(resources.scorer, processes, record, scratch, resources.even_out_memory)
            if plan.submitted:
                processes.trainer.kill()
                scoring.wait()
                record.enter("score")
                found = kept_weights(plan.submission)  # type: ignore[arg-type]
            else:
                meter, threads = resources.load, resources.settings.threads
                training = Training(processes.trainer, plan.budget, record, seen, meter, threads)
                training.get_ready(resources.task_message(plan), plan.startup_seconds, scoring.wait_for_hello)
                scoring.wait()
                with resources.tokens(plan) as data:
                    training.train(data, should_stop)
                record.metrics["memory_mb"] = training.program.peak_memory / 1e6
                found = submitted_weights(processes.folders["train"], resources.settings.max_bytes)
            resources.prepare_next(plan)
            with found as weights:
                record.metrics["weights_mb"] = os.fstat(weights).st_size / 1e6
                progress(Progress(1.0, record.metrics.get("train_seconds", 0.0), phase="score"))
                if not plan.tryout:  # whose servers are shown no held-out text
                    wait_for_all()
                most = plan.score_seconds(resources.settings.score_seconds)
                job = resources.score_message(plan)
                scores = scoring.score(weights, job, most, resources.load.stretch)
                if plan.submission is not None and not plan.submitted:
                    keep_weights(weights, plan.submission)
                if plan.text is not None:
                    for server in processes.servers:  # it has seen held-out text
                        server.kill()
                    texts = write_texts(
                        resources.options, code, scratch / TEXT, weights, resources.data.path, plan.text
                    )
            if resources.compiled:
                resources.compiled.keep(code, processes.folders["train"])
        score = scores[plan.splits[0]]
        record.metrics.update({f"{name}_bpb": scores[name] for name in plan.splits[1:]})
        outcome, reason = Outcome.OK, ""
    except TrialEnded as ended:
        outcome, reason = ended.outcome, str(ended)
    except OSError as error:
        raise UserError(f"The trial cannot be run: {error}.", "Check the disk and permissions.", 3) from error
    finally:
        record.enter(None)
    resources.prepare_next(plan)
    # A candidate with a copy of the tokens cannot have touched the file; another candidate did.
    if resources.data.was_touched() and not plan.counted:
        outcome, reason, score = Outcome.INVALID, "it changed the file of the training data", None
    if outcome is not Outcome.OK:
        _check_disk(scratch)
    text = log.text(wait=1.0).strip() if log else ""
    metrics, curve, phases = dict(record.metrics), tuple(record.curve), tuple(record.phases)
    return Measurement(outcome, score, reason, metrics, curve, text, phases, texts=texts)


def clear(scratch: Path) -> None:
    """Remove what the candidate's processes wrote."""
    for name in (*FOLDERS, TEXT):
        remove_tree(scratch / name)


def _check_disk(scratch: Path) -> None:
    """Raise if the disk is full, since then the host may be the reason of a failed trial."""
    if not scratch.exists() or shutil.disk_usage(scratch).free > LEAST_FREE:
        return
    clear(scratch)
    if shutil.disk_usage(scratch).free <= LEAST_FREE:
        raise UserError(
            f"The disk of {scratch} is full.", "Free some space, then run the same again.", code=3
        )
