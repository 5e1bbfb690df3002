"""The machine under the model: device, threads, seeds, compiler, peak speed, peak memory.

A training script should not have to contain any of this. Not covered: several devices.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import hashlib
import os
import platform
import random
import re
import resource
import shutil
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils.hooks import RemovableHandle

PEAK_TFLOPS = {
    # Dense bf16 tensor-core peak from the makers' data sheets; the first name found wins.
    "GB300": 2500.0,
    "B300": 2250.0,
    "GB200": 2500.0,
    "B200": 2250.0,
    "H200 NVL": 835.5,
    "H200": 989.4,
    "GH200": 989.4,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.4,
    "H800": 989.4,
    "H20": 148.0,
    "A100": 311.9,
    "A800": 311.9,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI355X": 2516.6,
    "MI325X": 1307.4,
    "MI300X": 1307.4,
    "MI250X": 383.0,
}


T = TypeVar("T")


def at(cpu: T, gpu: T) -> T:
    """A knob's value at the scale of the device at hand: one script serves both."""
    # A runner that wants the CPU hides the GPUs, so torch sees the right device.
    return gpu if torch.cuda.is_available() else cpu


def choose_device(wanted: str) -> torch.device:
    """The device called "cpu", "cuda", or, for "auto", the GPU if there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    # torch needs the number to set the device; a runner shows one GPU only.
    return torch.device("cuda:0" if wanted == "cuda" else wanted)


def prepare(device: torch.device, threads: int, seed: int) -> None:
    """Set threads and every random generator; let float32 matrix products use tensor cores on a GPU."""
    torch.set_num_threads(threads)
    seed_all(seed)
    if device.type == "cpu":
        keep_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")


def keep_memory() -> None:
    """Make glibc keep freed memory: mapping and clearing logits anew each step costs a third of the time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, mmap_max = -1, -4  # parameter numbers in malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def seed_all(seed: int) -> None:
    """Seed torch (all devices), numpy and the standard library."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def separate_streams(seed: int) -> RemovableHandle:
    """Give each parameter of each module its own stream of random numbers, until the handle is removed.

    A stream depends on the seed, the kind of module, name and shape of the parameter, and how many of those
    came before. So an edit that adds a parameter, or draws random numbers, leaves the initial weights of the
    others as they are: two scripts with the same seed differ by the edit alone.
    """
    counts: Counter[str] = Counter()

    def reseed(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        kind = f"{type(module).__name__}.{name} {tuple(parameter.shape)}"
        digest = hashlib.blake2b(f"{seed} {kind} {counts[kind]}".encode(), digest_size=7).digest()
        counts[kind] += 1
        torch.manual_seed(int.from_bytes(digest, "little"))

    return register_module_parameter_registration_hook(reseed)


def why_no_compiler(device: torch.device) -> str:
    """What `torch.compile` would miss on this machine; empty if nothing."""
    names = ("cc", "gcc", "clang") if device.type == "cuda" else ("g++", "clang++", "c++")
    given = os.environ.get("CC" if device.type == "cuda" else "CXX")
    if not any(shutil.which(name) for name in ((given,) if given else names)):
        return "no C compiler" if device.type == "cuda" else "no C++ compiler"
    # Generated code binds to Python, so its headers are needed as well.
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no Python headers"
    return ""


def use_own_compile_cache() -> str:
    """Compile into a new folder if the usual one cannot be written, for instance as another user made it.

    Returns:
        What to say of that; empty if the usual folder is used.
    """
    usual = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    usual = usual or str(Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}"))
    try:
        Path(usual).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            return ""
    except OSError as error:
        own = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="torchinductor_")
        return f"the compile cache {usual} cannot be written ({error.strerror}): compiling into {own} instead"


def peak_flops(device: torch.device) -> float | None:
    """Peak bf16 operations a second of a device without sparsity; None if unknown (every CPU, for one)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    if "MIG" in name:  # a slice of a GPU: its share of the peak is not in the name
        return None
    return next((1e12 * peak for key, peak in PEAK_TFLOPS.items() if re.search(rf"\b{key}\b", name)), None)


def describe(device: torch.device) -> dict[str, str]:
    """Device and versions, for the record of a measurement."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpus = Path("/proc/cpuinfo")
        text = cpus.read_text() if cpus.exists() else ""
        named = re.search(r"model name\s*:\s*(.+)", text)
        name = f"{named[1] if named else platform.processor() or 'CPU'}, {os.cpu_count()} cores"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def peak_memory_mb(device: torch.device) -> float:
    """Most memory in use so far, in 10^6 bytes: allocated by torch on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far. What was resident on a CPU cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free_memory(device: torch.device) -> None:
    """Return memory of the device that torch holds but does not use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def lock_pages(shared: torch.Tensor, device: torch.device) -> bool:
    """Let a GPU copy to and from shared memory at full speed; if the driver refuses, copies are slower.

    Returns:
        Whether the pages are locked; then they must be unlocked before they are unmapped.
    """
    if device.type != "cuda":
        return False
    if int(torch.cuda.cudart().cudaHostRegister(shared.data_ptr(), shared.nbytes, 0)) == 0:
        return True
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device)  # clears the error, which the next kernel would report otherwise
    return False


def unlock_pages(shared: torch.Tensor) -> None:
    """Undo `lock_pages`."""
    torch.cuda.cudart().cudaHostUnregister(shared.data_ptr())


def compile_or_not(function: Any, **options: Any) -> Any:
    """`torch.compile`; a function that fails to compile runs uncompiled, with torch's own warning."""
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    return torch.compile(function, **options)


def compilations(before: int = 0) -> dict[str, int]:
    """Counts of the compiler in this process; its failures only cost time, so nothing else shows them.

    Args:
        before: `recompiles` at the moment when everything should have been compiled.

    Returns:
        `compiled_graphs`, `graph_breaks`, `compile_failures` (functions that run uncompiled), and
        `recompiles`, functions compiled since `before`.
    """
    from torch._dynamo.utils import counters

    functions = counters["frames"]
    return {
        "compiled_graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
        "compile_failures": functions["total"] - functions["ok"],
        "recompiles": functions["total"] - before,
    }
