"""What every jail shows read-only: the interpreter, the system libraries, and the packages that it names.

Invariant: no user data is shown: no home folder, no repository, no runs. Of `/etc` it shows only what the
dynamic linker, the compiler's alternatives and the clock need; of an interpreter's installation its programs
and libraries; and of the packages installed there only `Jail.packages` and their requirements, since others
may hold anything, even the data that candidates are scored on.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from autoresearch.execute.sandbox.base import Jail

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
INSTALLATION = ("bin", "lib", "lib32", "lib64", "include", "share/zoneinfo", "pyvenv.cfg")
SITES = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages")

LAUNCHER = Path(__file__).with_name("launch.py")
RESTRICTIONS = Path(__file__).with_name("restrictions.py")


@cache
def roots() -> tuple[Path, ...]:
    """Paths that are shown, except those in `sites`; includes symbolic links of the system."""
    system = [Path(p) for p in (*SYSTEM, *CPU)] + [Path("/etc", name) for name in ETC]
    installed = [home / name for home in _homes() for name in INSTALLATION]
    own = [path for path in installed if not any(path.is_relative_to(folder) for folder in SYSTEM)]
    return tuple(path for path in dict.fromkeys([*system, *own]) if path.exists())


@cache
def sites() -> tuple[Path, ...]:
    """Folders of installed packages below the roots: hidden, except `packages`."""
    homes = [*_homes(), Path("/usr"), Path("/usr/local")]
    found = [site for home in homes for pattern in SITES for site in home.glob(pattern)]
    return tuple(dict.fromkeys(site for site in found if site.is_dir() and site.resolve() == site))


@cache
def packages(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Files and folders of these installed distributions and of their requirements."""
    found: dict[str, Distribution] = {}
    pending = list(names)
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name not in found:
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                continue
            pending += _requirements(found[name])
    return tuple(sorted({path for package in found.values() for path in _entries(package)}))


@cache
def folders(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Where installed packages of these names lie, for a backend that cannot hide all but a few."""
    return tuple(site / name for site in sites() for name in names if (site / name).exists())


def launcher(jail: Jail, **restrictions: object) -> list[str]:
    """The command that sets the limits of a jail, and then becomes the command appended to it.

    Args:
        jail: What the candidate may touch.
        **restrictions: What else the launcher is to do; see `launch.py`.
    """
    told = {"env": dict(jail.env), "cwd": str(jail.cwd), "fds": jail.fds, "gpu": jail.gpu}
    spec = {**told, "limits": asdict(jail.limits), **restrictions}
    return [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(spec), "--"]


def around(root: Path, hidden: tuple[Path, ...]) -> Iterator[Path]:
    """Paths that together cover `root` except the hidden folders, for a backend that can only add paths.

    Links are left out: a link may lead to a hidden folder, and visible targets are shown in their own place.
    """
    if root in hidden or root.is_symlink():
        return
    if not any(folder.is_relative_to(root) for folder in hidden):
        yield root
        return
    for child in sorted(root.iterdir()):
        yield from around(child, hidden)


def _homes() -> list[Path]:
    """The running interpreter's environment and its base installation, with links resolved too."""
    homes = [Path(sys.prefix), Path(sys.exec_prefix), Path(sys.base_prefix), Path(sys.base_exec_prefix)]
    homes.append(Path(sys.executable).resolve().parent.parent)
    return list(dict.fromkeys([*homes, *(home.resolve() for home in homes)]))


def _requirements(package: Distribution) -> list[str]:
    """Names of what a package requires, optional extras left out."""
    wanted = [line for line in package.requires or () if "extra ==" not in line]
    return [match.group() for line in wanted if (match := re.match(r"[A-Za-z0-9._-]+", line))]


def _entries(package: Distribution) -> Iterator[Path]:
    """What a package put directly into its site folder."""
    site = Path(str(package.locate_file("")))
    for name in {file.parts[0] for file in package.files or ()}:
        if name not in ("..", "__pycache__") and (site / name).exists():
            yield site / name
