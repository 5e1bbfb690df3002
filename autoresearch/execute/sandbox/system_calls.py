"""Filters system calls with seccomp, here and in all children; a confined process cannot remove the filter.

Runs only inside the launcher, which loads this file by its path, so it imports only the standard library. It
denies what no training needs and what leads out of the jail:

- new sockets, tracing, new namespaces, io_uring (which would open sockets behind the filter's back), kernel
  keyrings, and so on;
- notes in files that every jail can read. The interpreter's files cannot be written, but a process can drop
  their pages from memory, lock them, or watch others open them, and another process can see that. So a
  process that was shown held-out text could tell a later one. What remains is told by time (`residency`);
- set-user-ID files, which a candidate of root could leave in its scratch folder for any user to run.

A hint or a lock that has no effect returns success, so that libraries keep working.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOTTY, EINVAL, ENOSYS, ENOTSUP = 1, 25, 22, 38, 95
REFUSE, NO_EFFECT, MISSING = ERRNO | EPERM, ERRNO, ERRNO | ENOSYS

Numbers = tuple[int | None, int | None]
"""Of a call on x86_64 and on aarch64 (which has the generic table); None where the call does not exist."""

DENIED: dict[str, Numbers] = {
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
    # Which pages of a file are in memory, and who opens a file.
    "mincore": (27, 232),
    "cachestat": (451, 451),
    "process_madvise": (440, 440),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # What others use of memory and disk, and the kernel's log, which names every process that crashed.
    "sysinfo": (99, 179),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "ustat": (136, None),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "memfd_secret": (447, 447),
    # Of which the whole machine has a fixed number, whoever takes them.
    "io_setup": (206, 0),
}
# Memory that belongs to no process, so the watcher cannot count it; only CUDA may need it.
MEMORY_FILES: dict[str, Numbers] = {"memfd_create": (319, 279), "shmget": (29, 194)}
# Without an IPC namespace: objects that outlive their maker, or that others find by a number or a name.
# Servers could leave notes in them for each other, and trials for later trials.
SHARED: dict[str, Numbers] = {
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
# Hints that move the pages of files into and out of memory, and locks that other jails would see.
HINTS: dict[str, Numbers] = {
    "fadvise64": (221, 223),
    "readahead": (187, 213),
    "flock": (73, 32),
}
# Their flags say whether a page is in memory. libc falls back to the calls without flags.
FLAGGED: dict[str, Numbers] = {"preadv2": (327, 286), "pwritev2": (328, 287), "openat2": (437, 437)}
# Without a PID namespace only the process group holds a tree together, so no process may leave it. Without a
# mount namespace only this filter protects modes, owners, times and attributes of the user's files.
UNCONFINED: dict[str, Numbers] = {
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


class Test(NamedTuple):
    """A condition on the lower half of one argument of a call.

    Attributes:
        argument: Which argument, from 0.
        mask: Bits that count.
        values: What they are compared with.
        equal: Whether they must equal one of the values, or none of them.
    """

    argument: int
    mask: int
    values: tuple[int, ...]
    equal: bool = True


class Rule(NamedTuple):
    """What happens to a call, if all tests hold.

    Attributes:
        numbers: Of the call.
        action: What the kernel does instead of it.
        tests: Conditions; none: always.
    """

    numbers: Numbers
    action: int
    tests: tuple[Test, ...] = ()


WORD = 0xFFFFFFFF
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW* but CLONE_NEWTIME, which only unshare and clone3 know
FCNTL, SET_FLAGS = (72, 25), 4
COMMANDS = (0, 1, 2, 3, SET_FLAGS, 1027, 1028, 1030, 1031, 1032, 1033, 1034)
"""Of fcntl: descriptors, flags, pipes and seals. The others are locks, leases, hints and signals."""
ADVICE = (0, 4, 8, 10, 11, 16, 17, 18, 19, 24, 102, 103)
"""Of madvise: what concerns a process's own memory. The others move a file's pages into or out of memory, or
join them into large ones, or merge equal pages of several processes, which all tell others something."""
FILE_SYSTEM_IOCTLS = (0x6600, 0x5800, 0x7600, 0x9400, 0x1500)
"""The types of ioctls on files, such as flags, versions and a reset of what is cached of a file."""
SET_ID, CREATE = 0o6000, 0o100
HUGE = 0x40000
CORE = 4
"""The limit on core dumps, which the launcher sets so that none is made; see there."""


def rules(column: int, *, memory_files: bool, namespaces: bool) -> list[Rule]:
    """All rules, in order; what no rule denies is allowed.

    Args:
        column: 0 on x86_64, 1 on aarch64.
        memory_files: See `seccomp`.
        namespaces: See `seccomp`.
    """
    direct = (0x4000, 0x10000)[column]  # O_DIRECT
    set_id = (0o2000, 0o4000, SET_ID)
    found = [Rule(numbers, REFUSE) for numbers in DENIED.values()]
    found += [] if memory_files else [Rule(numbers, REFUSE) for numbers in MEMORY_FILES.values()]
    found += [Rule(numbers, NO_EFFECT) for numbers in HINTS.values()]
    found += [Rule(numbers, MISSING) for numbers in FLAGGED.values()]
    # A filter cannot read the flags of clone3, which lie in memory; libc falls back to clone.
    found += [
        Rule((435, 435), MISSING),
        Rule((56, 220), ALLOW, (Test(0, NEW_NAMESPACES, (0,)),)),
        Rule((56, 220), REFUSE),
        # A pair of datagram sockets can send to any address, and so reach the host's sockets by their paths;
        # raw sockets can too. Stream and seqpacket pairs can only reach each other.
        Rule((53, 199), REFUSE, (Test(1, 0xF, (1, 5), equal=False),)),
        Rule((28, 233), NO_EFFECT, (Test(1, WORD, ADVICE, equal=False),)),
        Rule(FCNTL, NO_EFFECT, (Test(1, WORD, COMMANDS, equal=False),)),
        Rule(FCNTL, ERRNO | EINVAL, (Test(1, WORD, (SET_FLAGS,)), Test(2, direct, (direct,)))),
        Rule((2, None), ERRNO | EINVAL, (Test(1, direct, (direct,)),)),
        Rule((257, 56), ERRNO | EINVAL, (Test(2, direct, (direct,)),)),
        Rule((16, 29), ERRNO | ENOTTY, (Test(1, 0xFF00, FILE_SYSTEM_IOCTLS),)),
        Rule((302, 261), REFUSE, (Test(1, WORD, (CORE,)),)),  # prlimit64
        Rule((160, 164), REFUSE, (Test(0, WORD, (CORE,)),)),  # setrlimit
        Rule((9, 222), REFUSE, (Test(3, HUGE, (HUGE,)),)),  # mmap of huge pages, which no limit counts
        # In no time it takes more of the disk than is free. libc then writes, which the watcher sees.
        Rule((285, 47), ERRNO | ENOTSUP),  # fallocate
        Rule((157, 167), REFUSE, (Test(0, WORD, (62, 67)),)),  # PR_SCHED_CORE, PR_SET_MEMORY_MERGE
        Rule((85, None), REFUSE, (Test(1, SET_ID, set_id),)),  # creat
        Rule((2, None), REFUSE, (Test(1, CREATE, (CREATE,)), Test(2, SET_ID, set_id))),
        Rule((257, 56), REFUSE, (Test(2, CREATE, (CREATE,)), Test(3, SET_ID, set_id))),
        Rule((133, None), REFUSE, (Test(1, SET_ID, set_id),)),  # mknod
        Rule((259, 33), REFUSE, (Test(2, SET_ID, set_id),)),  # mknodat
    ]
    if namespaces:
        modes = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
        found += [Rule(UNCONFINED[name], REFUSE, (Test(at, SET_ID, set_id),)) for name, at in modes.items()]
        return found
    found += [Rule(numbers, REFUSE) for numbers in SHARED.values()]
    found += [Rule(numbers, NO_EFFECT) for numbers in UNCONFINED.values()]
    # Number 0 is the caller. Libraries bind threads by number; it does no harm that this has no effect.
    return [
        *found,
        Rule((302, 261), REFUSE, (Test(0, WORD, (0,), equal=False),)),  # prlimit64
        Rule((203, 122), NO_EFFECT, (Test(0, WORD, (0,), equal=False),)),  # sched_setaffinity
    ]


LOAD, AND, JUMP_EQUAL, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
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

    Raises:
        OSError: If the kernel refuses.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    architecture, column = ARCHITECTURES[machine]
    program = make_program(
        architecture, column, rules(column, memory_files=memory_files, namespaces=namespaces)
    )
    buffer = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return True


def make_program(architecture: int, column: int, wanted: Iterable[Rule]) -> list[bytes]:
    """Classic BPF over struct seccomp_data: number at 0, architecture at 4, arguments from 16 on."""
    program = [_word(LOAD, 4), _word(JUMP_EQUAL, architecture, 1), _word(RETURN, KILL), _word(LOAD, 0)]
    program += [_word(JUMP_GREATER_EQUAL, 0x40000000, 0, 1), _word(RETURN, KILL)]  # the x32 numbers of x86_64
    for rule in wanted:
        number = rule.numbers[column]
        if number is not None:
            body = _body(rule.tests, rule.action)
            program += [_word(JUMP_EQUAL, number, 0, len(body)), *body]
    return [*program, _word(RETURN, ALLOW)]


def _body(tests: Sequence[Test], action: int) -> list[bytes]:
    """What follows the comparison of the number: ends, or goes on behind with the number loaded again."""
    if not tests:
        return [_word(RETURN, action)]
    test, *others = tests
    rest = _body(others, action)
    rest = rest if others else [*rest, _word(LOAD, 0)]
    last = len(rest) - 1  # the instruction that loads the number again
    compare = []
    for at, value in enumerate(test.values):
        left = len(test.values) - at - 1
        final = 0 if left else last
        compare.append(
            _word(JUMP_EQUAL, value, left, final) if test.equal else _word(JUMP_EQUAL, value, left + last)
        )
    return [_word(LOAD, 16 + 8 * test.argument), _word(AND, test.mask), *compare, *rest]


def _word(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
