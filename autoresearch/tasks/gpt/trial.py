"""One trial of a candidate: from the start of its processes to a measurement.

Invariants: whatever a candidate does, the trial ends with a `Measurement` in limited time, and none of its
processes is alive; only a fault of the host raises. The training process is dead before its weights are read.
No candidate gets a path or a descriptor of held-out data: its servers see inputs only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.base import OnProgress, ShouldStop, TrialEnded
from autoresearch.execute.output import Log
from autoresearch.execute.sandbox.process import LEAST_FREE
from autoresearch.store.files import remove_tree
from autoresearch.tasks.gpt.data import keep_weights, kept_weights, submitted_weights
from autoresearch.tasks.gpt.processes import FOLDERS, TrialProcesses
from autoresearch.tasks.gpt.resources import Resources
from autoresearch.tasks.gpt.sampling import write_texts
from autoresearch.tasks.gpt.scoring import Scoring
from autoresearch.tasks.gpt.settings import TrialPlan
from autoresearch.tasks.gpt.training import Training, TrialRecord
from autoresearch.types import Measurement, Outcome, Progress, TextRequest

TEXT = "text"
"""The folder of the server that writes text."""
STANDBY_AT = 0.8
"""Share of the budget after which the next trial's processes start. That takes a few seconds of one core,
which matter little near the end of a training but would delay the next trial."""


@dataclass
class _Trial:
    """A trial that runs, and what is known of it when it ends early."""

    resources: Resources
    plan: TrialPlan
    code: Path
    scratch: Path
    progress: OnProgress
    should_stop: ShouldStop
    record: TrialRecord = field(default_factory=TrialRecord)
    log: Log | None = None
    """Of the trainer alone: servers have seen held-out text."""
    texts: tuple[str, ...] = ()

    def run(self) -> float:
        """The score.

        Raises:
            TrialEnded: If it ends without one.
        """
        resources, plan = self.resources, self.plan
        self.scratch.mkdir(parents=True, exist_ok=True)
        with (
            resources.turn(self.progress) as wait_for_all,
            resources.processes(plan, self.code, self.scratch) as processes,
        ):
            if plan.questions:
                processes.add_blind_server()
            self.log = processes.trainer.log
            scoring = Scoring(
                resources.scorer, processes, self.record, self.scratch, resources.even_out_memory
            )
            found = (
                self._submitted(processes, scoring) if plan.submitted else self._trained(processes, scoring)
            )
            resources.prepare_next(plan)
            with found as weights:
                scores = self._scored(weights, scoring, wait_for_all)
                if plan.text is not None:
                    self._write_texts(plan.text, weights, processes)
            if resources.compiled:
                resources.compiled.keep(self.code, processes.folders["train"])
        self.record.metrics.update({f"{name}_bpb": scores[name] for name in plan.splits[1:]})
        return scores[plan.splits[0]]

    def _submitted(self, processes: TrialProcesses, scoring: Scoring) -> AbstractContextManager[int]:
        """Weights of an earlier training."""
        processes.trainer.kill()
        scoring.wait()
        self.record.enter("score")
        return kept_weights(self.plan.submission)  # type: ignore[arg-type]

    def _trained(self, processes: TrialProcesses, scoring: Scoring) -> AbstractContextManager[int]:
        """Weights that the candidate trains now; its process is dead afterwards."""
        resources, plan = self.resources, self.plan

        def seen(sign: Progress) -> None:
            if sign.phase == "train" and sign.fraction >= STANDBY_AT:
                resources.prepare_next(plan)
            self.progress(sign)

        meter, threads = resources.load, resources.settings.threads
        training = Training(processes.trainer, plan.budget, self.record, seen, meter, threads)
        training.get_ready(resources.task_message(plan), plan.startup_seconds, scoring.wait_for_hello)
        scoring.wait()
        with resources.tokens(plan) as data:
            training.train(data, self.should_stop)
        self.record.metrics["memory_mb"] = training.program.peak_memory / 1e6
        return submitted_weights(processes.folders["train"], resources.settings.max_bytes)

    def _scored(self, weights: int, scoring: Scoring, wait_for_all: Callable[[], None]) -> dict[str, float]:
        """Scores of a model by split."""
        resources, plan, metrics = self.resources, self.plan, self.record.metrics
        metrics["weights_mb"] = os.fstat(weights).st_size / 1e6
        self.progress(Progress(1.0, metrics.get("train_seconds", 0.0), phase="score"))
        if not plan.tryout:  # whose servers are shown no held-out text
            wait_for_all()
        most = plan.score_seconds(resources.settings.score_seconds)
        scores = scoring.score(weights, resources.score_message(plan), most, resources.load.stretch)
        if plan.submission is not None and not plan.submitted:
            keep_weights(weights, plan.submission)
        return scores

    def _write_texts(self, request: TextRequest, weights: int, processes: TrialProcesses) -> None:
        for server in processes.servers:  # it has seen held-out text
            server.kill()
        folder, resources = self.scratch / TEXT, self.resources
        self.texts = write_texts(resources.options, self.code, folder, weights, resources.data.path, request)


def run_trial(
    resources: Resources,
    plan: TrialPlan,
    code: Path,
    scratch: Path,
    progress: OnProgress,
    should_stop: ShouldStop = None,
) -> Measurement:
    """Train and score a candidate; see `GptMeasurer.measure`, whose paths these are, resolved.

    Raises:
        UserError: If the host fails.
    """
    trial = _Trial(resources, plan, code, scratch, progress, should_stop)
    record, score = trial.record, None
    record.enter("startup")
    try:
        score = trial.run()
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
    log = trial.log.text(wait=1.0).strip() if trial.log else ""
    metrics, curve, phases = dict(record.metrics), tuple(record.curve), tuple(record.phases)
    return Measurement(outcome, score, reason, metrics, curve, log, phases, texts=trial.texts)


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
