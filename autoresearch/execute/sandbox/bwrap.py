"""Bubblewrap: namespaces, read-only mounts, and the launcher's restrictions inside.

Invariant: the candidate sees a new root with the interpreter, the system libraries, and what its jail
lists, at the same paths as outside; its own empty /tmp, /dev, /proc; no network; no capabilities. Killing
bwrap kills everything inside, daemons included, since the candidate's PID namespace dies with it. The
launcher is that namespace's first process, so bwrap ends only after every process inside.

Mounts are made in the order given, and a later one hides what an earlier one put below it: so /tmp, /dev
and /proc come first, then the jail's paths (which often lie below /tmp).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.execute.sandbox import gpu, visible
from autoresearch.execute.sandbox.base import Jail

STREAMS = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
"""Links in /dev, and where they lead below /proc/self."""

TMP_BYTES = 1 << 28
"""Size of the candidate's own /tmp and /dev/shm, which are kept in memory."""


@dataclass(frozen=True)
class BwrapSandbox:
    """Runs candidates in bubblewrap.

    Attributes:
        executable: The bwrap program; found on PATH if not absolute.
    """

    executable: str = "bwrap"

    name = "bwrap"

    @property
    def means(self) -> Mapping[str, str]:
        """How it keeps a candidate from each threat; see `Sandbox.means`."""
        return {
            "files": "a root folder of its own, with the interpreter, libraries and its scratch folder",
            "changes": "everything but its scratch folder is read-only",
            "network": "a network without interfaces, and no sockets",
            "processes": "process numbers of its own",
            "secrets": "an empty environment, and no other processes in sight",
            "daemons": "the kernel ends everything with the first process",
        }

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command inside bubblewrap; see `Sandbox.wrap`."""
        words = [shutil.which(self.executable) or self.executable, "--unshare-all", "--unshare-user"]
        words += ["--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
        # The launcher makes devices read-only, and drops this right. Bubblewrap's own --dev would forbid
        # that, since it makes one more user namespace, and its --remount-ro closes devices.
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
        words += ["--tmpfs", "/dev", "--proc", "/proc"]
        words += [
            word for name, to in STREAMS.items() for word in ("--symlink", f"/proc/self/{to}", f"/dev/{name}")
        ]
        words += _binds("--dev-bind", visible.devices(jail))
        for path in visible.masked_proc(with_gpu=jail.gpu):
            words += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
        words += _binds("--ro-bind", visible.shared_proc(with_gpu=jail.gpu))
        for folder in ("/tmp", "/dev/shm"):
            words += ["--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", folder]
        words += _system(jail.packages)
        if jail.gpu:
            words += _binds("--ro-bind", [Path("/sys"), *gpu.library_folders()])
        words += _binds("--ro-bind", jail.read_only) + _binds("--bind", jail.writable)
        for mount in ("/dev", "/", *map(str, visible.sites())):
            words += ["--remount-ro", mount]
        words += ["--chdir", str(jail.cwd), "--"]
        return [*words, *visible.launcher(jail, **_restrictions(jail)), *argv]


def _binds(flag: str, paths: Iterable[Path]) -> list[str]:
    """Arguments that show paths at the same places as outside."""
    return [word for path in paths for word in (flag, str(path), str(path))]


def _system(packages: tuple[str, ...]) -> list[str]:
    """Arguments that show the system, the interpreter and packages, keeping symbolic links as links."""
    words: list[str] = []
    for path in visible.roots():
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        else:
            words += _binds("--ro-bind", [path])
    words += [word for site in visible.sites() for word in ("--tmpfs", str(site))]
    words += _binds("--ro-bind", [*visible.packages(packages), *visible.LAUNCHED])
    for path in visible.documents(packages):
        words += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)]
    return words


def _restrictions(jail: Jail) -> dict[str, object]:
    """What the launcher still has to do inside; see `launch.py`.

    Bubblewrap's mounts decide what is visible. Landlock protects files behind descriptors: a candidate cannot
    reopen for writing a file of the host that it got for reading.
    """
    return {
        "fresh_user": True,
        "fixed": [str(path) for path in visible.devices(jail)],
        "landlock": {
            "names": [],
            "read": ["/"],
            "write": ["/tmp", "/dev/shm", *(str(path) for path in jail.writable)],
            "devices": ["/dev"],
            "change": list(gpu.CHANGED) if jail.gpu else [],
        },
        "seccomp": {"memory_files": jail.gpu, "namespaces": True},
    }
