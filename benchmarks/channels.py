"""How many bits a second can one jail tell another, without a file that both may write?

    python benchmarks/channels.py

A sender and a reader run in two jails of each sandbox that works here, one after the other or at the same
time, and try each way that is known to be left, and some that the sandbox closes. The sender sends random
bits; what arrives gives the capacity of a binary symmetric channel, bits a second times 1 - H(share of wrong
bits). That is what one simple program achieves: a better one may achieve a few times as much.

"no filter" is the same without the filter of system calls, so that the measurement itself is seen to work.
"""

from __future__ import annotations

import json
import math
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from autoresearch.errors import UserError  # noqa: E402
from autoresearch.execute.sandbox import Jail, Limits, Sandbox, create_sandbox, start  # noqa: E402
from autoresearch.execute.sandbox.landlock import LandlockSandbox  # noqa: E402
from autoresearch.execute.sandbox.launch import read_spec  # noqa: E402
from autoresearch.execute.sandbox.residency import read_in  # noqa: E402
from autoresearch.execute.sandbox.visible import LAUNCHER, as_word, readable  # noqa: E402
from autoresearch.tasks.gpt.program import CORPORA, PACKAGES  # noqa: E402

LIMITS = Limits(memory_gb=2.0, processes=64, file_gb=0.1, open_files=1024)
WINDOW = 8 * 1500
"""Bits of one window of text, as the model reads it."""

PROGRAM = r'''
import ctypes, fcntl, json, mmap, os, statistics, struct, sys, threading, time
from pathlib import Path
role, way, mark, count, begin, slot = sys.argv[1], sys.argv[2], sys.argv[3], *map(float, sys.argv[4:7])
count, bits = int(count), json.loads(sys.argv[7])
libc = ctypes.CDLL(None)
library = Path(os.__file__).parent
folders = [library, *(library / name for name in ("encodings", "asyncio", "email", "json"))]
sources = [path for folder in folders for path in sorted(folder.glob("*.py"))]
files = [str(p) for p in sources if p.stat().st_size]

def look(name):
    path = f"{library}/{mark}-{name}".encode()
    start = time.perf_counter_ns()
    libc.access(path, 0)
    return time.perf_counter_ns() - start

def timed_read(path):
    file = os.open(path, os.O_RDONLY)
    start = time.perf_counter_ns()
    os.pread(file, 4096, 0)
    took = time.perf_counter_ns() - start
    os.close(file)
    return took

def halves(values):
    """1 for what is above the middle."""
    middle = statistics.median(values)
    return [int(value > middle) for value in values]

def wait_for(slots):
    while (now := time.time()) < begin + slots * slot:
        time.sleep(min(0.001, slot / 20))

def send_reading():
    for path, bit in zip(files, bits):
        file = os.open(path, os.O_RDONLY)
        os.pread(file, 1 << 20, 0) if bit else os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)

def read_reading():
    took = [timed_read(path) for path in files[:count]]
    low, high = min(took), sorted(took)[-8]
    return [int(value < (low * high) ** 0.5) for value in took]

def send_names():
    for number, bit in enumerate(bits):
        if bit:
            look(number)

def read_names():
    fresh = statistics.median(look(f"fresh{n}") for n in range(200))
    known = statistics.median(look(f"fresh{n}") for n in range(200))
    return [int(look(number) < (fresh + known) / 2) for number in range(count)]

def send_times():
    for path, bit in zip(files, bits):
        if bit:
            timed_read(path)

def read_times():
    return [int(os.stat(path).st_atime > begin - 1) for path in files[:count]]

held = []
def send_locks():
    for path, bit in zip(files, bits):
        held.append(os.open(path, os.O_RDONLY))
        if bit:
            fcntl.flock(held[-1], fcntl.LOCK_SH)

def read_locks():
    found = []
    for path in files[:count]:
        file = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(0)
        except OSError:
            found.append(1)
        os.close(file)
    return found

def send_cpu():
    for _ in range(os.cpu_count() - 1):
        if os.fork() == 0:
            break
    for number, bit in enumerate(bits):
        wait_for(number)
        while bit and time.time() < begin + (number + 1) * slot:
            pass

def read_cpu():
    counts = []
    for number in range(count):
        wait_for(number)
        done, end = 0, begin + (number + 1) * slot
        while time.time() < end:
            done += 1
        counts.append(-done)
    return halves(counts)

def send_inodes():
    for number, bit in enumerate(bits):
        wait_for(number)
        if bit:
            made = [os.open(f"x{n}", os.O_CREAT | os.O_RDWR) for n in range(8)]
            wait_for(number + 0.8)
            for n, file in enumerate(made):
                os.close(file); os.unlink(f"x{n}")

def read_inodes():
    found = []
    for number in range(count):
        wait_for(number + 0.4)
        file = os.open("y", os.O_CREAT | os.O_RDWR)
        found.append(os.fstat(file).st_ino)
        os.close(file); os.unlink("y")
    low = min(found)
    return [int(value > low) for value in found]

# The kernel knows a word of a file on which processes wait by file and position, whoever has mapped it.
def words():
    for path in files[:count]:
        with open(path, "rb") as file:
            mapped = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        yield ctypes.c_void_p(mapped), ctypes.c_uint32.from_address(mapped).value

def send_futex():
    libc.mmap.restype = ctypes.c_void_p
    for (word, value), bit in zip(words(), bits):
        if bit:
            threading.Thread(target=libc.syscall, args=(202, word, 0, value, None), daemon=True).start()

def read_futex():
    libc.mmap.restype = ctypes.c_void_p
    return [libc.syscall(202, word, 1, 1) for word, _ in words()]

# Whether a page of a file is mapped by this process alone. The kernel maps windows of 16 pages at once.
def windows():
    libc.mmap.restype = ctypes.c_void_p
    left = count
    for path in sorted(Path("/usr/bin").iterdir()):
        size = path.stat().st_size // 65536 * 65536 if path.is_file() and not path.is_symlink() else 0
        if size and left:
            with open(path, "rb") as file:
                mapped = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
            for at in range(0, min(size, 65536 * left), 65536):
                left -= 1
                yield mapped + at

def send_mapped():
    for address, bit in zip(windows(), bits):
        if bit:
            ctypes.string_at(address, 1)

def read_mapped():
    found = []
    with open("/proc/self/pagemap", "rb") as pages:
        for address in windows():
            ctypes.string_at(address, 1)
            entry, = struct.unpack("Q", os.pread(pages.fileno(), 8, address // 4096 * 8))
            found.append(int(not entry >> 56 & 1))
    return found

# Pipes of one user share a limit, beyond which new ones are small.
def send_pipes():
    held = [os.pipe() for _ in range(70)]
    for number, bit in enumerate(bits):
        for _, end in held:
            for power in range(20, 11, -1) if bit else (12,):
                try:
                    fcntl.fcntl(end, 1031, 1 << power)
                    break
                except PermissionError:  # the limit is reached
                    pass
        wait_for(number + 1)

def read_pipes():
    found = []
    for number in range(count):
        wait_for(number + 0.7)
        ends = os.pipe()
        found.append(int(fcntl.fcntl(ends[0], 1032) < 65536))
        for end in ends:
            os.close(end)
    return found

start = time.perf_counter()
found = globals()[f"{role}_{way}"]()
print(json.dumps({"found": found, "seconds": time.perf_counter() - start}), flush=True)
if way in ("locks", "futex", "mapped") and role == "send":
    sys.stdin.readline()
'''


@dataclass(frozen=True)
class Way:
    """A way to tell another jail something.

    Attributes:
        name: Of its two functions in `PROGRAM`.
        what: In words.
        bits: To send.
        together: Whether both jails run at the same time; or the reader starts when the sender is dead.
        slot: Seconds for each bit, where they keep time together.
    """

    name: str
    what: str
    bits: int
    together: bool
    slot: float = 0.0


WAYS = (
    Way("reading", "time of a read", 300, False),
    Way("times", "times of access", 300, False),
    Way("names", "names that do not exist", 4000, False),
    Way("names", "names that do not exist", 4000, True),
    Way("locks", "file locks", 300, True),
    Way("futex", "threads that wait on a word of a file", 48, True),
    Way("mapped", "pages of files that are mapped", 2000, True),
    Way("pipes", "sizes of new pipes", 400, True, 0.01),
    Way("inodes", "numbers of new files", 400, True, 0.005),
    *(
        Way("cpu", f"CPU, {1000 * slot:g} ms a bit", min(400, round(8 / slot)), True, slot)
        for slot in (0.002, 0.005, 0.01, 0.02, 0.05)
    ),
)


@dataclass(frozen=True)
class Unfiltered:
    """A sandbox without its filter of system calls."""

    sandbox: Sandbox

    def wrap(self, argv: Sequence[str], jail: Jail) -> list[str]:
        """The command without the filter."""
        words = self.sandbox.wrap(argv, jail)
        at = words.index(str(LAUNCHER), words.index("-S")) + 1
        return [*words[:at], as_word({**read_spec(words[at]), "seccomp": None}), *words[at + 1 :]]


def capacity(way: Way, sandbox: Sandbox | Unfiltered) -> float:
    """Bits a second that arrive."""
    bits = [random.getrandbits(1) for _ in range(way.bits)]
    begin = time.time() + (1.0 if way.together else 0.0)
    words = [way.name, secrets.token_hex(4), str(way.bits), str(begin), str(way.slot)]
    read_in(readable(PACKAGES))
    with tempfile.TemporaryDirectory() as folder:
        sender = _start(sandbox, Path(folder, "send"), ["send", *words, json.dumps(bits)])
        if not way.together:
            told = json.loads(sender.process.communicate(timeout=120)[0])
            sender.kill()
            read_in(readable(PACKAGES))
        elif not way.slot:
            assert sender.process.stdout is not None
            told = json.loads(sender.process.stdout.readline())
        with sender, _start(sandbox, Path(folder, "read"), ["read", *words, "[]"]) as reader:
            heard = json.loads(reader.process.communicate(timeout=120)[0])
    seconds = way.bits * way.slot or told["seconds"] + heard["seconds"]
    wrong = sum(a != b for a, b in zip(bits, heard["found"], strict=True)) / way.bits
    if abs(wrong - 0.5) < 2 / math.sqrt(way.bits):  # chance
        return 0.0
    entropy = sum(-p * math.log2(p) for p in (wrong, 1 - wrong) if p > 0)
    return (1 - entropy) * way.bits / seconds


def _start(sandbox: Sandbox | Unfiltered, scratch: Path, words: list[str]):  # type: ignore[no-untyped-def]
    scratch.mkdir()
    env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch)}
    jail = Jail((), (scratch,), env, scratch, (), False, LIMITS, packages=PACKAGES, hidden=CORPORA)
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM, *words]
    return start(sandbox, argv, jail, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # type: ignore[arg-type]


def main() -> None:
    """Measure each way in each sandbox three times, and print the best."""
    columns: dict[str, Sandbox | Unfiltered] = {}
    for name in ("bwrap", "landlock", "bare"):
        try:
            found = create_sandbox(name.replace("bare", "landlock"))
        except UserError as error:
            print(f"{name} is left out: {error}")
            continue
        columns[name] = LandlockSandbox(namespaces=False, proc=False) if name == "bare" else found
    columns |= {"no filter": Unfiltered(next(iter(columns.values())))}
    print(f"{'bits a second':40s}" + "".join(f"{name:>12s}" for name in columns))
    for way in WAYS:
        when = "meanwhile" if way.together else "later"
        row = [max(capacity(way, sandbox) for _ in range(3)) for sandbox in columns.values()]
        print(f"{way.what + ', ' + when:40s}" + "".join(f"{value:12,.0f}" for value in row), flush=True)
    print(f"One window of text has about {WINDOW:,} bits, less if it is compressed.")


if __name__ == "__main__":
    main()
