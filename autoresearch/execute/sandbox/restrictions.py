"""Sets Landlock and seccomp by raw system calls: restricts a process and all its children.

Runs only inside the launcher, which loads this file by its path, so it imports only the standard library.
Both need `no_new_privs`, and a confined process cannot remove them.

- Landlock (Linux 5.13 and later; Salaün, 2021): files by path, TCP by port (ABI 4), abstract Unix sockets
  and signals (ABI 6). Opening a file again through /proc/self/fd counts as opening its path, so a descriptor
  that was handed over read-only stays read-only.
- seccomp: system calls that no training needs and that lead out of the jail: new sockets, tracing, new
  namespaces, io_uring (which would open sockets behind the filter's back), kernel keyrings, and so on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_CAPBSET_DROP = 38, 22, 2, 24
CAPABILITY_VERSION_3 = 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # the same number on every architecture

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
CHANGE = WRITE_FILE | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV | READ_DIR

FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP_BIND_AND_CONNECT = 3
SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 3


class RestrictionError(OSError):
    """The kernel refused a restriction."""


def landlock_abi() -> int:
    """Version of Landlock that the kernel offers; 0 if none."""
    return max(0, int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def drop_privileges() -> None:
    """Give up all capabilities, also those of set-user-ID programs, as Landlock and seccomp require."""
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for capability in range(64):  # fails for capabilities that do not exist or are already gone
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, nothing = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    _checked(libc.capset(header, nothing), "capset")


def landlock(
    names: Iterable[str],
    read: Iterable[str],
    write: Iterable[str],
    devices: Iterable[str],
    change: Iterable[str] = (),
) -> int:
    """Confine this process to the given paths; forbid TCP, signals to others and abstract sockets.

    Args:
        names: Folders it may list, with all below them.
        read: Files and folders it may read and execute.
        write: Folders it may also write; device nodes cannot be made there.
        devices: Device nodes, or folders of them, that it may read, write and control.
        change: Folders whose files it may write, without making new ones.

    Returns:
        The Landlock ABI that was used; 0 if the kernel has none, and nothing was done.
    """
    abi = landlock_abi()
    if not abi:
        return 0
    handled = FILE_RIGHTS[min(abi, max(FILE_RIGHTS))]
    attributes = struct.pack(
        "=QQQ",
        handled,
        TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(libc.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "landlock")
    anything = handled & ~(MAKE_CHAR | MAKE_BLOCK | MAKE_SOCK | IOCTL_DEV)
    rules = (names, READ_DIR), (read, READ), (write, anything), (devices, DEVICE), (change, CHANGE)
    for paths, rights in rules:
        for path in paths:
            _allow(ruleset, path, rights & handled)
    _checked(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)
    return abi


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add one rule; does nothing for a path that does not exist."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        rights &= ON_FILES
    rule = struct.pack("=Qi", rights, fd)  # struct landlock_path_beneath_attr is packed: 12 bytes
    _checked(libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock {path}")
    os.close(fd)


# Numbers on x86_64 and on aarch64 (which has the generic table); None where the call does not exist.
DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
# Memory that belongs to no process, so the watcher cannot count it; only CUDA may need it.
MEMORY_FILES: dict[str, tuple[int | None, int | None]] = {"memfd_create": (319, 279), "shmget": (29, 194)}
# Without an IPC namespace: objects that outlive their maker, or that others find by a number or a name.
# Servers could leave notes in them for each other, and trials for later trials.
SHARED: dict[str, tuple[int | None, int | None]] = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
}
# Without a PID namespace only the process group holds a tree together, so no process may leave it. Without a
# mount namespace only this filter protects modes, owners, times and attributes of the user's files.
UNCONFINED: dict[str, tuple[int | None, int | None]] = {
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # These take the number of any process of the same user; Landlock does not restrict them.
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}


class Only(NamedTuple):
    """A call that is allowed for some values of one argument.

    Attributes:
        numbers: Of the call, as in the tables above.
        argument: Which argument, from 0.
        mask: Bits of its lower half that count.
        allowed: Allowed values.
        action: What happens for other values.
    """

    numbers: tuple[int, int]
    argument: int
    mask: int
    allowed: tuple[int, ...]
    action: int


ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
# A pair of datagram sockets can send to any address, and so reach the host's sockets by their paths; raw
# sockets can too. Stream and seqpacket pairs can only reach each other.
PAIRS = {"socketpair": Only((53, 199), 1, 0xF, (1, 5), ERRNO | EPERM)}
# Number 0 is the caller. Libraries bind threads by number; it does no harm that this has no effect.
OWN = {
    "prlimit64": Only((302, 261), 0, 0xFFFFFFFF, (0,), ERRNO | EPERM),
    "sched_setaffinity": Only((203, 122), 0, 0xFFFFFFFF, (0,), ERRNO),
}
CLONE: tuple[int, int] = (56, 220)
CLONE3 = 435
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* but CLONE_NEWTIME, which only unshare and clone3 know

LOAD, AND, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def seccomp(*, memory_files: bool, namespaces: bool) -> bool:
    """Deny system calls that lead out of the jail, here and in all children.

    Args:
        memory_files: Whether memory files and System V memory may be made.
        namespaces: Whether mounts, PIDs and IPC are confined by namespaces. If not, what processes could
            share beyond files is denied. Leaving the process group, changing files' attributes and setting
            others' priorities have no effect but return success, so that libraries keep working.

    Returns:
        Whether it was done; false on an architecture whose system call numbers are not known here.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    architecture, column = ARCHITECTURES[machine]
    denied = [*DENIED.values(), *(() if memory_files else MEMORY_FILES.values())]
    rules = [(numbers[column], ERRNO | EPERM) for numbers in denied]
    rules += [(CLONE3, ERRNO | ENOSYS)]  # a filter cannot read its flags in memory; libc falls back
    only = [*PAIRS.values(), *(() if namespaces else OWN.values())]
    if not namespaces:
        rules += [(numbers[column], ERRNO | EPERM) for numbers in SHARED.values()]
        rules += [(numbers[column], ERRNO) for numbers in UNCONFINED.values()]
    rules = [(number, action) for number, action in rules if number is not None]
    program = _program(architecture, rules, [(one.numbers[column], one) for one in only], CLONE[column])
    buffer = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0), "seccomp")
    return True


def _program(
    architecture: int, rules: Sequence[tuple[int, int]], only: Sequence[tuple[int, Only]], clone: int
) -> list[bytes]:
    """Classic BPF over struct seccomp_data: number at 0, architecture at 4, arguments from 16 on."""

    def word(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    program = [word(LOAD, 4), word(JUMP_EQUAL, architecture, 1), word(RETURN, KILL), word(LOAD, 0)]
    program += [word(JUMP_GREATER_EQUAL, 0x40000000, 0, 1), word(RETURN, KILL)]  # the x32 numbers of x86_64
    for number, action in rules:
        program += [word(JUMP_EQUAL, number, 0, 1), word(RETURN, action)]
    for number, one in only:
        passes = [
            step for value in one.allowed for step in (word(JUMP_EQUAL, value, 0, 1), word(RETURN, ALLOW))
        ]
        look = [word(LOAD, 16 + 8 * one.argument), word(AND, one.mask), *passes, word(RETURN, one.action)]
        program += [word(JUMP_EQUAL, number, 0, len(look)), *look]
    program += [word(JUMP_EQUAL, clone, 0, 3), word(LOAD, 16)]
    program += [word(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1), word(RETURN, ERRNO | EPERM), word(RETURN, ALLOW)]
    return program


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise RestrictionError(number, f"{what}: {os.strerror(number)}")
    return int(result)
