"""The state of the GPU while a trial trains: clocks, temperature, throttling, other processes; by NVML.

Decides which readings make the result of a trial worthless: the hardware slowed the GPU down (heat, power
brake), or a process of another program computed on it. Such a trial is repeated, not judged (`retry`). A
power cap is normal on a busy GPU, so it is only recorded. Where a container hides the numbers of the host's
processes, only those inside the same container are seen. Not covered: AMD.

Without the package `nvidia-ml-py` or without a driver there are no readings.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from statistics import mean
from typing import Any

import psutil

from autoresearch.errors import UserError
from autoresearch.execute.sandbox.gpu import named

SLOWED = {0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat", 0x80: "power brake"}
"""Bits of NVML's reasons why a GPU runs below its clocks; only reasons that are not normal."""
EVERY = 1.0
"""Seconds between two readings."""
FIRST = 2.0
"""Seconds of training before the first reading: until then the clocks still rise."""
SHARE = 0.1
"""A trial is worthless if the GPU was slowed down in more than this share of the readings."""
ANSWER_SECONDS = 20.0
"""Seconds after which a silent driver counts as not answering."""


@dataclass(frozen=True)
class Reading:
    """The state of a GPU at one moment. Values that the driver does not know are 0 or empty.

    Attributes:
        temperature: In degrees Celsius.
        clock: Of the multiprocessors, in MHz.
        top_clock: Their highest clock, in MHz.
        slowed: Why the hardware slowed it down; empty if it did not.
        strangers: Process numbers of other programs that compute there.
    """

    temperature: float
    clock: float
    top_clock: float
    slowed: str
    strangers: tuple[int, ...]


class Health:
    """Reads one GPU, by the module `pynvml` and its handle of the GPU; `find` makes one."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @staticmethod
    def find(device: str) -> Health | None:
        """Reads the GPU that CUDA calls `device`, such as "cuda:1"; None where the driver does not answer."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            handle = _handle(pynvml, named(int(device.partition(":")[2] or 0)))
            health = None if handle is None else Health(pynvml, handle)
            if health is not None:
                health.read()
        except (pynvml.NVMLError, UserError):
            return None
        return health

    @property
    def name(self) -> str:
        """The maker's name of the GPU."""
        return str(self._nvml.nvmlDeviceGetName(self._handle))

    @property
    def memory(self) -> int:
        """Memory of the GPU in bytes, used or not; 0 if the driver does not know."""
        found = self._known(self._nvml.nvmlDeviceGetMemoryInfo, default=None)
        return int(found.total) if found else 0

    def read(self) -> Reading:
        """Take a reading.

        Raises:
            UserError: If the GPU or its driver does not answer.
        """
        answers: SimpleQueue[Reading | Exception] = SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._read())
            except Exception as error:
                answers.put(error)

        # In a separate thread, because a driver that hangs would stop the search.
        threading.Thread(target=ask, name="gpu-reading", daemon=True).start()
        try:
            answer = answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            raise UserError(f"The GPU has not answered within {ANSWER_SECONDS:g} s.", _HINT, code=3) from None
        if isinstance(answer, Exception):
            raise UserError(f"The GPU does not answer: {answer}.", _HINT, code=3) from answer
        return answer

    def _read(self) -> Reading:
        nvml = self._nvml
        bits = int(self._known(nvml.nvmlDeviceGetCurrentClocksThrottleReasons))
        apps = self._known(nvml.nvmlDeviceGetComputeRunningProcesses, default=())
        return Reading(
            temperature=float(self._known(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)),
            clock=float(self._known(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
            top_clock=float(self._known(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM)),
            slowed=", ".join(dict.fromkeys(name for bit, name in SLOWED.items() if bits & bit)),
            strangers=_strangers(app.pid for app in apps),
        )

    def _known(self, function: Any, *arguments: Any, default: Any = 0) -> Any:
        """The driver's answer; the default if this GPU does not give one, or not to this user."""
        try:
            return function(self._handle, *arguments)
        except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_NoPermission):
            return default


@dataclass
class Watch:
    """Takes readings while a trial trains. Use it as a context.

    Attributes:
        readings: In order.
        lost: Why the GPU stopped answering; empty while it answers.
    """

    health: Health
    readings: list[Reading] = field(default_factory=list)
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
        """Called when the training starts."""
        self._training.set()

    def end(self) -> None:
        """Called when the training is over; later readings do not count."""
        self._over.set()

    def read(self) -> None:
        """Take one more reading.

        Raises:
            UserError: If the GPU does not answer.
        """
        self.readings.append(self.health.read())

    @property
    def problem(self) -> str:
        """Why the trial's result is worthless, as a sentence; empty if it is not."""
        if strangers := self._strangers():
            return f"other processes used the GPU: {', '.join(map(str, strangers))}"
        slowed = [reading.slowed for reading in self.readings if reading.slowed]
        if len(slowed) > SHARE * len(self.readings):
            return f"the GPU was slowed down ({slowed[-1]})"
        return ""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The readings as metrics of the trial."""
        if not self.readings:
            return {}
        clocks = [reading.clock for reading in self.readings if reading.clock]
        known = {"clock_mhz": mean(clocks), "clock_min_mhz": min(clocks)} if clocks else {}
        return {
            **known,
            "gpu_temperature": max(reading.temperature for reading in self.readings),
            "gpu_top_clock_mhz": self.readings[-1].top_clock,
            "gpu_slowed": sum(bool(reading.slowed) for reading in self.readings) / len(self.readings),
            "gpu_strangers": float(len(self._strangers())),
        }

    def _strangers(self) -> list[int]:
        return sorted({pid for reading in self.readings for pid in reading.strangers})

    def _run(self) -> None:
        self._training.wait()
        pause = FIRST
        while not self._over.wait(pause):
            pause = EVERY
            try:
                self.read()
            except UserError as error:
                self.lost = str(error)
                return


def _handle(nvml: Any, name: str) -> Any:
    """The GPU with this number or (beginning of a) UUID; None if there is none."""
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    return next((handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(name)), None)


def _strangers(pids: Iterable[int]) -> tuple[int, ...]:
    """The processes that exist and do not descend from this process."""
    return tuple(sorted(pid for pid in set(pids) if psutil.pid_exists(pid) and not _ours(pid)))


def _ours(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return pid == os.getpid() or os.getpid() in (parent.pid for parent in process.parents())
    except psutil.Error:
        return True  # it has ended and cannot disturb a trial


_HINT = (
    "See what nvidia-smi says; a GPU that has fallen off the bus needs a reset or a restart of the machine."
)
