"""Ways in which one jail can leave a note for another in files that both can only read.

Run as `python notes.py ROLE WAY MESSAGE MARK`: "send" leaves 16 bits, "read" prints what it finds, as a
number. The bits lie in 16 files of the standard library, which every jail can read, or in names beside them
that do not exist, with a mark of this message. Imports only that library.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

BITS, COPIES = 16, 48
SOURCES = sorted(Path(os.__file__).parent.glob("*.py"))
FILES = [str(path) for path in SOURCES if path.stat().st_size > 4096][-BITS:]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]


def checked(result):
    if result is None or result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mapped(fd):
    """The first page of a file, in this process's memory."""
    return libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)


def bits(message):
    return [message >> i & 1 for i in range(BITS)]


def opened():
    return [os.open(path, os.O_RDONLY) for path in FILES]


# Pages of files in memory


def send_fadvise(fd, bit):
    os.pread(fd, 4096, 0) if bit else os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def send_pageout(fd, bit):
    os.pread(fd, 4096, 0)
    if not bit:
        size = -(-os.fstat(fd).st_size // 4096) * 4096
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        ctypes.string_at(address, 1)
        checked(libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), 21))


def read_mincore(fd):
    vector = ctypes.create_string_buffer(1)
    checked(libc.mincore(ctypes.c_void_p(mapped(fd)), ctypes.c_size_t(4096), vector))
    return vector.raw[0] & 1


def read_nowait(fd):
    try:
        os.preadv(fd, [bytearray(64)], 0, os.RWF_NOWAIT)
        return 1
    except BlockingIOError:
        return 0


def read_cachestat(fd):
    found = (ctypes.c_uint64 * 5)()
    checked(libc.syscall(451, fd, (ctypes.c_uint64 * 2)(0, 4096), found, 0))
    return int(found[0] > 0)


# What the kernel remembers of a file


def send_hint(fd, bit):
    fcntl.fcntl(fd, 1036, struct.pack("Q", 3 + bit))  # F_SET_RW_HINT, which the owner may


def read_hint(fd):
    return struct.unpack("Q", fcntl.fcntl(fd, 1035, struct.pack("Q", 0)))[0] - 3


def extents(fd, request):
    """How many extents of a file there are, or (of what ext4 has cached) are known."""
    asked = struct.pack("QQIIII", 0, 1 << 40, 0, 0, 0, 0)
    return struct.unpack("QQIIII", fcntl.ioctl(fd, request, asked))[3]


def send_extents(fd, bit):
    # FS_IOC_FIEMAP fills the cache; EXT4_IOC_CLEAR_ES_CACHE, which the owner may, empties it
    extents(fd, 0xC020660B) if bit else fcntl.ioctl(fd, 0x6628)


def read_extents(fd):
    return int(extents(fd, 0xC020662A) > 0)  # EXT4_IOC_GET_ES_CACHE


# Names that do not exist: the kernel answers faster for those that it was asked before


def look(name):
    """Nanoseconds to find that a name does not exist."""
    path = str(SOURCES[0].parent / name).encode()
    begun = time.perf_counter_ns()
    libc.access(path, 0)
    return time.perf_counter_ns() - begun


def send_names(number, bit):
    for copy in range(COPIES * bit):
        look(f"{sys.argv[-1]}-{number}-{copy}")


def read_names(number):
    names = [f"{sys.argv[-1]}-{number}-{copy}" for copy in range(COPIES)]
    fresh = [f"{sys.argv[-1]}-fresh-{number}-{copy}" for copy in range(COPIES)]
    first, new = (sorted(map(look, group)) for group in (names, fresh))
    again = sorted(map(look, names))
    middle = COPIES // 2
    return int(abs(first[middle] - again[middle]) < abs(first[middle] - new[middle]))


# Locks, while both live


def send_flock(fd, bit):
    if bit:
        fcntl.flock(fd, fcntl.LOCK_SH)


def read_flock(fd):
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        return 1


def lock(kind):
    return struct.pack("hhqqi4x", kind, 0, 0, 0, 0)


def send_posix(fd, bit):
    if bit:
        fcntl.fcntl(fd, fcntl.F_SETLK, lock(fcntl.F_RDLCK))


def read_posix(fd):
    found = fcntl.fcntl(fd, fcntl.F_GETLK, lock(fcntl.F_WRLCK))
    return int(struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK)


def send_ofd(fd, bit):
    if bit:
        fcntl.fcntl(fd, 37, lock(fcntl.F_RDLCK))


def read_ofd(fd):
    return int(struct.unpack("hhqqi4x", fcntl.fcntl(fd, 36, lock(fcntl.F_WRLCK)))[0] != fcntl.F_UNLCK)


def send_lease(fd, bit):
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    if bit:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)


def read_lease(path):
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return 0
    except BlockingIOError:
        return 1


def send_opening(path, bit):
    if bit:
        os.close(os.open(path, os.O_RDONLY))


def watch():
    fd = checked(libc.inotify_init1(os.O_NONBLOCK))
    watches = [checked(libc.inotify_add_watch(fd, path.encode(), 0x20)) for path in FILES]  # IN_OPEN
    ready()
    try:
        events = os.read(fd, 1 << 16)
    except BlockingIOError:
        events = b""
    seen = {struct.unpack_from("i", events, at)[0] for at in range(0, len(events), 16)}
    return [int(number in seen) for number in watches]


def places(name):
    """Where the bits of one way lie."""
    if name == "names":
        return range(BITS)
    return (
        FILES if name in ("lease", "opening") and (name == "opening" or sys.argv[-4] == "read") else opened()
    )


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


def main(role, way, message, mark):
    sender, _, reader = way.partition("+")
    if role == "read" and reader == "inotify":
        found = watch()
    elif role == "read":
        read = globals()["read_" + reader]
        found = [read(one) for one in places(reader)]
    else:
        send = globals()["send_" + sender]
        for one, bit in zip(places(sender), bits(int(message)), strict=True):
            send(one, bit)
        ready()
        return
    print("found", sum(bit << i for i, bit in enumerate(found)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
