"""One attempt at a candidate: from its processes' start to a result.

Invariants: whatever a candidate does ends in a `Measurement`, in bounded time, with nothing of it alive; only
a fault of the host raises. The training process is dead before its weights are read. No candidate is given a
path or a descriptor of held-out data: its servers see inputs alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.execute.log import Log
from autoresearch.execute.sandbox import remove_tree
from autoresearch.execute.tree_hash import digest
from autoresearch.tasks.gpt.compile_cache import CompileCache
from autoresearch.tasks.gpt.data import TrainingData
from autoresearch.tasks.gpt.processes import FOLDERS, Crew, Kit, Standby
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.tasks.gpt.scoring import Scoring
from autoresearch.tasks.gpt.training import Account, Ended, Training, TrainingBudget
from autoresearch.tasks.gpt.weights import submitted
from autoresearch.types import Measurement, Outcome, Progress

LARGEST_RATION = 1 << 28
"""In tokens. With a larger budget the harness is trusted to count: the copy would take too much memory."""
FULL_BYTES = 64 << 20
"""A disk with less free space than this counts as full."""
BRIEF_SECONDS = 20.0
"""What scoring a few windows may take."""
STANDBY_AT = 0.8
"""Share of the budget after which the next trial's processes are started: they cost a few seconds of one
core, which near the end of a training is little, and between two trainings would be waited for."""


@dataclass(frozen=True)
class Plan:
    """What is done with a candidate.

    Attributes:
        seed: Random seed of the training.
        budget: What the training may use.
        compile: Whether it may compile.
        startup_seconds: Cap on everything before the clock starts.
        splits: What to score on.
        probes: Windows to ask the witness about.
        brief: Whether a few windows are enough.
    """

    seed: int
    budget: TrainingBudget
    compile: bool
    startup_seconds: float
    splits: tuple[str, ...]
    probes: int
    brief: bool = False

    @property
    def rationed(self) -> bool:
        """Whether exactly as many tokens are handed over as may be used."""
        return self.budget.kind == "tokens" and self.budget.amount <= LARGEST_RATION

    def scoring(self, seconds: float) -> float:
        """Cap on scoring, of which `seconds` is the whole: trials wait while a few windows are scored."""
        return min(seconds, BRIEF_SECONDS) if self.brief else seconds


@dataclass(frozen=True)
class Rig:
    """What all attempts of a runner share.

    Attributes:
        data: The prepared data.
        kit: How candidates' processes are started.
        scorer: The trusted process.
        standby: Keeps the next trial's processes ready; None: nobody does.
        compiled: The compile cache; None: there is none.
        device: "cpu", "cuda" or "auto".
        context: Tokens that the model reads at a time in scoring.
        serve_threads: CPU threads of a model server.
        score_seconds: Cap on scoring.
        max_bytes: Largest submission.
    """

    data: TrainingData
    kit: Kit
    scorer: Scorer
    standby: Standby | None
    compiled: CompileCache | None
    device: str
    context: int
    serve_threads: int
    score_seconds: float
    max_bytes: int

    def close(self) -> None:
        """End the scorer and whoever waits, and let go of the data."""
        if self.standby:
            self.standby.close()
        self.scorer.close()
        self.data.close()

    @contextmanager
    def crew(self, plan: Plan, code: Path, scratch: Path) -> Iterator[Crew]:
        """The processes of a trial: those that wait for it, or else new ones; dead afterwards."""
        self.scorer.start()
        crew = self.standby.take(code) if self.standby and not plan.brief else None
        if crew is None or self.standby is None:
            with Crew(self.kit, code, scratch) as crew:
                yield crew
            return
        try:
            yield crew
            crew.kill()
            if digest(crew.code) != digest(code):
                raise Ended(Outcome.INVALID, "frozen code changed during the trial")
        finally:
            self.standby.leave(crew, keep=scratch)

    def prepare(self, plan: Plan) -> None:
        """Have the next trial's processes started; a tryout leaves that to the trial it precedes."""
        if self.standby and not plan.brief:
            self.standby.prepare()

    @contextmanager
    def handed(self, plan: Plan) -> Iterator[int]:
        """The training data of a trial; under a budget of tokens no more of it than may be read."""
        ration = self.data.ration(int(plan.budget.amount), plan.seed) if plan.rationed else self.data.whole()
        with ration as descriptor:
            yield descriptor

    def task(self, plan: Plan) -> dict[str, object]:
        """The task message of protocol 1."""
        return {
            "seed": plan.seed,
            "device": self.device,
            "threads": self.kit.threads,
            "vocab": self.data.vocab,
            "context": self.context,
            "budget": {"kind": plan.budget.kind, "amount": plan.budget.amount},
            "compile": plan.compile,
            "ration": plan.rationed,
            "token_bytes": None,
        }

    def job(self, plan: Plan) -> dict[str, object]:
        """What the scorer is told."""
        return {
            "cache": str(self.data.path),
            "splits": list(plan.splits),
            "brief": plan.brief,
            "context": self.context,
            "device": self.device,
            "threads": self.serve_threads,
            "probes": plan.probes,
        }


def attempt(
    rig: Rig,
    plan: Plan,
    code: Path,
    scratch: Path,
    progress: Callable[[Progress], None],
    should_prune: Callable[[Progress], bool] | None = None,
) -> Measurement:
    """Train and score a candidate; see `TrialRunner.run`, whose paths these are, resolved.

    Raises:
        UserError: If the host fails.
    """
    account = Account()
    account.enter("startup")

    def seen(sign: Progress) -> None:
        if sign.phase == "train" and sign.fraction >= STANDBY_AT:
            rig.prepare(plan)
        progress(sign)

    score: float | None = None
    logs: list[Log] = []
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with rig.crew(plan, code, scratch) as crew:
            logs = crew.logs
            scoring = Scoring(rig.scorer, crew, account, scratch)
            training = Training(crew.trainer, plan.budget, account, seen)
            training.get_ready(rig.task(plan), plan.startup_seconds, scoring.wait_for_hello)
            scoring.wait()
            with rig.handed(plan) as data:
                training.train(data, should_prune)
            rig.prepare(plan)
            with submitted(crew.folder / "train", rig.max_bytes) as weights:
                account.metrics["memory_mb"] = training.candidate.peak_memory / 1e6
                account.metrics["weights_mb"] = os.fstat(weights).st_size / 1e6
                progress(Progress(1.0, account.metrics["train_seconds"], phase="score"))
                scores = scoring.score(weights, rig.job(plan), plan.scoring(rig.score_seconds))
            if rig.compiled:
                rig.compiled.keep(code, crew.folder / "train")
        score = scores[plan.splits[0]]
        account.metrics.update({f"{name}_bpb": scores[name] for name in plan.splits[1:]})
        outcome, reason = Outcome.OK, ""
    except Ended as ended:
        outcome, reason = ended.outcome, str(ended)
    except OSError as error:
        raise UserError(f"The trial cannot be run: {error}.", "Check the disk and permissions.", 3) from error
    finally:
        account.enter(None)
    rig.prepare(plan)
    if rig.data.was_touched() and not plan.rationed:  # who had a copy cannot have done it
        outcome, reason, score = Outcome.INVALID, "it changed the file of the training data", None
    if outcome is not Outcome.OK:
        _check_disk(scratch)
    text = "\n".join(text for log in logs if (text := log.text(wait=1.0).strip()))
    metrics, curve, phases = dict(account.metrics), tuple(account.curve), tuple(account.phases)
    return Measurement(outcome, score, reason, metrics, curve, text, phases)


def clear(scratch: Path) -> None:
    """Remove what the candidate's processes wrote."""
    for name in FOLDERS:
        remove_tree(scratch / name)


def _check_disk(scratch: Path) -> None:
    """Raise if a failed trial may have failed for want of space that was not its own to waste."""
    if not scratch.exists() or shutil.disk_usage(scratch).free > FULL_BYTES:
        return
    clear(scratch)
    if shutil.disk_usage(scratch).free <= FULL_BYTES:
        raise UserError(
            f"The disk of {scratch} is full.", "Free some space, then run the same again.", code=3
        )
