"""The sandbox seam: what a jail is, and what a backend does.

A backend turns a command and a `Jail` into the command that the runner starts. The jail lists everything that
a candidate may touch; all else must be out of reach. `probe.py` measures how well a backend keeps that
promise on this machine.

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
    """Everything that a candidate may touch, besides the interpreter and the system libraries.

    Attributes:
        read_only: Files and folders it may read, at the same paths as outside; none inside a writable one.
        writable: Folders it may write, at the same paths as outside; they must exist.
        env: Its whole environment; nothing is inherited. Point HOME and TMPDIR into a writable folder.
        cwd: Where it starts; inside one of the folders above.
        fds: Descriptors it inherits, besides 0, 1 and 2.
        gpu: Whether it may use the GPU's device nodes.
        limits: How much of the host it may use.
        only: The only GPU that it sees, as `nvidia-smi --id` takes it; empty: all.
        packages: Installed distributions that it may import; they are shown with their requirements.
        hidden: Installed packages that it must not read, for a backend that cannot hide all but `packages`.
    """

    read_only: tuple[Path, ...]
    writable: tuple[Path, ...]
    env: Mapping[str, str]
    cwd: Path
    fds: tuple[int, ...]
    gpu: bool
    limits: Limits
    only: str = ""
    packages: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for path in (*self.read_only, *self.writable):
            if not path.is_absolute():
                raise ValueError(f"a jail needs absolute paths, not {path}")
        for path in self.read_only:
            if any(path.is_relative_to(folder) for folder in self.writable):
                raise ValueError(f"{path} cannot be read-only inside a writable folder")


@dataclass(frozen=True)
class Protection:
    """One protection of a backend, and whether it holds here.

    Attributes:
        name: The protection in a few words, such as "no network".
        held: Whether it holds.
        how: The means, or what is missing.
    """

    name: str
    held: bool
    how: str


class Sandbox(Protocol):
    """Turns a command into the command that runs it inside a jail."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""

    @property
    def means(self) -> Mapping[str, str]:
        """How it keeps a candidate from each of `probe.THREATS`, in a few words."""

    def __hash__(self) -> int:
        """Equal sandboxes protect alike, so a measurement of one is remembered for the other."""

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command to start instead of `argv`.

        The caller starts it with `pass_fds=jail.fds` and `start_new_session=True`, or better through
        `autoresearch.execute.sandbox.start`, which also watches and kills it.
        """
