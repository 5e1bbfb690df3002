"""What every jail shows read-only: the interpreter, the system libraries, and the packages that it names.

Invariant: no user data is shown: no home folder, no repository, no runs. Of `/etc` it shows only what the
dynamic linker, the compiler's alternatives and the clock need; of an interpreter's installation its programs
and libraries; and of the packages installed there only `Jail.packages` and their requirements, since others
may hold anything, even the data that candidates are scored on. Documentation is not shown either: it is text
on which a candidate could train before the clock starts. And what is shown is small enough that all of it can
be kept in memory (`residency`).
"""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from autoresearch.execute.sandbox import gpu
from autoresearch.execute.sandbox.base import Jail

SYSTEM = (
    "/usr/bin",
    "/usr/sbin",
    "/usr/include",
    "/usr/libexec/gcc",
    "/usr/local/bin",
    "/usr/local/include",
    "/usr/share/zoneinfo",
    "/nix/store",
    "/gnu/store",
    "/opt/cuda",
)
LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""On most systems links into /usr."""
LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib", "/usr/local/lib64")
"""Of these folders, which hold much else, only what loads or compiles programs."""
LIBRARY_FOLDERS = ("gcc", "gcc-*", "*-linux-*", "llvm*", "clang*", "cuda*", "nvidia*", "wsl")
MOST_ENTRIES = 200
"""A folder of libraries with more entries is shown as it is: each would take a mount."""
CPU = tuple(
    f"/sys/devices/system/cpu/{name}" for name in ("online", "possible", "present", "isolated", "kernel_max")
)
"""How many cores there are. What lies beside it counts the use of cores and of memory by everyone."""
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-x86_64.path", "alternatives", "localtime")
DEVICES = ("null", "zero", "full", "random", "urandom")
"""Of the host, below /dev."""
INSTALLATION = ("bin", "lib", "lib32", "lib64", "include", "share/zoneinfo", "pyvenv.cfg")
SITES = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages")
DOCUMENTS = (
    *("test", "idlelib", "turtledemo", "pydoc_data", "ensurepip", "lib2to3", "tkinter", "unittest/test"),
    *("LICENSE.txt", "ctypes/test", "distutils/tests", "sqlite3/test"),
)
"""Of the standard library: what consists of text, or is never needed in a training."""
PACKAGE_DOCUMENTS = ("*.dist-info/licenses", "*.dist-info/LICENSE*", "*/tests", "*/doc", "*/docs")
SYSTEM_DOCUMENTS = ("/usr/lib/*-linux-*/perl", "/usr/lib/*-linux-*/perl5", "/usr/include/*/")
HEADERS = ("c++", "linux", "asm*", "arpa", "net*", "bits", "gnu", "sys", "*-linux-*", "python3*")
"""Folders of headers that a compiler needs here; the others are hidden for their comments."""

PROC_SHOWN = ("self", "thread-self", "net", "mounts", "cpuinfo", "filesystems", "version", "cmdline", "sys")
PROC_FOR_GPU = ("driver", "devices", "modules", "meminfo", "stat")
PROC_MASKED = ("sys/fs", "sys/kernel/ns_last_pid", "sys/kernel/pty", "sys/kernel/random/entropy_avail")
"""Of /proc, what counts the use of the machine by everyone is hidden: it tells what other jails do."""

LONG = 1 << 15
"""Characters from which a specification is compressed."""
LAUNCHER = Path(__file__).with_name("launch.py")
LAUNCHED = tuple(
    Path(__file__).with_name(f"{name}.py") for name in ("launch", "restrictions", "system_calls")
)
"""What runs inside a jail before the candidate."""


@cache
def roots() -> tuple[Path, ...]:
    """Paths that are shown, except those in `sites`; includes symbolic links of the system."""
    system = [Path(name) for name in (*SYSTEM, *CPU)] + [Path("/etc", name) for name in ETC]
    system += Path("/usr/local").glob("cuda*") if gpu.device_nodes() else []
    folders = [Path(name) for name in LIBRARIES]
    for folder in map(Path, LINKS):
        (system if folder.is_symlink() else folders).append(folder)
    system += [path for folder in folders for path in _libraries(folder)]
    installed = [home / name for home in _homes() for name in INSTALLATION]
    shared = (Path("/usr"), Path("/usr/local"))
    own = [path for path in installed if not any(path.is_relative_to(folder) for folder in shared)]
    return tuple(path for path in dict.fromkeys([*system, *own]) if path.exists())


def _libraries(folder: Path) -> list[Path]:
    """What is shown of a folder of libraries: its files, and the folders that loaders and compilers need."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    patterns = (*LIBRARY_FOLDERS, *([mine] if folder.parent in _homes() else []))
    found = [
        path
        for path in sorted(folder.iterdir())
        if not path.is_dir() or any(path.match(pattern) for pattern in patterns)
    ]
    return found if len(found) <= MOST_ENTRIES else [folder]


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
def documents(names: tuple[str, ...]) -> tuple[Path, ...]:
    """Text below what `roots` and `packages(names)` show, which is hidden."""
    standard = {home / f"lib/python{sys.version_info.major}.{sys.version_info.minor}" for home in _homes()}
    found = [library / name for library in standard for name in DOCUMENTS]
    for site in {path.parent for path in packages(names)}:
        shown = {path for path in packages(names) if path.parent == site}
        texts = [path for pattern in PACKAGE_DOCUMENTS for path in site.glob(pattern)]
        found += [path for path in texts if any(path.is_relative_to(entry) for entry in shown)]
    system = [path for pattern in SYSTEM_DOCUMENTS for path in Path("/").glob(pattern[1:])]
    found += [path for path in system if not any(path.match(f"include/{name}") for name in HEADERS)]
    return tuple(sorted({path for path in found if path.exists() and path.resolve() == path}))


def masked_proc(*, with_gpu: bool) -> list[Path]:
    """What is hidden of a /proc with process numbers of its own."""
    shown = PROC_SHOWN + (PROC_FOR_GPU if with_gpu else ())
    names = [path for path in Path("/proc").iterdir() if not path.name.isdigit() and path.name not in shown]
    return [path for path in (*names, *(Path("/proc", name) for name in PROC_MASKED)) if path.exists()]


def shared_proc(*, with_gpu: bool) -> list[Path]:
    """What is shown of /proc and is the same in every /proc, its modes included, which root could change."""
    names = ("cpuinfo", "filesystems", "version", "cmdline", *(PROC_FOR_GPU if with_gpu else ()))
    return [path for path in (Path("/proc", name) for name in names) if path.exists()]


@cache
def readable(names: tuple[str, ...], others: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Files and folders that every jail with these packages can read, which `residency` keeps in memory.

    Args:
        names: As in `Jail.packages`.
        others: More folders that it can read.
    """
    shown = [path for path in (*roots(), *packages(names), *others) if not path.is_relative_to("/sys")]
    hidden = (*sites(), *documents(names))
    return tuple(dict.fromkeys(path for root in shown for path in around(root, hidden)))


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
    return [sys.executable, "-I", "-S", str(LAUNCHER), as_word(spec), "--"]


def as_word(spec: Mapping[str, object]) -> str:
    """The word from which the launcher reads a specification (`launch.read_spec`).

    Linux allows 128 KB a word; bare Landlock lists thousands of paths, which may all be long.
    """
    text = json.dumps(spec)
    return text if len(text) < LONG else base64.b64encode(zlib.compress(text.encode())).decode()


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


def devices(jail: Jail) -> list[Path]:
    """The host's devices that a jail shows."""
    return [*(Path("/dev", name) for name in DEVICES), *(gpu.device_nodes(jail.only) if jail.gpu else [])]
