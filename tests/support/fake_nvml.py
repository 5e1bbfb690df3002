"""A module that plays `pynvml`: GPUs whose readings a test sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest


class NVMLError(Exception):
    """As in pynvml."""


class NotSupported(NVMLError):
    """This GPU does not tell that."""


class NoPermission(NVMLError):
    """It tells others."""


@dataclass
class FakeNvml:
    """One machine with GPUs.

    Attributes:
        uuids: Of its GPUs, in the order of the driver.
        memory: Of each of them, in bytes.
        asked: Numbers of the GPUs that were looked up.
    """

    uuids: Sequence[str] = ("GPU-aaa", "GPU-bbb", "GPU-ccc", "GPU-abc")
    asked: list[int] = field(default_factory=list)
    memory: int = 80 * 2**30

    def __post_init__(self) -> None:
        self.says()

    def says(
        self,
        *,
        temperature: int | None = 61,
        clock: int | None = 1755,
        top_clock: int = 1980,
        reasons: int | None = 0x4,
        pids: Sequence[int] = (),
        lost: str = "",
    ) -> None:
        """Set the readings; None: the GPU does not tell; `lost`: the error by which all of them fail."""
        self.temperature, self.clock, self.top_clock = temperature, clock, top_clock
        self.reasons, self.pids, self.lost = reasons, tuple(pids), lost

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `import pynvml` find this."""
        module = ModuleType("pynvml")
        module.__dict__.update(
            NVMLError=NVMLError,
            NVMLError_NotSupported=NotSupported,
            NVMLError_NoPermission=NoPermission,
            NVML_TEMPERATURE_GPU=0,
            NVML_CLOCK_SM=1,
            nvmlInit=lambda: None,
            nvmlDeviceGetCount=lambda: len(self.uuids),
            nvmlDeviceGetHandleByIndex=self._handle,
            nvmlDeviceGetUUID=lambda handle: self.uuids[handle],
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=self._tell(self.memory)),
            nvmlDeviceGetName=lambda handle: "NVIDIA Fake",
            nvmlDeviceGetTemperature=lambda handle, sensor: self._tell(self.temperature),
            nvmlDeviceGetClockInfo=lambda handle, kind: self._tell(self.clock),
            nvmlDeviceGetMaxClockInfo=lambda handle, kind: self._tell(self.top_clock),
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: self._tell(self.reasons),
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [
                SimpleNamespace(pid=pid) for pid in self.pids
            ],
        )
        monkeypatch.setitem(sys.modules, "pynvml", module)

    def _handle(self, index: int) -> int:
        if index >= len(self.uuids):
            raise NVMLError("Not Found")
        self.asked.append(index)
        return index

    def _tell(self, value: int | None) -> int:
        if self.lost:
            raise NVMLError(self.lost)
        if value is None:
            raise NotSupported("Not Supported")
        return value
