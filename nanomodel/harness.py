"""Gives a training script what it needs besides its model: task, clock, data, log, submission of weights.

    run = harness.connect()
    model = build_model(run.vocab, run.context).to(run.device)
    B = run.fit(attempt, B)                             # compile and warm up on run.fake_batch(B, T)
    run.start()                                         # the clock starts, the data arrives
    while (batch := run.batch(B, T)) is not None:
        ...
        run.log(step, loss=loss)
    run.submit(model)

Under a runner ($HARNESS_FD) the runner gives the task, and its clock decides. Without one, the script reads
the prepared cache itself and gets a score at the end (`nanomodel.standalone`). The same script works in both.

This module helps an honest script to stay within its budget. It cannot stop a dishonest script, because it
runs in the candidate's own process; the runner and the scorer enforce the rules.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanomodel import device as machine
from nanomodel.batches import Batches, draw_windows
from nanomodel.meter import Meter
from nanomodel.runner import HarnessError, Runner, RunnerProcess
from nanomodel.wire import WEIGHTS, Wire

RESERVE = 0.01
"""Share of a budget of seconds (at least 0.2 s) that is kept free for writing the weights."""
AHEAD = 2
"""Batches that the CPU may queue ahead of the GPU; with more, the measured time would be wrong."""


@dataclass(frozen=True)
class Budget:
    """What a training may use.

    Attributes:
        kind: "seconds" of wall clock, "tokens" drawn, or (in a tryout) "steps", which are batches drawn.
        amount: How many.
    """

    kind: str
    amount: float


class Run:
    """One training run.

    Attributes:
        seed: Random seed; torch, numpy and random are seeded with it, again when the clock starts. Data and
            the initial weights of each parameter have streams of their own, which no other draw moves.
        device: Where to train.
        threads: CPU threads in use.
        vocab: Number of tokens.
        context: Tokens that the model is scored on at a time.
        compile: Whether to compile; False if the task forbids it or this machine has no compiler.
        budget: What the training may use.
    """

    def __init__(self, runner: Runner) -> None:
        self._connected = time.monotonic()
        task = runner.task()
        self._runner = runner
        self.seed = int(task["seed"])
        self.device = machine.choose_device(str(task["device"]))
        self.threads = int(task["threads"])
        self.vocab = int(task["vocab"])
        self.context = int(task["context"])
        self.budget = Budget(str(task["budget"]["kind"]), float(task["budget"]["amount"]))
        self.compile = bool(task["compile"])
        self._in_order = bool(task.get("ration", False))
        machine.prepare(self.device, self.threads, self.seed)
        self._streams = machine.separate_streams(self.seed)
        weakref.finalize(self, self._streams.remove)  # of a run that never starts
        if self.compile and (missing := machine.why_no_compiler(self.device)):
            print(f"not compiling: {missing} on this machine")
            self.compile = False
        self._meter = Meter(runner, self.device)
        self._warming = self._ready = 0.0
        self._batches: Batches | None = None
        self._available = 0
        self._started = self._last_batch = 0.0
        self._tokens = self._drawn = 0
        self._pace: deque[float] = deque(maxlen=16)
        self._queued: deque[torch.cuda.Event] = deque()

    # Before the clock

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations to train on one token: set it to have MFU reported."""
        return self._meter.flops_per_token

    @flops_per_token.setter
    def flops_per_token(self, value: float) -> None:
        self._meter.flops_per_token = value

    def compiled(self, function: Any, **options: Any) -> Any:
        """`torch.compile(function)`, or the function itself where `compile` is False."""
        return machine.compile_or_not(function, **options) if self.compile else function

    def fake_batch(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random tokens in the shape of a batch, to compile and warm up on before the clock starts."""
        self._warming = self._warming or time.monotonic()
        tokens = np.random.default_rng(self.seed).integers(0, self.vocab, size=(rows + 1) * (length + 1))
        window = torch.from_numpy(draw_windows(tokens, rows, length + 1, self.seed, 0)).to(self.device)
        return window[:, :-1], window[:, 1:]

    def fit(self, attempt: Callable[[int], object], rows: int) -> int:
        """Warm up, and find how many rows fit into the memory of the device.

        Args:
            attempt: Takes a number of rows, and does with a fake batch of them what training will do.
            rows: Number of rows to try first.

        Returns:
            `rows`, halved as often as `attempt` ran out of memory.

        Raises:
            torch.OutOfMemoryError: If not even one row fits.
        """
        while True:
            try:
                attempt(rows)
                self._meter.rows = rows
                return rows
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            # Not in the handler: the exception keeps alive the memory that is to be freed.
            rows //= 2
            machine.free_memory(self.device)
            print(f"out of memory: trying {rows} rows at a time", flush=True)

    def start(self) -> None:
        """Tell the runner that everything is ready; returns when the data is here and the clock runs."""
        machine.synchronize(self.device)
        self._meter.begin(self.compile)
        self._ready = time.monotonic()
        tokens = self._runner.start()
        self._started = self._last_batch = time.monotonic()
        self._streams.remove()
        machine.seed_all(self.seed)
        self._batches = Batches(tokens, self.seed, self.device, in_order=self._in_order)
        self._available = len(tokens)

    # While the clock runs

    @property
    def seconds(self) -> float:
        """Seconds since the clock started."""
        return time.monotonic() - self._started if self._started else 0.0

    @property
    def progress(self) -> float:
        """Share of the budget used, in [0, 1]: drive schedules with it."""
        if self.budget.kind == "tokens":
            return min(1.0, self._tokens / self.budget.amount)
        if self.budget.kind == "steps":  # steps done, so that no schedule ends too early
            return min(1.0, max(0, self._drawn - 1) / self.budget.amount)
        return min(1.0, self.seconds / self._usable)

    def batch(self, rows: int, length: int, aligned: float = 0.0) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The next random windows of the training stream.

        Args:
            rows: Windows in the batch.
            length: Tokens in a window.
            aligned: Share of the windows that begin at a document, if a document begins near.

        Returns:
            Inputs and targets, int64 [rows, length] each, on the device; None when the budget has no room
            for another step like the recent ones.

        Raises:
            HarnessError: If the clock has not started, or the data or the budget is too small for one.
        """
        if self._batches is None:
            raise HarnessError("run.start() comes before the first run.batch()")
        if length + 1 > self._available:
            raise HarnessError(f"there are {self._available} training tokens; a window needs {length + 1}")
        self._wait_for_device()
        if self._is_over(rows * length):
            if not self._tokens:
                amount = f"{self.budget.amount:g} tokens"
                raise HarnessError(f"the budget of {amount} is less than one batch of {rows * length}")
            return None
        self._tokens += rows * length
        self._drawn += 1
        return self._batches.next(rows, length, aligned)

    def log(self, step: int, loss: Any, **numbers: Any) -> None:
        """Log how training goes. Call it every step; it reads its arguments only a few times a second.

        Args:
            step: Optimizer steps done.
            loss: Training loss in nats per token; a tensor that is not read does not make the CPU wait.
            **numbers: Other numbers to show, such as a learning rate.

        Raises:
            Diverged: If the loss is not finite.
        """
        if self._meter.note(step, loss, numbers):
            self._report()

    def submit(self, model: torch.nn.Module, **metrics: float) -> None:
        """Hand in the weights of the (compiled or raw) model: training is over.

        Args:
            model: The trained model; its state must have the keys of `build_model`'s.
            **metrics: Numbers to report beside the harness's own.

        Raises:
            HarnessError: If no step was logged, because untrained weights would get a score like any others.
                In a tryout (a budget of steps) that is allowed.
        """
        machine.synchronize(self.device)
        if not self._meter.steps and self.budget.kind != "steps":
            raise HarnessError("the budget ended before the first optimizer step")
        self._report()
        raw: torch.nn.Module = getattr(model, "_orig_mod", model)
        weights = Path(WEIGHTS).resolve()
        torch.save({name: value.detach().cpu() for name, value in raw.state_dict().items()}, weights)
        parameters = float(sum(p.numel() for p in raw.parameters()))
        numbers = {**self._meter.numbers(self._tokens, self.seconds), **self._phases()}
        if not self._in_order:
            numbers["epochs"] = self._tokens / self._available
        self._runner.submit(weights, {**numbers, "parameters": parameters, **metrics})

    # Helpers

    @property
    def _usable(self) -> float:
        return max(0.5 * self.budget.amount, self.budget.amount - max(0.2, RESERVE * self.budget.amount))

    def _is_over(self, tokens: int) -> bool:
        if self.budget.kind == "tokens":
            return self._tokens + tokens > self.budget.amount
        if self.budget.kind == "steps":
            return self._drawn >= self.budget.amount
        now = time.monotonic()
        if self._tokens:
            self._pace.append(now - self._last_batch)
        self._last_batch = now
        # The slowest of the recent steps, so that the last step ends in time on a busy machine too.
        step = max(self._pace, default=0.0) * (1 + AHEAD * (self.device.type == "cuda"))
        return self._tokens > 0 and self.seconds + step > self._usable

    def _wait_for_device(self) -> None:
        if self.device.type == "cuda":
            self._queued.append(torch.cuda.current_stream().record_event())
            if len(self._queued) > AHEAD:
                self._queued.popleft().synchronize()

    def _report(self) -> None:
        self._meter.report(self.progress, self._tokens, self.seconds)

    def _phases(self) -> dict[str, float]:
        """Seconds before the clock: building the model, and compiling and warming up."""
        warming = self._warming or self._ready
        return {"build_seconds": warming - self._connected, "warmup_seconds": self._ready - warming}


def connect() -> Run:
    """Get the task, from the runner or from the command line, and set up device, threads and seeds.

    Raises:
        HarnessError: If neither gives a task.
    """
    # A script that is told to stop prints where it is, and so the last lines of its log name the cause.
    faulthandler.register(signal.SIGTERM, file=2, all_threads=False, chain=True)
    fd = os.environ.get("HARNESS_FD")
    if fd:
        return Run(RunnerProcess(Wire.from_fd(int(fd))))
    from nanomodel.standalone import Standalone

    return Run(Standalone.from_arguments())
