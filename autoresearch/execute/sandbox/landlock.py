"""Landlock and namespaces, straight from the kernel: nothing to install.

Invariant: the candidate opens nothing but the interpreter, the system libraries, and what its jail lists.
Where the kernel lets an ordinary user make namespaces, it also sees no other process, has no network, and
finds every mount but its writable folders read-only; its tree dies with its first process. Where it does
not (inside most containers), seccomp takes their place: no sockets at all, no leaving the process group, no
changing the modes or owners of files. Installed packages are visible then, except for `Jail.hidden` and
documentation.

Weaker than bubblewrap in one respect: Landlock does not hide names. A candidate cannot read or list your
folders, but it can ask whether a path exists, how large and how old it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autoresearch.execute.sandbox import gpu, visible
from autoresearch.execute.sandbox.base import Jail

NAMESPACES = ("user", "pid", "net", "ipc", "uts", "mount")
PROC_FILES = ("cpuinfo", "filesystems", "self", "sys/vm/overcommit_memory", "sys/kernel/random", "version")


@dataclass(frozen=True)
class LandlockSandbox:
    """Runs candidates under Landlock, with as many namespaces as the kernel allows.

    Attributes:
        namespaces: Whether to use namespaces.
        proc: Whether to mount a /proc of its own, which some containers forbid.
    """

    namespaces: bool = True
    proc: bool = True

    name = "landlock"

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command under the launcher's restrictions; see `Sandbox.wrap`."""
        return [*visible.launcher(jail, **self.restrictions(jail)), *argv]

    def restrictions(self, jail: Jail) -> dict[str, Any]:
        """What the launcher is told beside the jail's limits; see `launch.py`."""
        own_proc = self.namespaces and self.proc
        read, split = _system(jail, self.namespaces)
        read += [Path("/proc")] if own_proc else [Path("/proc", name) for name in PROC_FILES]
        if jail.gpu:
            read += [Path("/sys"), *gpu.library_folders()]
            read += [Path("/proc", name) for name in visible.PROC_FOR_GPU]
        devices = visible.devices(jail)
        shm = Path("/dev/shm")  # its own, unless a folder of ours lies there: then it is everybody's
        own_shm = self.namespaces and not any(path.is_relative_to(shm) for path in jail.writable)
        return {
            "namespaces": list(NAMESPACES) if self.namespaces else [],
            "writable": [str(path) for path in jail.writable],
            "proc": own_proc,
            "hide": [str(path) for path in visible.sites()],
            "show": [str(path) for path in _shown(jail.packages)],
            "mask": [
                str(path)
                for path in (
                    *visible.documents(jail.packages),
                    *(visible.masked_proc(with_gpu=jail.gpu) if own_proc else ()),
                )
            ],
            "landlock": {
                "names": [str(path) for path in split],
                "read": [str(path) for path in [*read, *jail.read_only]],
                "write": [str(path) for path in [*jail.writable, *([shm] if own_shm else [])]],
                "devices": [str(path) for path in devices],
                "change": list(gpu.CHANGED) if jail.gpu else [],
            },
            "seccomp": {"memory_files": jail.gpu, "namespaces": self.namespaces},
        }

    @property
    def means(self) -> Mapping[str, str]:
        """How it keeps a candidate from each threat; see `Sandbox.means`."""
        files = (
            "Landlock opens the interpreter, libraries and its scratch folder; names elsewhere can be guessed"
        )
        if self.namespaces:
            return {
                "files": files,
                "changes": "Landlock, and everything but its scratch folder is mounted read-only",
                "network": "a network without interfaces, and no sockets",
                "processes": "process numbers of its own",
                "secrets": "an empty environment, and no other processes in reach",
                "daemons": "the kernel ends everything with the first process",
            }
        return {
            "files": files,
            "changes": "Landlock, and system calls that change modes and owners do nothing",
            "network": "no sockets can be made",
            "processes": "Landlock confines signals and closes /proc",
            "secrets": "an empty environment, and Landlock closes /proc",
            "daemons": "no process can leave its group, and the group is killed",
        }


def _system(jail: Jail, namespaces: bool) -> tuple[list[Path], list[Path]]:
    """Paths that can be read, and further folders whose names can be listed."""
    if not namespaces:
        paths, split = _without_mounts(jail.packages, jail.hidden)
        return list(paths), list(split)
    roots = list(dict.fromkeys(root.resolve() for root in visible.roots()))
    return [*roots, *_shown(jail.packages)], []  # the packages may lie outside the roots


@cache
def _without_mounts(
    packages: tuple[str, ...], hidden: tuple[str, ...]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The same where the launcher cannot hide anything by a mount.

    Landlock can then only leave out some of the paths that it opens. To hide all packages but a few would
    break imports that a library tries and can do without, so only those are hidden that the jail names, and
    documentation; the system's headers are too many.
    """
    shown = dict.fromkeys([*(root.resolve() for root in visible.roots()), *_shown(packages)])
    texts = [path for path in visible.documents(packages) if not path.is_relative_to("/usr/include")]
    closed = (*visible.folders(hidden), *texts)
    split = tuple(path for path in shown if any(below.is_relative_to(path) for below in closed))
    return tuple(path for each in shown for path in visible.around(each, closed)), split


def _shown(packages: tuple[str, ...]) -> list[Path]:
    """The installed packages that are shown, and the launcher's own files."""
    return [*visible.packages(packages), *visible.LAUNCHED]
