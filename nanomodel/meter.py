"""Reports how a training goes: loss, speed, memory, MFU, and what the compiler did.

Decides when to read a number: reading a loss makes the CPU wait for the GPU, so it happens at most a few
times a second; the last entry is never lost. Reported numbers decide nothing: the runner has its own clock
and counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from nanomodel import device as machine
from nanomodel.runner import HarnessError, Runner

LOG_EVERY = 0.25
"""Seconds between two entries that are passed on."""
PRINT_EVERY = 2.0
"""Seconds between two lines that are printed."""


class Diverged(HarnessError):
    """The training loss is not a finite number any more."""


class Meter:
    """Takes log entries, passes some of them on, and sums up.

    Args:
        runner: Gets some of the entries.
        device: Where training happens.

    Attributes:
        peak: Operations a second that the device can do; None if unknown.
        flops_per_token: Operations to train on one token; 0 if unknown.
        rows: Rows of a pass that fitted into memory; 0 if the script did not try.
    """

    def __init__(self, runner: Runner, device: torch.device) -> None:
        self._runner, self._device = runner, device
        self.peak = machine.peak_flops(device)
        self.flops_per_token = 0.0
        self.rows = 0
        self._latest: tuple[Any, Mapping[str, Any]] | None = None
        self._loss, self._step = math.nan, 0
        self._sum: Any = 0.0  # of the losses since the last report, on the device: nothing waits for it
        self._count = 0
        self._reported = self._printed = 0.0
        self._compiled: int | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps done, by the latest entry."""
        return self._step

    def begin(self, compiling: bool) -> None:
        """Reset the peaks, because the clock is about to start; memory of the warm-up does not count."""
        machine.reset_peak_memory(self._device)
        self._compiled = machine.compilations()["recompiles"] if compiling else None

    def note(self, step: int, loss: Any, numbers: Mapping[str, Any]) -> bool:
        """Keep an entry; returns whether it is time to `report` it."""
        self._step, self._latest = step, (loss, numbers)
        if isinstance(loss, torch.Tensor | float | int):  # nothing else is looked at before it is reported
            self._sum = self._sum + (loss.detach().float() if isinstance(loss, torch.Tensor) else loss)
            self._count += 1
        return time.monotonic() - self._reported >= LOG_EVERY

    def report(self, progress: float, tokens: int, seconds: float) -> None:
        """Pass on the latest entry, if there is a new one, with the mean loss since the last report.

        Raises:
            Diverged: If a loss since then is not finite.
        """
        if self._latest is None:
            return
        self._reported = time.monotonic()
        loss, numbers = self._latest
        self._loss = _number(self._sum) / self._count if self._count else _number(loss)
        numbers = {name: _number(value) for name, value in numbers.items()}
        self._latest, self._sum, self._count = None, 0.0, 0
        if not math.isfinite(self._loss):
            raise Diverged(f"the training loss is {self._loss} at step {self._step}")
        message = {"step": self._step, "loss": self._loss, "progress": progress, "tokens": tokens}
        self._runner.log({**numbers, **message, "type": "log"})
        if self._reported - self._printed >= PRINT_EVERY:
            self._printed = self._reported
            now = self.numbers(tokens, seconds)
            mfu = f"{now['mfu']:.1%}" if "mfu" in now else "unknown"
            more = "".join(f"  {name} {value:.4g}" for name, value in numbers.items())
            print(
                f"step {self._step:6d}  {progress:4.0%}  loss {self._loss:.4f}"
                f"  {now['tokens_per_second']:,.0f} tokens/s  mfu {mfu}{more}",
                flush=True,
            )

    def numbers(self, tokens: int, seconds: float) -> dict[str, float]:
        """All numbers known so far."""
        known: dict[str, float] = {"steps": self._step, "tokens": tokens}
        known["tokens_per_second"] = tokens / max(seconds, 1e-9)
        known["peak_memory_mb"] = machine.peak_memory_mb(self._device)
        if self.rows:
            known["rows"] = self.rows
        if self._compiled is not None:
            known |= machine.compilations(self._compiled)
        if math.isfinite(self._loss):
            known["train_loss"] = self._loss
        if self.peak and self.flops_per_token:
            known["mfu"] = self.flops_per_token * known["tokens_per_second"] / self.peak
        return known


def _number(value: Any) -> float:
    return float(value.detach()) if isinstance(value, torch.Tensor) else float(value)
