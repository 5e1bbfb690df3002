"""What a candidate needs to use the GPU from inside a jail, and one probe of whether CUDA answers there.

Untested on real hardware: no GPU was at hand when this was written, so the probe says in a plain sentence
what it found, and `doctor` prints it. The device nodes are those that NVIDIA's container runtime passes
through; AMD's are the two that ROCm documents. A jail with a GPU has no limit on memory files and address
space, both of which CUDA uses freely, and sees /sys; the driver itself is a large surface that no sandbox
narrows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from autoresearch.run.sandbox.base import Jail, Limits, Sandbox

NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps")
OTHER_NODES = ("kfd", "dri", "dxg")
VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES")

PROBE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
error = cuda.cuInit(0)
assert error == 0, f"cuInit gave error {error}"
count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(100)
cuda.cuDeviceGetCount(ctypes.byref(count))
cuda.cuDeviceGet(ctypes.byref(device), 0)
cuda.cuDeviceGetName(name, 100, device)
print(f"{count.value} x {name.value.decode()}")
"""


def device_nodes() -> list[Path]:
    """Device nodes of the GPUs that this machine has; empty without one."""
    return sorted(node for pattern in (*NODES, *OTHER_NODES) for node in Path("/dev").glob(pattern))


def library_folders() -> list[Path]:
    """Folders outside /usr where the driver's libraries may lie: those on LD_LIBRARY_PATH, and NixOS's."""
    named = [Path(word) for word in os.environ.get("LD_LIBRARY_PATH", "").split(":") if word.startswith("/")]
    folders = [folder for folder in (*named, Path("/run/opengl-driver")) if folder.is_dir()]
    return [folder for folder in dict.fromkeys(folders) if folder not in (Path("/"), Path.home())]


def environment() -> dict[str, str]:
    """Variables that a candidate needs to find the GPU; part of its jail's `env`."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def describe(sandbox: Sandbox) -> str:
    """Whether CUDA answers inside this sandbox, as a sentence for a person."""
    nodes = device_nodes()
    if not any(node.name.startswith("nvidia") for node in nodes):
        return "no NVIDIA device on this machine" + (f"; not probed: {nodes[0]}" if nodes else "")
    inside = _ask(sandbox)
    if inside.startswith("ok "):
        return f"CUDA answers inside the sandbox: {inside[3:]}"
    outside = _ask(None)
    if outside.startswith("ok "):
        return f"CUDA answers outside the sandbox ({outside[3:]}) but not inside: {inside}"
    return f"there are NVIDIA devices, but CUDA does not answer: {outside}"


def _ask(sandbox: Sandbox | None) -> str:
    """Ask for the devices; the answer begins with "ok", or is the last line of what went wrong."""
    argv = [sys.executable, "-I", "-c", PROBE]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        env = {"HOME": scratch, "TMPDIR": scratch, **environment()}
        if sandbox is not None:
            limits = Limits(memory_gb=16.0, processes=256, file_gb=1.0, open_files=1024)
            argv = sandbox.wrap(argv, Jail((), (folder,), env, folder, (), True, limits))
        try:
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if done.returncode == 0:
        return f"ok {done.stdout.strip()}"
    return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
