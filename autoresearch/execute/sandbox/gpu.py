"""What a candidate needs to use the GPU from inside a jail, and a probe whether CUDA answers there.

Untested on real hardware: this was written without a GPU, so the probe says in a plain sentence what it
found, and `doctor` prints it. The device nodes are those that NVIDIA's container runtime passes through;
AMD's are the two that ROCm documents. A jail with a GPU has no limit on memory files and address space, since
CUDA uses much of both. It sees /sys, and may write to its own threads' files in /proc (one of them sets how
early the kernel kills it when memory runs out). The driver is a large attack surface that no sandbox reduces.
On a machine with several NVIDIA GPUs, a jail shows only its own GPU, if it is certain which one that is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from autoresearch.execute.sandbox.base import Jail, Limits, Sandbox

NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia-caps")
OTHER_NODES = ("kfd", "dri", "dxg")
VARIABLES = (
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "HIP_VISIBLE_DEVICES",
)
"""Variables of the host that say where its GPU and libraries are."""
CHANGED = ("/proc/self/task",)
"""CUDA writes here when it starts: it names its threads, and gives error 304 if it cannot. Only the
candidate's first process may, since `self` is resolved for it. All of /proc would be too much: if root runs a
search, a candidate could change the kernel's settings in /proc/sys as root."""
DEV, DRIVER = Path("/dev"), Path("/proc/driver/nvidia/gpus")

UNUSABLE = ("CUDA answers outside", "there are NVIDIA devices, but")
"""How `describe` begins where no trial can use the GPU."""

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


def device_nodes(only: str = "") -> list[Path]:
    """Device nodes of the GPUs that this machine has; empty without one.

    Args:
        only: The only GPU whose node is wanted, as `nvidia-smi --id` takes it; empty: all.
    """
    nodes = sorted(node for pattern in (*NODES, *OTHER_NODES) for node in DEV.glob(pattern))
    if found := _find(only):
        others = {node for node in DEV.glob(NODES[0]) if node != found[0]}
        nodes = [node for node in nodes if node not in others]
    return nodes


def named(index: int) -> str:
    """What `nvidia-smi --id` calls a GPU, given its number among those that CUDA_VISIBLE_DEVICES leaves."""
    ours = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return ours[index] if index < len(ours) else str(index)


def inside(only: str) -> str:
    """Name of a GPU in a jail that shows no other: numbers would begin at 0 there, names stay."""
    found = _find(only)
    return found[1] if found else only


def _find(only: str) -> tuple[Path, str] | None:
    """Node and full name of a GPU; None if it is not certain which GPU is meant.

    That is so where GPUs are divided (MIG), and where the driver names GPUs without a node, as in a container
    that has only some of them.
    """
    divided = len(list(DEV.glob("nvidia-caps/nvidia-cap*"))) > 2  # two are there to ask for it
    gpus = []
    for about in sorted(DRIVER.glob("*/information")):
        name = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]{36})$", about.read_text(errors="replace"), re.M)
        minor = re.search(r"^Device Minor:\s*(\d+)$", about.read_text(errors="replace"), re.M)
        if name is None or minor is None:
            return None
        gpus.append((DEV / f"nvidia{minor[1]}", name[1]))  # folders are named by bus, the order of nvidia-smi
    if divided or not only or {node for node, _ in gpus} != set(DEV.glob(NODES[0])):
        return None
    if only.isdigit():
        return gpus[int(only)] if int(only) < len(gpus) else None
    matches = [gpu for gpu in gpus if gpu[1].startswith(only)]
    return matches[0] if len(matches) == 1 else None


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
