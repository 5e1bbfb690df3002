"""What a sandbox is: the words that the runner and the backends share.

A backend turns a command and a `Jail` into the command that the runner really starts. The jail lists
everything a candidate may touch; what it does not list must be out of reach. How well a backend keeps that
promise is data too (`Protection`), so that `doctor` and the search can tell the person.

Not covered here: starting, watching and killing processes (`process.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Limits:
    """How much of the host one candidate process tree may use.

    Attributes:
        memory_gb: Main memory of the whole tree, in 10^9 bytes.
        processes: Processes and threads of the whole tree.
        file_gb: Largest single file, and also everything in the writable folders together, in 10^9 bytes.
        open_files: Descriptors a process may hold.
    """

    memory_gb: float
    processes: int
    file_gb: float
    open_files: int


@dataclass(frozen=True)
class Jail:
    """All that a candidate may touch, besides the interpreter and the system libraries.

    Attributes:
        read_only: Files and folders it may read, at the same paths as outside.
        writable: Folders it may write, at the same paths as outside; they must exist.
        env: Its whole environment; nothing is inherited. Point HOME and TMPDIR into a writable folder.
        cwd: Where it starts; inside one of the folders above.
        fds: Descriptors it inherits, besides 0, 1 and 2.
        gpu: Whether it may use the GPU's device nodes.
        limits: How much of the host it may use.
    """

    read_only: tuple[Path, ...]
    writable: tuple[Path, ...]
    env: Mapping[str, str]
    cwd: Path
    fds: tuple[int, ...]
    gpu: bool
    limits: Limits


@dataclass(frozen=True)
class Protection:
    """One thing that a backend does, or does not, keep a candidate from doing here.

    Attributes:
        name: What is protected, in a few words, e.g. "network".
        held: Whether it is.
        how: By what means, or what is missing.
    """

    name: str
    held: bool
    how: str


class Sandbox(Protocol):
    """Turns a command into the command that runs it inside a jail."""

    name: str

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command to start instead of `argv`.

        The caller starts it with `pass_fds=jail.fds` and `start_new_session=True`, or better through
        `autoresearch.run.sandbox.start`, which also watches and kills it.
        """

    def protections(self) -> tuple[Protection, ...]:
        """What this backend protects on this machine, and what it does not."""
