"""Bombs: memory, processes, disk. Each is small, each ends, and the host is told which limit it broke."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.execute.sandbox import Limits, cgroup, process, usage
from autoresearch.store.files import remove_tree
from tests.support.jail import (
    BACKENDS,
    make_jail,
    no_seccomp,
    run_python,
    sandbox_or_skip,
    start_python,
    without,
)

pytestmark = pytest.mark.slow

ALL = (*BACKENDS, "none")
SMALL = Limits(memory_gb=0.2, processes=40, file_gb=0.03, open_files=64)

PRIVATE_MEMORY = "b'1' * 10**9"
SHARED_MEMORY = """
import mmap, time
block = mmap.mmap(-1, 3 * 10**8)
for i in range(0, len(block), 4096):
    block[i] = 1
time.sleep(60)
"""
ODD_NAMES = """
import ctypes, os
def rename(name): assert ctypes.CDLL(None).prctl(15, name, 0, 0, 0) == 0
if os.fork() == 0:
    rename(b"\\x0cRssAnon:z")
    os._exit(0)
rename(b"\\xff\\x85VmSwap:")
"""
MEMORY_FILE = "import os; os.memfd_create('bomb'); print('made')"
FORKS = """
import os, time
for i in range(200):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
print("made all", flush=True)
time.sleep(60)
"""
ONE_FILE = "open('big', 'wb').write(bytes(6 * 10**7))"
MANY_FILES = """
import time
for i in range(10):
    open(f"file{i}", "wb").write(bytes(10**7))
time.sleep(60)
"""
UNLINKED_FILES = """
import os, time
files = []
for i in range(10):
    files.append(open(f"file{i}", "wb"))
    os.unlink(f"file{i}")
    files[-1].write(bytes(10**7))
time.sleep(60)
"""
MAPPED_FILES = """
import mmap, os, time
blocks = []
for i in range(10):
    with open(f"file{i}", "w+b") as file:
        file.truncate(10**7)
        blocks.append(mmap.mmap(file.fileno(), 0))
    os.unlink(f"file{i}")
    for j in range(0, 10**7, 4096):
        blocks[-1][j] = 1
time.sleep(60)
"""
EMPTY_FILES = """
import time
for i in range(300):
    open(f"file{i}", "w").close()
time.sleep(60)
"""
ODDLY_MAPPED_FILES = MAPPED_FILES.replace('f"file{i}"', 'b"\\xff\\x0c1-2 r 0 fe:0 0 %d" % i')
DESCRIPTORS = "[open('/dev/null') for i in range(100)]"


@pytest.mark.parametrize("backend", ALL)
def test_private_memory_ends_in_an_error_the_log_shows(backend: str, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    output, status, _ = run_python(sandbox_or_skip(backend), PRIVATE_MEMORY, jail)
    assert "MemoryError" in output
    assert status == 1


@pytest.mark.parametrize("watcher_only", [False, True])
@pytest.mark.parametrize("backend", ["bwrap", "none"])
def test_shared_memory_is_counted(
    backend: str, watcher_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if watcher_only:
        monkeypatch.setattr(cgroup, "create", lambda limits: None)
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    _, status, breach = run_python(sandbox_or_skip(backend), SHARED_MEMORY, jail)
    assert status != 0
    assert breach == "used more than 0.2 GB of memory"


def test_odd_names_hide_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a zombie, which has no memory to report, and of a process whose name is no text."""
    monkeypatch.setattr(cgroup, "create", lambda limits: None)
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    _, status, breach = run_python(sandbox_or_skip("bwrap"), ODD_NAMES + SHARED_MEMORY, jail)
    assert status != 0
    assert breach == "used more than 0.2 GB of memory"


def test_what_cannot_be_watched_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "memory_bytes", lambda tree, most: int("no number"))
    _, status, breach = run_python(
        sandbox_or_skip("bwrap"), "import time; time.sleep(60)", make_jail(tmp_path / "scratch")
    )
    assert status != 0
    assert breach.startswith("could not be watched (ValueError")


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_files_cannot_be_made(backend: str, tmp_path: Path) -> None:
    sandbox = sandbox_or_skip(backend)
    output, _, _ = run_python(sandbox, MEMORY_FILE, make_jail(tmp_path / "a"))
    assert "PermissionError" in output
    output, _, _ = run_python(without(sandbox, no_seccomp), MEMORY_FILE, make_jail(tmp_path / "b"))
    assert "made" in output


@pytest.mark.parametrize("watcher_only", [False, True])
@pytest.mark.parametrize("backend", ALL)
def test_forks_are_counted(
    backend: str, watcher_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if watcher_only:
        monkeypatch.setattr(cgroup, "create", lambda limits: None)
    elif os.geteuid() == 0 and cgroup.create(SMALL) is None:
        pytest.skip("root is exempt from the kernel's process limit, and no control group can be made here")
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    output, status, breach = run_python(sandbox_or_skip(backend), FORKS, jail)
    assert status != 0
    assert "BlockingIOError" in output or breach == "ran more than 40 processes and threads"


@pytest.mark.parametrize("backend", ALL)
def test_one_file_cannot_be_larger_than_the_limit(backend: str, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    output, status, breach = run_python(sandbox_or_skip(backend), ONE_FILE, jail)
    assert "File too large" in output or breach == "wrote more than 0.03 GB of files"
    assert status != 0
    assert (tmp_path / "scratch" / "big").stat().st_size <= 3 * 10**7


@pytest.mark.parametrize(
    "bomb",
    [MANY_FILES, UNLINKED_FILES, MAPPED_FILES, ODDLY_MAPPED_FILES],
    ids=["named", "unlinked", "mapped", "oddly mapped"],
)
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
def test_all_files_together_are_counted(backend: str, bomb: str, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    _, status, breach = run_python(sandbox_or_skip(backend), bomb, jail)
    assert status != 0
    assert breach == "wrote more than 0.03 GB of files"


@pytest.mark.parametrize(("size", "ends"), [(10**8, True), (10**6, False)])
def test_the_disk_is_not_filled_within_the_limit(
    size: int, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that cannot be written ends the search, again and again if the same candidate comes back."""
    monkeypatch.setattr(process, "LEAST_FREE", 1 << 60)
    code = f"import time; open('big', 'wb').write(bytes({size})); time.sleep({60 if ends else 1})"
    _, status, breach = run_python(sandbox_or_skip("bwrap"), code, make_jail(tmp_path / "scratch"))
    assert (status != 0, "of the disk" in breach) == (ends, ends), breach


DEEP = """
import os, time
for i in range(10_000):
    os.mkdir("d")
    os.chdir("d")
open("file", "wb").write(bytes(10**6))
time.sleep(60)
"""
LOCKED = """
import os, time
os.makedirs("locked/in")
open("locked/in/file", "wb").write(bytes(10**6))
os.chmod("locked", 0)
"""


def test_what_is_too_deep_to_be_counted_breaks_the_limit(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    _, status, breach = run_python(sandbox_or_skip("bwrap"), DEEP, jail)
    assert status != 0
    assert breach == "wrote more than 0.03 GB of files"
    with pytest.raises(RecursionError):
        shutil.rmtree(tmp_path / "scratch")
    assert remove_tree(tmp_path / "scratch")


def test_what_is_locked_is_counted_or_breaks_the_limit_and_can_be_removed(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch")
    run_python(sandbox_or_skip("bwrap"), LOCKED, jail)
    used = usage.folder_bytes(tmp_path / "scratch")
    assert used > 10**6 if os.geteuid() == 0 else used == math.inf
    assert remove_tree(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o500)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    assert remove_tree(tmp_path / "folder")
    assert not remove_tree(tmp_path / "link")
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o500


def test_empty_files_cost_too(tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=replace(SMALL, file_gb=0.004))
    _, status, breach = run_python(sandbox_or_skip("bwrap"), EMPTY_FILES, jail)
    assert status != 0
    assert breach == "wrote more than 0.004 GB of files"


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_folders_in_memory_are_small(folder: str, tmp_path: Path) -> None:
    code = f"open('{folder}/big', 'wb').write(bytes(3 * 10**8))"
    output, status, _ = run_python(sandbox_or_skip("bwrap"), code, make_jail(tmp_path / "scratch"))
    assert "No space left" in output
    assert status == 1


@pytest.mark.parametrize("backend", ALL)
def test_descriptors_are_counted(backend: str, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    output, status, _ = run_python(sandbox_or_skip(backend), DESCRIPTORS, jail)
    assert "Too many open files" in output
    assert status == 1


@pytest.mark.parametrize("backend", ALL)
def test_within_its_limits_nothing_is_killed(backend: str, tmp_path: Path) -> None:
    code = """
import os, time
block = bytearray(b"1") * (8 * 10**7)
open("file", "wb").write(bytes(2 * 10**7))
for i in range(10):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for i in range(10):
    os.wait()
print("fine")
"""
    jail = make_jail(tmp_path / "scratch", limits=SMALL)
    assert run_python(sandbox_or_skip(backend), code, jail) == ("fine\n", 0, "")


def test_a_control_group_leaves_nothing_behind() -> None:
    group = cgroup.create(SMALL)
    if group is None:
        pytest.skip("no control group can be made here")
    assert group.members() == []
    group.remove()
    assert not any(folder.exists() for folder in group.folders)


def test_groups_of_dead_runners_are_swept() -> None:
    group = cgroup.create(SMALL)
    if group is None:
        pytest.skip("no control group can be made here")
    stale = [folder.with_name("autoresearch-99999999-1") for folder in group.folders]
    for folder in stale:
        folder.mkdir(exist_ok=True)
    second = cgroup.create(SMALL)
    assert second is not None
    assert not any(folder.exists() for folder in stale)
    assert all(folder.exists() for folder in group.folders), "a living runner's groups stay"
    group.remove()
    second.remove()


AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
SPINS = """
import os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
end = time.time() + 1.5
while time.time() < end:
    pass
"""


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_many_threads_do_not_slow_a_neighbour(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process computes nearly as much as twelve on the same core, where the CPU is shared out by jail."""
    group = cgroup.create(SMALL)
    if group is None or group.cpu is None:
        pytest.skip("no control group for the CPU can be made here")
    group.remove()
    if not shared:
        if AUTOGROUP.exists() and AUTOGROUP.read_text().strip() == "1":
            pytest.skip("this kernel gives each session the same share anyway")
        parents = [replace(parent, cpu=None) for parent in cgroup._parents()]
        monkeypatch.setattr(cgroup, "_parents", lambda: iter(parents))
    sandbox = sandbox_or_skip("bwrap")
    with (
        start_python(sandbox, SPINS, make_jail(tmp_path / "many"), "12") as many,
        start_python(sandbox, SPINS, make_jail(tmp_path / "one"), "1") as one,
    ):
        for jailed in (many, one):
            jailed.process.wait(60)
    assert (one.cpu_seconds > many.cpu_seconds / 4) is shared, (one.cpu_seconds, many.cpu_seconds)
