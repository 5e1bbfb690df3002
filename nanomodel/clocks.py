"""The clock of a GPU while it works, so that throttling is visible in a trial's record.

Read through the driver's own library by ctypes: no package is needed, and a machine without one has no
figures. Not covered: makers other than NVIDIA.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

SM = 1
"""The driver's number of the clock of the multiprocessors (NVML_CLOCK_SM)."""


class Clocks:
    """Samples the clock of one device.

    Attributes:
        samples: What was read so far, in MHz.
    """

    def __init__(self, read: Callable[[], float | None]) -> None:
        self._read = read
        self.samples: list[float] = []

    @classmethod
    def of(cls, device: torch.device) -> Clocks:
        """Clocks of a device; of one that tells nothing, no samples ever."""
        return cls(_reader(device) if device.type == "cuda" else lambda: None)

    def sample(self) -> None:
        """Read the clock once."""
        if (value := self._read()) is not None:
            self.samples.append(value)

    def numbers(self) -> dict[str, float]:
        """Mean and lowest clock, for the record; empty if nothing was read."""
        if not self.samples:
            return {}
        return {"clock_mhz": sum(self.samples) / len(self.samples), "clock_min_mhz": min(self.samples)}


def _reader(device: torch.device) -> Callable[[], float | None]:
    """A function that reads the clock of the multiprocessors of a CUDA device, in MHz."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        handle, value = ctypes.c_void_p(), ctypes.c_uint()
        # By its identity: the driver's numbers are not those that CUDA_VISIBLE_DEVICES leaves to torch.
        found = nvml.nvmlInit_v2() == 0
        found = found and nvml.nvmlDeviceGetHandleByUUID(identity, ctypes.byref(handle)) == 0
    except (OSError, AttributeError, RuntimeError):
        return lambda: None

    def read() -> float | None:
        failed = nvml.nvmlDeviceGetClockInfo(handle, SM, ctypes.byref(value))
        return None if failed else float(value.value)

    return read if found else lambda: None
