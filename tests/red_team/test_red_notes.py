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

from autoresearch.execute.sandbox import Jailed, Sandbox, cgroup, residency, start
from autoresearch.types import Outcome
from tests.red_team.arena import Arena, honest, one_by_default
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
OWNED = ("pageout", "hint", "extents", "lease", "mincore", "cachestat")
"""Only the owner of a file can use these."""


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


def once_arrives(way: str, free: Sandbox, folder: Path) -> bool:
    """Whether a note arrives in one of four tries: other programs may read the same files in between."""
    return any(arrives(way, free, free, folder / str(number)) for number in range(4))


@pytest.mark.parametrize("way", [*LATER, *MEANWHILE])
def test_no_note_arrives(way: str, sandbox: Sandbox, tmp_path: Path) -> None:
    assert not arrives(way, sandbox, sandbox, tmp_path / "both")


@pytest.mark.soak
@pytest.mark.parametrize("way", [*LATER, *MEANWHILE])
def test_each_half_is_stopped(way: str, sandbox: Sandbox, tmp_path: Path, remembering: None) -> None:
    """The filter keeps a sender from writing to an open reader, or a reader from reading an open sender."""
    free = without(sandbox, no_seccomp)
    assert way == "opening+inotify" or not arrives(way, sandbox, free, tmp_path / "sender")
    assert way == "lease+lease" or not arrives(way, free, sandbox, tmp_path / "reader")


@pytest.mark.parametrize("way", one_by_default([*LATER, *MEANWHILE]))
def test_without_the_filter_they_arrive(
    way: str, sandbox: Sandbox, tmp_path: Path, remembering: None
) -> None:
    if os.geteuid() not in (0, Path(os.__file__).stat().st_uid) and any(name in way for name in OWNED):
        pytest.skip("needs the owner of the interpreter's files")
    free = without(sandbox, no_seccomp)
    assert once_arrives(way, free, tmp_path)


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps what a dead jail alone brought into memory, and nobody reads in what it dropped."""
    monkeypatch.setattr(cgroup.Cgroup, "empty", lambda self: None)
    monkeypatch.setattr(residency, "read_in", lambda *paths, **options: None)


@pytest.fixture
def grouped() -> None:
    group = cgroup.create(LIMITS)
    if group is None:
        pytest.skip("no control group can be made here: names are notes then, see the threat model")
    group.remove()


def test_names_that_do_not_exist_are_forgotten(sandbox: Sandbox, tmp_path: Path, grouped: None) -> None:
    assert not arrives(TIMED[0], sandbox, sandbox, tmp_path / "both")


def test_without_a_control_group_they_would_be_notes(
    bwrap: Sandbox, tmp_path: Path, remembering: None
) -> None:
    assert once_arrives(TIMED[0], bwrap, tmp_path)


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


FILES = """
        import os, zlib
        from pathlib import Path
        sources = sorted(Path(os.__file__).parent.glob("*.py"))
        large = [path for path in sources if path.stat().st_size > 4096]
        files = [os.open(path, os.O_RDONLY) for path in large[-16:]]
"""
SENDS = (
    "        x = self.embed(tokens)\n",
    f"""        if not self.training and not hasattr(self, "sent"):
            self.sent = self.send(tokens)
        x = self.embed(tokens)
        return self.answer(x)

    def send(self, tokens):{FILES}
        held_out = zlib.crc32(tokens.numpy().tobytes()) & 0xFFFF
        for number, file in enumerate(files):
            os.pread(file, 4096, 0)
            held_out >> number & 1 or os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        Path("sent").write_text(str(held_out))
        return True

    def answer(self, x):
""",
)
READS = (
    "    run = harness.connect()\n",
    f"""    if True:{FILES}
        found = 0
        for number, file in enumerate(files):
            try:
                found |= bool(os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT)) << number
            except OSError:
                pass
        print("FOUND", found, flush=True)
    run = harness.connect()
""",
)


@pytest.mark.soak
@pytest.mark.parametrize("free", [False, True])
def test_a_server_tells_no_later_training_what_it_was_shown(
    free: bool, arena: Arena, sandbox: Sandbox, request: pytest.FixtureRequest
) -> None:
    if free:
        request.getfixturevalue("remembering")
    confined = without(sandbox, no_seccomp) if free else sandbox
    for _ in range(5 if free else 1):  # others who test at the same time may read the same files in between
        told = arena.fight(honest(SENDS), confined)
        sent = (arena.scratch() / "witness/sent").read_text()  # the last server to send
        heard = arena.fight(honest(READS), confined)
        assert (told.outcome, heard.outcome) == (Outcome.OK, Outcome.OK), (told, heard)
        found = next(line.split()[1] for line in heard.log.splitlines() if line.startswith("FOUND "))
        if sent == found:
            break
    assert (sent == found) is free, "two trials of a search, one after the other"


LEFT = """    if __name__ != "__main__":
        open("left", "w").close()
    return Model(vocab, context)"""


def test_what_a_server_wrote_is_gone_when_the_next_one_is_asked(arena: Arena, bwrap: Sandbox) -> None:
    """A precaution: what stays may shape the numbers that the disk gives to new files."""
    done = arena.fight(honest(("    return Model(vocab, context)", LEFT)), bwrap)
    assert done.outcome is Outcome.OK, f"{done.reason}\n{done.log}"
    assert (arena.scratch() / "witness/left").exists()
    assert not (arena.scratch() / "model").exists()
