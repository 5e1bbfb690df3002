"""Is the GPU itself? Clocks, heat, throttling and strangers, read from `nvidia-smi` while a trial trains.

Owns the rule which readings make a trial's result worthless: the hardware slowed the GPU down (heat, power
brake), or another process computed on it. Such a trial is repeated, not judged (`repeat`). Power capping by
software is how a busy GPU lives, so it is only noted. Where a container hides the host's process numbers,
strangers inside the same container are seen, those outside it are not. Not covered: AMD.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil

from autoresearch.errors import UserError

SLOWED = {0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
"""Bits of the reasons for which a GPU runs below its clocks, as far as they are not normal."""
EVERY = 10.0
"""Seconds between two looks."""
FIRST = 2.0
"""Seconds of training before the first one: until then the clocks are still going up."""
SHARE = 0.1
"""A trial that was slowed at more than this share of the looks is worthless."""
PATIENCE = 20.0
FIELDS = ("uuid", "temperature.gpu", "clocks.sm", "clocks.max.sm", "clocks_throttle_reasons.active")


@dataclass(frozen=True)
class Look:
    """One reading.

    Attributes:
        temperature: Of the hottest GPU, in degrees Celsius.
        clock: Of the slowest one, in MHz.
        top_clock: The most that it can do.
        slowed: Why one of them is slowed down; empty if none is.
        strangers: Numbers of processes that compute there and are not ours.
    """

    temperature: float
    clock: float
    top_clock: float
    slowed: str
    strangers: tuple[int, ...]


class Health:
    """Looks at the GPUs that trials use.

    Args:
        command: The program that knows.
        devices: Which GPUs, as `nvidia-smi --id` takes them; empty for all.
    """

    def __init__(self, command: str = "nvidia-smi", devices: str = "") -> None:
        self._command = [command, *([f"--id={devices}"] if devices else [])]

    @staticmethod
    def find(device: str, command: str = "nvidia-smi") -> Health | None:
        """One for the GPU that torch calls `device`; None where nobody can be asked."""
        if shutil.which(command) is None:
            return None
        index = device.partition(":")[2] or "0"
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
        health = Health(command, visible[int(index)] if int(index) < len(visible) and visible[0] else index)
        try:
            health.look()
        except UserError:
            return None
        return health

    def look(self) -> Look:
        """Take a reading.

        Raises:
            UserError: If the GPU or its driver does not answer.
        """
        rows = self._query("gpu", FIELDS)
        if not rows:
            raise UserError("nvidia-smi names no GPU.", _HINT, code=3)
        bits = 0
        for row in rows:
            with contextlib.suppress(ValueError):
                bits |= int(row[4], 16)
        ours = {row[0] for row in rows}
        apps = self._query("compute-apps", ("gpu_uuid", "pid"))
        return Look(
            temperature=max(_number(row[1]) for row in rows),
            clock=min(_number(row[2]) for row in rows),
            top_clock=min(_number(row[3]) for row in rows),
            slowed=", ".join(dict.fromkeys(name for bit, name in SLOWED.items() if bits & bit)),
            strangers=_strangers(int(pid) for uuid, pid, *_ in apps if uuid in ours and pid.isdigit()),
        )

    def watch(self) -> Watch:
        """A watch over one trial."""
        return Watch(self)

    def _query(self, what: str, fields: Sequence[str]) -> list[list[str]]:
        command = [*self._command, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"The GPU cannot be asked how it is: {error}.", _HINT, code=3) from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
            raise UserError(f"The GPU does not answer: {said[-1]}", _HINT, code=3)
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        return [[cell.strip() for cell in line.split(",")] for line in lines]


@dataclass
class Watch:
    """Looks again and again while a trial trains. Use it as a context.

    Attributes:
        looks: What was seen.
        lost: Why the GPU stopped answering; empty while it answers.
    """

    health: Health
    looks: list[Look] = field(default_factory=list)
    lost: str = ""

    def __enter__(self) -> Watch:
        self._training, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._training.set()
        self._thread.join()

    def begin(self) -> None:
        """The training has started."""
        self._training.set()

    def end(self) -> None:
        """The training is over; what the GPU does now is another matter."""
        self._over.set()

    def look(self) -> None:
        """Take one more look.

        Raises:
            UserError: If the GPU does not answer.
        """
        self.looks.append(self.health.look())

    @property
    def trouble(self) -> str:
        """Why the trial's result is worthless, as a sentence; empty if it is not."""
        if strangers := self._strangers():
            return f"other processes used the GPU: {', '.join(map(str, strangers))}"
        slowed = [look.slowed for look in self.looks if look.slowed]
        if len(slowed) > SHARE * len(self.looks):
            return f"the GPU was slowed down ({slowed[-1]})"
        return ""

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was seen, as metrics of the trial."""
        if not self.looks:
            return {}
        return {
            "gpu_temperature": max(look.temperature for look in self.looks),
            "gpu_clock_mhz": median(look.clock for look in self.looks),
            "gpu_top_clock_mhz": self.looks[-1].top_clock,
            "gpu_slowed": sum(bool(look.slowed) for look in self.looks) / len(self.looks),
            "gpu_strangers": float(len(self._strangers())),
        }

    def _strangers(self) -> list[int]:
        return sorted({pid for look in self.looks for pid in look.strangers})

    def _run(self) -> None:
        self._training.wait()
        pause = FIRST
        while not self._over.wait(pause):
            pause = EVERY
            try:
                self.look()
            except UserError as error:
                self.lost = str(error)
                return


def _strangers(pids: Iterable[int]) -> tuple[int, ...]:
    """Those that are there and are not below this process."""
    return tuple(sorted(pid for pid in set(pids) if psutil.pid_exists(pid) and not _ours(pid)))


def _ours(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return pid == os.getpid() or os.getpid() in (parent.pid for parent in process.parents())
    except psutil.Error:
        return True  # gone: whoever it was, it is no trouble now


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return 0.0


_HINT = (
    "See what nvidia-smi says; a GPU that has fallen off the bus needs a reset or a restart of the machine."
)
