"""GPU device nodes that a candidate needs, and one probe of whether CUDA answers.

Untested here: no GPU was at hand when this was written. The list of nodes follows what NVIDIA's own
container runtime passes through; AMD's are the two nodes that ROCm documents.
"""

from __future__ import annotations

from pathlib import Path

PATTERNS = (
    "nvidia[0-9]*",
    "nvidiactl",
    "nvidia-uvm",
    "nvidia-uvm-tools",
    "nvidia-modeset",
    "nvidia-caps",
    "kfd",
    "dri",
    "dxg",
)


def device_nodes() -> list[Path]:
    """Device nodes of the GPUs that this machine has; empty without one."""
    return sorted(node for pattern in PATTERNS for node in Path("/dev").glob(pattern))
