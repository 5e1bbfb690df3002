"""The last trusted code before a candidate: sets the given restrictions, and becomes the candidate.

Run as a file by an isolated interpreter (`python -I -S launch.py SPEC -- COMMAND...`), inside bubblewrap or
alone; so it imports nothing but the standard library and its neighbours `restrictions.py` and
`system_calls.py`. SPEC is JSON, or that compressed (`read_spec`):

    env, cwd, fds, gpu, limits   as in `Jail`
    fresh_user                   whether a user namespace was made already (by bubblewrap)
    namespaces                   names from `NAMESPACES`, to be entered first; none if empty
    writable                     folders that stay writable when everything else is made read-only
    proc                         whether to mount a /proc of its own
    hide, show                   folders that appear empty, and the paths in them that are shown all the same
    fixed                        mounts that nobody shall change (where bubblewrap made them)
    mask                         files and folders that appear empty, after all these mounts
    landlock                     null, or the arguments of `restrictions.landlock`, a list of paths each
    seccomp                      null, or the arguments of `system_calls.seccomp`

If any restriction fails, the launcher ends with status 125 and a line on standard error: a candidate never
runs with fewer restrictions.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import importlib.util
import json
import os
import resource
import select
import signal
import stat
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

NAMESPACES = {
    "mount": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
LINUX = sys.platform.startswith("linux")
THREADS = "/proc/self/task"
"""CUDA writes the names of its threads here when it starts."""
SHM_SIZE = "256m"
FAILED = 125


def main() -> None:
    """Carry out the specification, then become the command."""
    spec = read_spec(sys.argv[1])
    command = sys.argv[sys.argv.index("--") + 1 :]
    close_descriptors(spec["fds"])
    if "fixed" in spec:
        fix_mounts(spec["fixed"])
    with contextlib.suppress(OSError):  # if memory runs out, the kernel kills the candidate first
        Path("/proc/self/oom_score_adj").write_text("1000")
    if spec.get("namespaces"):
        enter_namespaces(spec)
    fork_candidate()
    if spec["gpu"] and "mount" in spec.get("namespaces", ()):
        libc = ctypes.CDLL(None, use_errno=True)
        mount(libc, THREADS, THREADS, None, MS_BIND)
        set_readonly(libc, THREADS, False)
    os.chdir(spec["cwd"])
    fresh = spec.get("fresh_user") or "user" in spec.get("namespaces", ())
    set_limits(spec["limits"], gpu=spec["gpu"], fresh_user=bool(fresh))
    if spec.get("landlock") or spec.get("seccomp"):
        restrictions = load_neighbour("restrictions")
        restrictions.drop_privileges()
        if spec.get("landlock"):
            restrictions.landlock(**spec["landlock"])
        if spec.get("seccomp"):
            load_neighbour("system_calls").seccomp(**spec["seccomp"])
    os.execvpe(command[0], command, spec["env"])


def read_spec(word: str) -> dict[str, Any]:
    """The specification in a word: JSON, or base 64 of it compressed, since a word may not be very long."""
    if not word.startswith("{"):
        word = zlib.decompress(base64.b64decode(word)).decode()
    spec: dict[str, Any] = json.loads(word)
    return spec


def fix_mounts(paths: list[str]) -> None:
    """Make mounts read-only, and give up the right to mount.

    Devices stay usable. What cannot be changed any more is their times and modes, which are the host's: one
    jail could leave notes in them for another, and one of root could close /dev/null to all users.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for path in paths:
        try:
            set_readonly(libc, path, True)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # before Linux 5.12
                raise
    load_neighbour("restrictions").drop_privileges()


def load_neighbour(name: str) -> ModuleType:
    """A file beside this one, by its path: an isolated interpreter does not look beside the script."""
    found = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    if found is None or found.loader is None:
        raise OSError(f"{name}.py is missing beside launch.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # where its classes look for their own module
    found.loader.exec_module(module)
    return module


def set_limits(limits: dict[str, float], *, gpu: bool, fresh_user: bool) -> None:
    """Set the system's resource limits for this process and all that it starts.

    Args:
        limits: The fields of `Limits`.
        gpu: CUDA reserves address space far beyond what it uses, so no memory limit can be set here.
        fresh_user: Whether this runs in a user namespace of its own, where processes are counted from zero.
            Elsewhere the limit counts all threads of the user, so the present ones are added.
    """
    already = 0 if fresh_user else count_tasks()
    wanted = {
        # With 0, a program that collects core dumps for the whole machine would still be started, outside.
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_FSIZE: int(limits["file_gb"] * 1e9),
        resource.RLIMIT_NOFILE: int(limits["open_files"]),
        resource.RLIMIT_NPROC: int(limits["processes"]) + already,
    }
    if not gpu:
        wanted[resource.RLIMIT_DATA] = int(limits["memory_gb"] * 1e9)
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # not every system has every limit
            resource.setrlimit(kind, (value, value))


def count_tasks() -> int:
    """Threads that this user runs now; 0 where there is no /proc."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid == os.getuid():
                count += sum(1 for _ in (process / "task").iterdir())
    return count


def close_descriptors(keep: list[int]) -> None:
    """Close every descriptor but 0, 1, 2 and `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, os.sysconf("SC_OPEN_MAX")))


def enter_namespaces(spec: dict[str, Any]) -> None:
    """Enter new namespaces; returns in the first process of the new PID namespace.

    The calling process waits and passes on the exit status; if it is killed, the new one is killed too.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    names = spec["namespaces"]
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(ctypes.c_int(sum(NAMESPACES[name] for name in names))), "unshare")
    if "user" in names:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    alive, held = os.pipe()
    first = os.fork()
    if first:
        close_descriptors([held])
        end_like(first)
    os.close(held)
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if select.select([alive], [], [], 0)[0]:  # the parent died before the kernel could tie this process to it
        os._exit(FAILED)
    os.close(alive)
    if "mount" in names:
        mount_all(libc, spec)


def fork_candidate() -> None:
    """Keep this process as the keeper of the tree; returns in the child that becomes the candidate.

    In a PID namespace the keeper is the first process: when it ends, the kernel kills all other processes
    inside. Elsewhere the keeper adopts orphans below it, and kills them itself.
    """
    keeper = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    if LINUX:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the candidate must not read the keeper's memory
    candidate = os.fork()
    if candidate:
        close_descriptors([])
        if LINUX and os.getpid() != 1:  # no namespace dies with this process: it takes the tree along itself
            signal.signal(signal.SIGTERM, end_all)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        end_like(candidate)
    if LINUX:
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(FAILED)


def end_like(child: int) -> NoReturn:
    """Wait for a child, reap all others that end, kill the rest, and end with the child's status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    if os.getpid() != 1:
        kill_adopted()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def end_all(*_: object) -> NoReturn:
    """Kill the candidate and all that it has started: the process that had started this one is gone."""
    kill_adopted()
    os._exit(FAILED)


def kill_adopted() -> None:
    """Kill and reap children until there are none; the children of each become ours in turn."""
    with contextlib.suppress(OSError):
        while True:
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            os.wait()


def mount_all(libc: ctypes.CDLL, spec: dict[str, Any]) -> None:
    """Make every mount read-only except the writable folders, hide folders, and mount a new /dev/shm.

    Landlock does not govern modes, owners and times of files; read-only mounts do.
    """
    writable: list[str] = spec["writable"]
    mount(libc, "none", "/", None, MS_REC | MS_PRIVATE)
    shown = [(path, os.open(path, os.O_PATH)) for path in spec["show"]]
    for folder in spec["hide"]:
        mount(libc, "tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for path, source in shown:
        if not Path(path).exists():
            make_empty(path, folder=stat.S_ISDIR(os.fstat(source).st_mode))
            mount(libc, f"/proc/self/fd/{source}", path, None, MS_BIND | MS_REC)
        os.close(source)
    for folder in writable:
        mount(libc, folder, folder, None, MS_BIND | MS_REC)
    if spec["proc"]:
        mount(libc, "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in spec["mask"]:
        if Path(path).is_dir():
            mount(libc, "tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        else:
            mount(libc, "/dev/null", path, None, MS_BIND)
    set_readonly(libc, "/", True, AT_RECURSIVE)
    for folder in writable:
        set_readonly(libc, folder, False)
    if Path("/dev/shm").is_dir() and not any(folder.startswith("/dev/shm/") for folder in writable):
        mount(
            libc, "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={SHM_SIZE}"
        )


def mount(
    libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    """Mount something."""
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    text = None if data is None else data.encode()
    check(libc.mount(*words, ctypes.c_ulong(flags), text), f"mount {target}")


def set_readonly(libc: ctypes.CDLL, target: str, value: bool, flags: int = 0) -> None:
    """Make a mount read-only, or writable again."""
    values = (ctypes.c_uint64 * 4)(*((MOUNT_ATTR_RDONLY, 0) if value else (0, MOUNT_ATTR_RDONLY)), 0, 0)
    result = libc.syscall(MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, values, ctypes.c_size_t(32))
    check(result, f"mount_setattr {target}")


def make_empty(path: str, *, folder: bool) -> None:
    """Make something empty on which a file or folder can be mounted."""
    if folder:
        Path(path).mkdir(parents=True)
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()


def check(result: int, what: str) -> None:
    """Raise the error that a C function reported."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, AttributeError) as error:  # the last: no such call in this system's library
        print(f"sandbox: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)
