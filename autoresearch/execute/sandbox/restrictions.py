"""Drops privileges and sets Landlock by raw system calls: restricts a process and all its children.

Runs only inside the launcher, which loads this file by its path, so it imports only the standard library.
Landlock and seccomp (`system_calls`) need `no_new_privs`, and a confined process cannot remove them.

Landlock (Linux 5.13 and later; Salaün, 2021) restricts files by path, TCP by port (ABI 4), abstract Unix
sockets and signals (ABI 6). Opening a file again through /proc/self/fd counts as opening its path, so a
descriptor that was handed over read-only stays read-only.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
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


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise RestrictionError(number, f"{what}: {os.strerror(number)}")
    return int(result)
