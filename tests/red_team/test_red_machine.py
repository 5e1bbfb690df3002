"""What a jail could leave on the machine, or read of it: devices, counters, core dumps, space on the disk.

Each of these reaches beyond the jail without its protection.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from autoresearch.execute.sandbox import Sandbox, landlock, start, system_calls, visible
from tests.support.jail import LIMITS, make_jail, no_seccomp, run_python, without

pytestmark = pytest.mark.slow

FREE = [False, pytest.param(True, marks=pytest.mark.soak)]
"""With the protection, and without it."""

DEVICES = ("null", "zero", "full", "random", "urandom")
TOUCHES = """
import os
for target in (0, *("/dev/" + name for name in %r)):
    try:
        os.utime(target)
    except OSError:
        pass
"""


def writable_devices(outer: list[str], spec: dict[str, Any]) -> None:
    """Bubblewrap's devices as it makes them."""
    if outer:
        spec["fixed"] = []


@pytest.mark.parametrize("free", FREE)
def test_times_of_devices_are_no_notes(free: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """A jail that was shown held-out text sets them, and a later one reads them."""
    nodes = [Path("/dev", name) for name in DEVICES]
    if not all(os.access(node, os.W_OK) for node in nodes):
        pytest.skip("the host's devices cannot be changed by this user")
    before = [node.stat().st_mtime_ns for node in nodes]
    confined = without(sandbox, writable_devices, no_seccomp) if free else sandbox
    with Path("/dev/null").open("r+b") as null:
        command = [sys.executable, "-I", "-S", "-c", TOUCHES % (DEVICES,)]
        with start(confined, command, make_jail(tmp_path / "jail"), stdin=null if free else None) as jailed:
            assert jailed.process.wait(60) == 0
    after = [node.stat().st_mtime_ns for node in nodes]
    assert (after != before) is free


MODES = """
import os
for name in %r:
    try:
        os.chmod("/proc/" + name, 0o644)
    except OSError:
        pass
"""


def changeable_proc(outer: list[str], spec: dict[str, Any]) -> None:
    """Files of /proc that are the same for all, as bubblewrap's own /proc shows them."""
    for path in map(str, visible.shared_proc(with_gpu=False)):
        if path in outer:
            at = outer.index(path) - 1
            del outer[at : at + 3]


@pytest.mark.parametrize("free", FREE)
def test_modes_of_files_in_proc_are_no_notes(free: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """A jail of root could even close them to all users of the machine."""
    if os.geteuid() != 0 or (free and sandbox.name != "bwrap"):
        pytest.skip(
            "only root can change them, and with Landlock all mounts are read-only, or nothing can be"
        )
    files = visible.shared_proc(with_gpu=False)
    confined = without(sandbox, changeable_proc) if free else sandbox
    look = f"import os; print([os.stat(path).st_mode & 0o7777 for path in {[*map(str, files)]}])"
    before, *_ = run_python(confined, look, make_jail(tmp_path / "before"))
    try:
        code = MODES % ([path.name for path in files],)
        assert run_python(confined, code, make_jail(tmp_path / "changes"))[1] == 0
        after, *_ = run_python(confined, look, make_jail(tmp_path / "after"))
        assert (after != before) is free, (before, after)
    finally:
        for path, mode in zip(files, json.loads(before), strict=True):
            path.chmod(mode)


COUNTS = """
import json, os, sys, time
def content():
    found = {}
    for top in ("/sys", "/sys/devices/system/cpu", "/sys/devices/system/node", "/proc/sys"):
        for folder, _, names in os.walk(top):
            for name in names:
                try:
                    path = os.path.join(folder, name)
                    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
                        found[path] = file.read(1 << 16)
                except OSError:
                    pass
    return found
before = content()
print("read", len(before), flush=True)
sys.stdin.readline()
after = content()
changed = [path for path in before if before[path] != after.get(path) and not path.endswith("/uuid")]
print(json.dumps(changed), flush=True)
"""


@pytest.mark.parametrize("free", FREE)
def test_no_file_counts_what_others_use(
    free: bool, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters of memory carry some bits a microsecond, as exactly as another jail can use memory."""
    cached = (visible.roots, visible.readable, landlock._without_mounts)
    if free:
        monkeypatch.setattr(visible, "CPU", ("/sys/devices/system/cpu", "/sys/devices/system/node"))
        for function in cached:
            function.cache_clear()
    try:
        pipe, command = subprocess.PIPE, [sys.executable, "-I", "-S", "-c", COUNTS]
        with start(sandbox, command, make_jail(tmp_path / "jail"), stdin=pipe, stdout=pipe) as jailed:
            assert jailed.process.stdout is not None
            assert jailed.process.stdout.readline().startswith(b"read ")
            block = bytearray(1 << 26)
            block[::4096] = b"1" * len(block[::4096])
            changed = json.loads(jailed.process.communicate(b"\n", timeout=60)[0])
    finally:
        monkeypatch.undo()
        for function in cached:
            function.cache_clear()
    assert any("vmstat" in path for path in changed) if free else changed == []


DUMPS = """
import resource
try:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (OSError, ValueError):
    pass
print(next(line for line in open("/proc/self/limits") if line.startswith("Max core")))
"""


@pytest.mark.parametrize("free", FREE)
def test_a_crash_starts_no_program_outside(free: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """If the machine has a program that collects core dumps, a limit of 0 does not stop it, but 1 does."""
    confined = without(sandbox, no_seccomp) if free else sandbox
    output, status, _ = run_python(confined, DUMPS, make_jail(tmp_path / "jail"))
    assert status == 0, output
    assert output.split()[4:6] == (["0", "0"] if free else ["1", "1"]), output


FEW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
context = ctypes.c_ulong()
print(libc.syscall(%d, 1000, ctypes.byref(context)) == 0, end=" ")
libc.mmap(None, 1 << 21, 3, 0x40022, -1, 0)
print(ctypes.get_errno() != 1)
"""


@pytest.mark.parametrize("free", FREE)
def test_what_the_machine_has_few_of_is_not_taken(free: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """Asynchronous requests and huge pages: databases of the same machine may need them."""
    confined = without(sandbox, no_seccomp) if free else sandbox
    number = system_calls.DENIED["io_setup"][system_calls.ARCHITECTURES[platform.machine()][1]]
    output, *_ = run_python(confined, FEW % number, make_jail(tmp_path / "jail"))
    assert output.split() == [str(free)] * 2


TAKES = """
import ctypes, os, time
libc = ctypes.CDLL(None)
for number in range(40):
    file = os.open(str(number), os.O_CREAT | os.O_RDWR)
    libc.fallocate(file, 0, ctypes.c_long(0), ctypes.c_long(40_000_000))
print(sum(os.stat(str(number)).st_blocks * 512 for number in range(40)), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("free", FREE)
def test_the_disk_is_not_taken_at_a_stroke(free: bool, sandbox: Sandbox) -> None:
    """More than is free, for example: until the watcher looks, whoever writes then would fail."""
    confined = without(sandbox, no_seccomp) if free else sandbox
    with TemporaryDirectory(dir="/tmp") as place:  # on the disk: memory is limited otherwise
        jail = make_jail(Path(place, "jail"), limits=replace(LIMITS, file_gb=0.05))
        command = [sys.executable, "-I", "-S", "-c", TAKES]
        with start(confined, command, jail, stdout=subprocess.PIPE) as jailed:
            assert jailed.process.stdout is not None
            taken = int(jailed.process.stdout.readline())
    assert (taken > 1e9) is free, taken
