"""Where trials run: the devices of this machine, as configured.

Decides how many trials run at a time: one on each GPU, or up to two on a CPU. Reads all settings of devices
and threads.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from platform import processor

from autoresearch.config import Config, has_gpu
from autoresearch.errors import UserError
from autoresearch.execute import is_remote
from autoresearch.execute.health import Health

CPU_WORKERS = 2
"""Largest number of trials at a time on a CPU, one thread each. Models this small train no faster on several
threads (docs/benchmarks.md), and a judge seldom asks for more than two trials at once."""


def places(config: Config) -> dict[str, str]:
    """Where trials can run at the same time: name of the place -> device.

    Raises:
        UserError: If the configuration contradicts itself.
    """
    where, executor = device(config), config.executor
    if is_remote(executor.name):  # each worker has one place, whatever this machine has
        return {where: "cpu" if where == "cpu" else f"{where}:0"}
    if where == "cpu":
        if executor.devices is not None:
            raise UserError(
                "executor.devices names GPUs, but trials run on the CPU.",
                "Leave it out; executor.workers=2 trains two candidates at a time there.",
            )
        workers = executor.workers or min(CPU_WORKERS, cores())
        names = [f"cpu:{i}" for i in range(workers)] if workers > 1 else ["cpu"]
        return dict.fromkeys(names, "cpu")
    if (executor.workers or 1) > 1:
        raise UserError(
            "executor.workers is for trials on the CPU; a GPU trains one candidate at a time.",
            "For several GPUs: executor.devices=[0,1]",
        )
    if executor.devices is None:
        return {where: f"{where}:0"}  # else CUDA takes its fastest, the driver its first
    if not executor.devices or len(set(executor.devices)) < len(executor.devices):
        raise UserError(
            f"executor.devices={list(executor.devices)} must name each GPU once, and one at least."
        )
    return {f"{where}:{i}": f"{where}:{i}" for i in executor.devices}


def device(config: Config) -> str:
    """Where trials run: "cpu" or "cuda"."""
    if config.executor.device != "auto":
        return config.executor.device
    return "cuda" if has_gpu() else "cpu"


def require_device(config: Config) -> None:
    """Check that this machine shows a GPU, if trials are to run on one.

    Raises:
        UserError: If it does not.
    """
    if config.executor.device == "cuda" and not has_gpu() and not is_remote(config.executor.name):
        raise UserError(
            "executor.device=cuda, but this machine shows no GPU.",
            "See what `autoresearch doctor` says, and CUDA_VISIBLE_DEVICES. Left out, trials run on the CPU.",
            code=3,
        )


def threads(config: Config) -> int:
    """CPU threads of a trial: the setting; else one on a CPU, or its share of the cores beside a GPU."""
    if config.executor.threads is not None or device(config) == "cpu":
        return config.executor.threads or 1
    return share(config)


def score_alone(config: Config) -> bool:
    """Whether no other candidate's process runs while a model is scored; costs little with one place."""
    wanted = config.executor.score_alone
    return len(places(config)) == 1 if wanted is None else wanted


def share(config: Config) -> int:
    """The cores of one place. A model server uses all: scoring, unlike training, is faster on several."""
    return max(1, cores() // len(places(config)))


def cores() -> int:
    """CPU cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return allowed or 1


@lru_cache
def fingerprint(device: str) -> str:
    """A name for the kind of device: scores of trials on different kinds may not be comparable.

    Args:
        device: "cpu", or a GPU such as "cuda:1".
    """
    if device != "cpu":
        health = Health.find(device)
        return health.name if health else device.partition(":")[0]
    cpus = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpus.read_text()) if cpus.exists() else None
    return named[1].strip() if named else processor() or "CPU"
