"""A jailed process of a kernel trial, as the runner sees it: requests, shared memory, and what it used.

Invariants: the memory of inputs can be written by the runner alone, for as long as the process lives; a
process gets no path and no descriptor of another one's memory; its time is what the kernel counts for its
whole tree, never what it says itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.execute.output import Log, explain
from autoresearch.execute.sandbox import Jail, Limits, Sandbox, start, usage
from autoresearch.execute.sandbox import gpu as gpus

SERVER = Path(__file__).with_name("server.py").read_text("utf-8")
SEALS = 0x10 | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""0x10 is F_SEAL_FUTURE_WRITE (Linux 5.1): who maps the memory from now on can only read it."""
MESSAGE = 150_000
"""Most bytes of a request; what the socket takes at once."""
SLICE = 0.1
"""Seconds between two looks at a process that computes."""
WALL = 4.0
"""A request may take this many times its CPU seconds by the wall clock, and `GRACE` seconds more."""
GRACE = 10.0


class ServerFailed(Exception):
    """A process gave no answer; the message says why."""


@dataclass(frozen=True)
class Setup:
    """What the processes of all trials at one place have in common.

    Attributes:
        sandbox: How they are confined.
        limits: How much of the host each may use.
        packages: What they may import.
        memory: Bytes of inputs, and of outputs, that each shares with the runner.
        core: The core that they run on; None: any.
        gpu: Whether they may use a GPU.
        only: The only GPU that they see; empty: all.
    """

    sandbox: Sandbox
    limits: Limits
    packages: tuple[str, ...]
    memory: int
    core: int | None
    gpu: bool = False
    only: str = ""


class KernelServer:
    """One process that runs `server.py`. Use it as a context: leaving kills its whole tree.

    Attributes:
        inputs: Memory that it can read; the runner writes it.
        outputs: Memory that it can write.
        log: What it prints.
    """

    def __init__(self, setup: Setup, code: Path, folder: Path) -> None:
        """Start it.

        Args:
            setup: How.
            code: The tree that it may read.
            folder: Its scratch and working folder, which it may write.
        """
        (folder / "tmp").mkdir(parents=True)
        self._wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        files = [os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING) for name in ("in", "out")]
        fds = (theirs.fileno(), *files)
        try:
            for file in files:
                os.ftruncate(file, setup.memory)
            self.inputs, self.outputs = (mmap.mmap(file, setup.memory) for file in files)
            fcntl.fcntl(files[0], fcntl.F_ADD_SEALS, SEALS)
            fcntl.fcntl(files[1], fcntl.F_ADD_SEALS, SEALS & ~0x10)
            told = {"socket": fds[0], "inputs": fds[1], "outputs": fds[2], "bytes": setup.memory}
            command = [sys.executable, "-P", "-c", SERVER, json.dumps({**told, "core": setup.core})]
            jail = Jail(
                read_only=(code,),
                writable=(folder,),
                env=_environment(folder, setup),
                cwd=folder,
                fds=fds,
                gpu=setup.gpu,
                limits=setup.limits,
                only=setup.only,
                packages=setup.packages,
            )
            pipe = subprocess.PIPE
            self._jailed = start(setup.sandbox, command, jail, stdout=pipe, stderr=subprocess.STDOUT)
        finally:
            theirs.close()
            for file in files:
                os.close(file)
        assert self._jailed.process.stdout is not None
        self.log = Log(self._jailed.process.stdout)

    def __enter__(self) -> KernelServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._jailed.kill()
        self._wire.close()
        self.inputs.close()
        self.outputs.close()

    @property
    def cpu(self) -> float:
        """CPU seconds that its whole tree has used, as the kernel counts."""
        return self._jailed.cpu_seconds

    @property
    def waited(self) -> float:
        """Seconds that its threads have waited for a core."""
        return sum(usage.waited_seconds(usage.descendants(self._jailed.process.pid)).values())

    @property
    def peak_memory(self) -> int:
        """Most main memory that it was seen to hold, in bytes."""
        return self._jailed.peak_memory

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a request.

        Raises:
            ServerFailed: If the process is gone.
        """
        try:
            self._wire.send(json.dumps(message).encode())
        except OSError:
            raise ServerFailed(self._why()) from None

    def answer(self, seconds: float, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Wait for the answer to a request.

        Args:
            seconds: Most CPU seconds that the process may use for it.
            progress: Called several times a second.

        Raises:
            ServerFailed: If there is none in time, or if the process says that it failed.
        """
        begun, used = time.monotonic(), self.cpu
        poll = select.poll()
        poll.register(self._wire, select.POLLIN)
        while not poll.poll(1000 * SLICE):
            progress()
            spent, wall = self.cpu - used, time.monotonic() - begun
            if spent > seconds or wall > WALL * seconds + GRACE:
                self._jailed.kill()
                raise ServerFailed(f"timeout: no answer after {spent:.1f} s of CPU time in {wall:.1f} s")
        try:
            answer = json.loads(self._wire.recv(1 << 20) or "0")
        except OSError:
            answer = 0
        except (ValueError, RecursionError):
            raise ServerFailed("it sent what is no message") from None
        if answer == 0:
            raise ServerFailed(self._why())
        if not isinstance(answer, dict) or answer.get("type") != "done":
            reason = answer.get("reason") if isinstance(answer, dict) else None
            raise ServerFailed(str(reason or "it sent what is no answer")[:1000])
        return answer

    def ask(
        self, message: Mapping[str, Any], seconds: float, progress: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Send a request, and wait for the answer; see `answer`."""
        self.send(message)
        return self.answer(seconds, progress)

    def _why(self) -> str:
        """Why the process is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._jailed.process.wait(5)
        status = self._jailed.process.poll()
        self._jailed.kill()
        if self._jailed.breach:
            return f"it {self._jailed.breach}"
        return explain(self.log.text(wait=1.0), status)


def _environment(folder: Path, setup: Setup) -> dict[str, str]:
    """The whole environment of a process: nothing of the host's but where its GPU is."""
    one = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
    )
    only = setup.only if setup.sandbox.name == "none" else gpus.inside(setup.only)
    seen = only or ("" if setup.gpu else "-1")
    return {
        "PATH": "/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        **({} if setup.gpu else {"TRITON_INTERPRET": "1"}),
        **({"CUDA_VISIBLE_DEVICES": seen} if seen else {}),
        **(one if setup.core is not None else {}),
    }


def fits(calls: Sequence[object]) -> bool:
    """Whether a request with these calls can be sent."""
    return len(json.dumps(calls)) <= MESSAGE
