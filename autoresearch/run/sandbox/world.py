"""The read-only world: the interpreter and the system libraries that every candidate needs.

Invariant: nothing here lies in the user's data. No home folder, no repository, no runs; of `/etc` only what
the dynamic linker, the compiler's alternatives and the clock need. What a virtual environment or a base
interpreter holds is visible, wherever it is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/opt/cuda",
)
CPU = ("/sys/devices/system/cpu", "/sys/devices/system/node")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "alternatives", "localtime")

LAUNCHER = Path(__file__).with_name("launch.py")
WALLS = Path(__file__).with_name("walls.py")


def system_paths() -> list[Path]:
    """System folders as they lie on this machine; some are symbolic links into /usr."""
    paths = [Path(p) for p in (*SYSTEM, *CPU)] + [Path("/etc", name) for name in ETC]
    return [path for path in paths if path.exists()]


def python_paths() -> list[Path]:
    """The running interpreter: its environment, its base installation, and both with links resolved."""
    executable = Path(sys.executable)
    homes = [Path(sys.prefix), Path(sys.exec_prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    homes.append(executable.resolve().parent.parent)
    homes += [home.resolve() for home in homes]
    covered = [Path(p) for p in SYSTEM]
    unique = dict.fromkeys(home for home in homes if not any(home.is_relative_to(c) for c in covered))
    return [home for home in unique if home != Path("/")]


def launcher(spec: str) -> list[str]:
    """The command that carries out `spec` (JSON, see `launch.py`) and becomes what is appended to it."""
    return [sys.executable, "-I", "-S", str(LAUNCHER), spec, "--"]
