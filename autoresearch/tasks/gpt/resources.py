"""What all trials of one place share: data, scorer, processes that wait, compile cache, and turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autoresearch.execute.base import OnProgress, TrialEnded
from autoresearch.execute.load import LoadMeter
from autoresearch.execute.sandbox import gpu as gpus
from autoresearch.execute.sandbox import residency, visible
from autoresearch.store.files import digest
from autoresearch.tasks.gpt.data import TrainingData
from autoresearch.tasks.gpt.processes import CompileCache, Standby, TrialProcesses
from autoresearch.tasks.gpt.program import PACKAGES
from autoresearch.tasks.gpt.scorer import Scorer
from autoresearch.tasks.gpt.settings import LaunchOptions, Settings, TrialPlan
from autoresearch.types import Outcome, Progress

LOOK = 0.2
"""Seconds between two calls of `meanwhile`."""


class Turns:
    """Keeps a program that is shown held-out text apart in time from all programs that could hear of it.

    Two processes that run at the same time can tell each other something: by names that the kernel remembers,
    by words of a shared file on which they wait, by the caches of the processor. No filter closes all such
    ways. So a model is scored while no other candidate's process runs. Processes that wait for their trial
    and have run no candidate's code do not count.

    Many may run together, or one alone. Who waits to run alone goes first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = self._waiting = 0
        self._alone = False

    @contextmanager
    def together(self, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Run beside others, but not beside one that runs alone.

        Args:
            meanwhile: Called a few times a second while this waits; may raise.
        """
        with self._changed:
            self._wait(lambda: not self._alone and not self._waiting, meanwhile)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Run while nobody else does; see `together`."""
        with self._changed:
            self._waiting += 1
            try:
                self._wait(lambda: not self._alone and not self._together, meanwhile)
                self._alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
        while not free():
            self._changed.wait(LOOK)
            self._changed.release()  # it may take a while, or raise
            try:
                meanwhile()
            finally:
                self._changed.acquire()


@cache
def this_process() -> Turns:
    """The turns that all trials of this process share."""
    return Turns()


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
    def turn(self, progress: OnProgress) -> Iterator[Callable[[], None]]:
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
            **({"slices": {k: dict(v) for k, v in plan.slices.items()}} if plan.slices else {}),
        }
