"""Notes between jails in files that both can only read: none arrives; without the filter all of them do.

A server that was shown held-out text could tell it to a later trainer in this way, or to the witness.
"""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from autoresearch.execute.sandbox import Jailed, Sandbox, cgroup, start
from tests.red_team.arena import one_by_default
from tests.support.jail import LIMITS, make_jail, no_seccomp, run_python, without

pytestmark = pytest.mark.slow

NOTES = Path(__file__).with_name("notes.py").read_text()
LATER = (
    "fadvise+nowait",
    "fadvise+mincore",
    "fadvise+cachestat",
    "pageout+nowait",
    "hint+hint",
    "extents+extents",
)
"""Ways to tell a process that starts later."""
TIMED = ("names+names",)
"""Another, which only time tells, so that no filter stops it."""
MEANWHILE = ("posix+posix", "flock+flock", "ofd+ofd", "lease+lease", "opening+inotify")
"""Ways to tell a process that runs at the same time."""
OWNED = ("hint", "extents", "lease", "mincore", "cachestat")
"""Only the owner of a file can use these, and so only a candidate of root."""


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No other test sends through the same files meanwhile."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "notes.lock"):
        yield


def begin(sandbox: Sandbox, place: Path, *words: str) -> Jailed:
    argv = [sys.executable, "-I", "-S", "-c", NOTES, *words]
    pipe = subprocess.PIPE
    return start(sandbox, argv, make_jail(place), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)


def arrives(way: str, sender: Sandbox, reader: Sandbox, place: Path) -> bool:
    """Whether the reader finds 16 random bits that the sender sent."""
    place.mkdir()
    message, mark, later = secrets.randbits(16), secrets.token_hex(4), way in (*LATER, *TIMED)
    watches = way.endswith("inotify")
    first, second = (("read", reader), ("send", sender)) if watches else (("send", sender), ("read", reader))
    with begin(first[1], place / "first", first[0], way, str(message), mark) as early:
        assert early.process.stdout is not None and early.process.stdin is not None
        lines = [early.process.stdout.readline().decode()]
        if later:
            lines.append(early.process.communicate(b"\n")[0].decode())
            early.kill()
        with begin(second[1], place / "second", second[0], way, str(message), mark) as late:
            found = late.process.communicate(b"\n", timeout=60)[0].decode()
        if watches:
            found = lines[0] + early.process.communicate(b"\n", timeout=60)[0].decode()
    numbers = [line.split()[1] for line in found.splitlines() if line.startswith("found ")]
    return numbers == [str(message)]


@pytest.mark.parametrize("way", [*LATER, *MEANWHILE])
def test_no_note_arrives(way: str, sandbox: Sandbox, tmp_path: Path) -> None:
    assert not arrives(way, sandbox, sandbox, tmp_path / "both")


@pytest.mark.soak
@pytest.mark.parametrize("way", [*LATER, *MEANWHILE])
def test_each_half_is_stopped(way: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """The filter keeps a sender from writing to an open reader, or a reader from reading an open sender."""
    free = without(sandbox, no_seccomp)
    assert way == "opening+inotify" or not arrives(way, sandbox, free, tmp_path / "sender")
    assert way == "lease+lease" or not arrives(way, free, sandbox, tmp_path / "reader")


@pytest.mark.parametrize("way", one_by_default([*LATER, *MEANWHILE]))
def test_without_the_filter_they_arrive(way: str, sandbox: Sandbox, tmp_path: Path) -> None:
    if os.geteuid() != 0 and any(name in way for name in OWNED):
        pytest.skip("needs root, who owns the interpreter's files")
    free = without(sandbox, no_seccomp)
    assert arrives(way, free, free, tmp_path / "both")


@pytest.fixture
def grouped() -> None:
    group = cgroup.create(LIMITS)
    if group is None:
        pytest.skip("no control group can be made here: names are notes then, see the threat model")
    group.remove()


def test_names_that_do_not_exist_are_forgotten(sandbox: Sandbox, tmp_path: Path, grouped: None) -> None:
    assert not arrives(TIMED[0], sandbox, sandbox, tmp_path / "both")


def test_without_a_control_group_they_would_be_notes(
    bwrap: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup.Cgroup, "empty", lambda self: None)
    tries = (arrives(TIMED[0], bwrap, bwrap, tmp_path / str(number)) for number in range(4))
    assert any(tries), "a busy machine may spoil one"


LEAVES = """
import os, stat
for name, make in {
    "chmod": lambda: (open("chmod", "w").close(), os.chmod("chmod", 0o4755)),
    "fchmod": lambda: os.fchmod(os.open("fchmod", os.O_CREAT | os.O_RDWR, 0o755), 0o2755),
    "open": lambda: os.open("open", os.O_CREAT | os.O_RDWR, 0o6755),
    "mknod": lambda: os.mknod("mknod", 0o4755 | stat.S_IFREG),
}.items():
    try:
        make()
    except OSError:
        pass
"""


@pytest.mark.parametrize("free", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_no_file_with_the_rights_of_its_owner_is_left(free: bool, sandbox: Sandbox, tmp_path: Path) -> None:
    """A candidate of root could leave a program that makes root of any user."""
    confined = without(sandbox, no_seccomp) if free else sandbox
    output, status, _ = run_python(confined, LEAVES, make_jail(tmp_path / "scratch"))
    assert status == 0, output
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "scratch").iterdir()}
    left = {name for name, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)}
    assert left == ({"chmod", "fchmod", "open", "mknod"} if free else set())
