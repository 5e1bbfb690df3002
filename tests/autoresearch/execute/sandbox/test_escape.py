"""One intruder tries everything at once, in every backend; what it achieves is compared with what it may.

The same intruder achieves nearly all of it without a sandbox, and each single deed once the protections
against it are removed: so none of these tests passes by accident.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoresearch.execute.sandbox import Sandbox, create_sandbox, restrictions, system_calls
from tests.support.jail import (
    BACKENDS,
    Change,
    make_jail,
    no_landlock,
    no_mounts,
    no_namespaces,
    no_seccomp,
    run_python,
    sandbox_or_skip,
    tracing_is_forbidden,
    without,
)

pytestmark = pytest.mark.slow

INTRUDER = r"""
import ctypes, json, os, signal, socket, struct, sys
facts = json.loads(sys.argv[1])
secret, marker, pid, fd = facts["secret"], facts["marker"].encode(), facts["pid"], facts["fd"]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
done = {}

def deed(function):
    try:
        done[function.__name__] = bool(function())
    except Exception as error:
        done[function.__name__] = False

def read(path):
    with open(path, "rb") as file:
        return marker in file.read()

def write(path, mode="a"):
    with open(path, mode) as file:
        return file.write("!") == 1

@deed
def read_file(): return read(secret)
@deed
def list_folder(): return os.listdir(os.path.dirname(secret))
@deed
def read_by_link():
    os.symlink(secret, "link")
    return read("link")
@deed
def read_by_hard_link():
    os.link(secret, "hard")
    return read("hard")
@deed
def write_file(): return write(facts["victim_file"])
@deed
def write_by_link():
    os.symlink(facts["victim_file"], "out")
    return write("out")
@deed
def new_file(): return write(facts["victim_file"] + ".new", "w")
@deed
def remove_file(): return os.unlink(facts["removable"]) is None
@deed
def rename_file(): return os.rename(facts["movable"], facts["movable"] + ".moved") is None
@deed
def change_mode():
    os.chmod(secret, 0o644)
    return os.stat(secret).st_mode & 0o777 == 0o644
@deed
def change_times():
    os.utime(secret, (1, 1))
    return os.stat(secret).st_mtime == 1
@deed
def write_code(): return write(facts["code"])
@deed
def write_interpreter(): return write(os.path.join(os.path.dirname(os.__file__), facts["marker"]), "w")
@deed
def reopen_descriptor(): return write(f"/proc/self/fd/{fd}")
@deed
def stray_descriptor(): return os.fstat(facts["stray"])
@deed
def other_environment(): return read(f"/proc/{pid}/environ")
@deed
def other_command_line(): return read(f"/proc/{pid}/cmdline")
@deed
def other_memory():
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        file.seek(facts["address"])
        return marker == file.read(len(marker))
@deed
def other_memory_by_call():
    buffer = ctypes.create_string_buffer(len(marker))
    here = struct.pack("@PN", ctypes.addressof(buffer), len(marker))
    there = struct.pack("@PN", facts["address"], len(marker))
    return libc.process_vm_readv(pid, here, 1, there, 1, 0) == len(marker) and buffer.raw == marker
@deed
def trace(): return libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE, which does not stop it
@deed
def signal_other(): return os.kill(pid, 0) is None
@deed
def own_environment(): return marker in str(dict(os.environ)).encode()
@deed
def tcp(): return socket.create_connection(("127.0.0.1", facts["tcp"]), 2).sendall(b"tcp") is None
@deed
def udp(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"udp", ("127.0.0.1", facts["udp"]))
@deed
def dns():
    query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(query, ("127.0.0.1", facts["udp"]))
@deed
def unix(): return socket.socket(socket.AF_UNIX).connect(facts["unix"]) is None
@deed
def abstract_unix(): return socket.socket(socket.AF_UNIX).connect("\0" + facts["marker"]) is None
@deed
def unix_by_a_pair():
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"unix", facts["datagrams"])
@deed
def unix_by_a_raw_pair():
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW)
    return one.sendto(b"unix", facts["datagrams"])
@deed
def message_queue(): return libc.syscall(facts["msgget"], facts["key"], 0) >= 0
@deed
def shared_memory(): return libc.syscall(facts["shmget"], facts["key"], 1, 0) >= 0
@deed
def named_queue(): return libc.syscall(facts["mq_open"], marker, os.O_RDONLY, 0, None) >= 0
@deed
def limit_other():
    import resource
    return resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)) and True
@deed
def slow_other():
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    return os.getpriority(os.PRIO_PROCESS, pid) == 19
@deed
def bind_other():
    before = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {min(before)})
    return os.sched_getaffinity(pid) != before
@deed
def netlink(): return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno() >= 0
@deed
def new_user_namespace():
    child = os.fork()
    if child == 0:
        os._exit(libc.unshare(0x10000000) & 1)
    return os.waitpid(child, 0)[1] == 0
@deed
def clone_namespace():
    child = libc.syscall(facts["clone"], 0x10000000 | signal.SIGCHLD, None, None, None, None)
    if child == 0:
        os._exit(0)
    return child > 0 and os.waitpid(child, 0)
@deed
def keyring(): return libc.syscall(facts["add_key"], b"user", b"name", b"value", 5, -3) > 0
@deed
def capabilities():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("CapEff")).split()[1], 16)
@deed
def system_accounts(): return b"root" in open("/etc/passwd", "rb").read()
print(json.dumps(done))
"""

VICTIM = """
import ctypes, struct, sys
# With capabilities, as root has them, it would be out of reach for whoever has none, and nothing be shown.
ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))
buffer = ctypes.create_string_buffer(sys.argv[1].encode())
print(ctypes.addressof(buffer), flush=True)
input()
"""

# Deeds that some hosts forbid to ordinary users anyway, or that even the plain sandbox stops.
MAY_FAIL_OUTSIDE = {"new_user_namespace", "clone_namespace", "keyring", "capabilities", "own_environment"}
if tracing_is_forbidden():
    MAY_FAIL_OUTSIDE |= {"other_memory", "other_memory_by_call", "trace"}
if not os.access(os.__file__, os.W_OK):
    MAY_FAIL_OUTSIDE |= {"write_interpreter"}

if len(os.sched_getaffinity(0)) == 1:
    MAY_FAIL_OUTSIDE |= {"bind_other"}

IPC_CREATE = 0o1000
COLUMN = 0 if os.uname().machine == "x86_64" else 1
CLONE, ADD_KEY = (56, 220)[COLUMN], system_calls.DENIED["add_key"][COLUMN]
SHARED = {name: numbers[COLUMN] for name, numbers in system_calls.SHARED.items()}


@dataclass
class Host:
    """A host with something to lose."""

    root: Path
    marker: str

    def intrude(self, sandbox: Sandbox) -> dict[str, bool]:
        """What the intruder achieved."""
        with ExitStack() as stack:
            facts, handed, code = self._prepare(stack)
            jail = make_jail(self.root / "scratch", read_only=(code,), fds=(handed,))
            output, status, _ = run_python(sandbox, INTRUDER, jail, json.dumps(facts))
        assert status == 0, output
        done: dict[str, bool] = json.loads(output)
        return done

    def _prepare(self, stack: ExitStack) -> tuple[dict[str, object], int, Path]:
        private = self.root / "private"
        private.mkdir()
        for name in ("secret", "victim", "removable", "movable", "handed"):
            (private / name).write_text(self.marker)
            (private / name).chmod(0o600)
        code = self.root / "code"
        code.mkdir()
        (code / "train.py").write_text("")
        victim = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", VICTIM, self.marker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={"API_KEY": self.marker},
            )
        )
        stack.callback(victim.kill)
        assert victim.stdout is not None
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        os.chdir(code)  # a socket's name is short, a temporary folder's may not be
        unix.bind("socket")
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + self.marker)
        for listener in (unix, abstract):
            listener.listen()
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind("datagrams")
        os.chdir(self.root)
        key = self._share(stack)
        handed = os.open(private / "handed", os.O_RDONLY)
        stack.callback(os.close, handed)
        stray = os.open(private / "secret", os.O_RDONLY)
        stack.callback(os.close, stray)
        os.set_inheritable(stray, True)
        facts: dict[str, object] = {
            "secret": str(private / "secret"),
            "victim_file": str(private / "victim"),
            "removable": str(private / "removable"),
            "movable": str(private / "movable"),
            "code": str(code / "train.py"),
            "marker": self.marker,
            "pid": victim.pid,
            "address": int(victim.stdout.readline()),
            "fd": handed,
            "stray": stray,
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": str(code / "socket"),
            "datagrams": str(code / "datagrams"),
            "key": key,
            **SHARED,
            "clone": CLONE,
            "add_key": ADD_KEY,
        }
        return facts, handed, code

    def _share(self, stack: ExitStack) -> int:
        """Make what processes can share without a file; its number, and its name is the marker."""
        key, name, create = secrets.randbits(30) + 1, self.marker.encode(), os.O_CREAT | 0o600
        queue = restrictions.libc.syscall(SHARED["msgget"], key, IPC_CREATE | 0o600)
        stack.callback(restrictions.libc.syscall, SHARED["msgctl"], queue, 0, None)
        memory = restrictions.libc.syscall(SHARED["shmget"], key, 4096, IPC_CREATE | 0o600)
        stack.callback(restrictions.libc.syscall, SHARED["shmctl"], memory, 0, None)
        named = restrictions.libc.syscall(SHARED["mq_open"], name, create, 0o600, None)
        stack.callback(restrictions.libc.syscall, SHARED["mq_unlink"], name)
        assert min(queue, memory, named) >= 0
        stack.callback(os.close, named)
        return key


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    marker = secrets.token_hex(8)
    monkeypatch.setenv("API_KEY", marker)
    monkeypatch.chdir(tmp_path)
    yield Host(tmp_path, marker)
    (Path(os.__file__).parent / marker).unlink(missing_ok=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_intruder_achieves_nothing(backend: str, host: Host) -> None:
    achieved = {deed for deed, done in host.intrude(sandbox_or_skip(backend)).items() if done}
    assert not achieved
    private = {path.name: path for path in (host.root / "private").iterdir()}
    assert set(private) == {"secret", "victim", "removable", "movable", "handed"}
    assert {path.read_text() for path in private.values()} == {host.marker}
    assert {path.stat().st_mode & 0o777 for path in private.values()} == {0o600}


def test_the_same_intruder_achieves_it_all_without_a_sandbox(host: Host) -> None:
    done = host.intrude(create_sandbox("none"))
    refused = {deed for deed, success in done.items() if not success} - MAY_FAIL_OUTSIDE
    assert refused == {"stray_descriptor"}, "the launcher closes descriptors even so"


FILES = ("read_file", "list_folder", "read_by_link", "other_command_line", "system_accounts")
CHANGES = ("write_file", "write_by_link", "new_file", "remove_file", "rename_file", "write_code")
NETWORK = ("tcp", "udp", "dns", "abstract_unix")
SOCKETS = ("netlink", "unix_by_a_pair", "unix_by_a_raw_pair")
SHARES = ("message_queue", "shared_memory")
OTHERS = ("limit_other", "slow_other", "bind_other")
PROCESSES = ("other_environment", "other_memory", "other_memory_by_call", "trace", "signal_other")

REMOVALS: dict[str, tuple[str, tuple[Change, ...], tuple[str, ...]]] = {
    "landlock: reading": ("landlock", (no_landlock,), ("read_file", "list_folder", "read_by_link")),
    "landlock: changing": ("landlock", (no_landlock, no_mounts), (*CHANGES, "change_mode", "change_times")),
    "landlock: descriptors": ("landlock", (no_landlock,), ("reopen_descriptor",)),
    "landlock: network": (
        "landlock",
        (no_landlock, no_seccomp, no_namespaces),
        (*NETWORK, "unix", "netlink"),
    ),
    "landlock: processes": ("landlock", (no_landlock, no_seccomp, no_namespaces), PROCESSES),
    "landlock: seccomp": ("landlock", (no_seccomp,), SOCKETS),
    "landlock: others": ("landlock", (no_seccomp, no_namespaces), (*SHARES, *OTHERS)),
    "landlock: named": ("landlock", (no_landlock, no_seccomp, no_namespaces), ("named_queue",)),
    "bare: reading": ("landlock-bare", (no_landlock,), FILES),
    "bare: changing": ("landlock-bare", (no_landlock,), (*CHANGES, "reopen_descriptor")),
    "bare: attributes": ("landlock-bare", (no_seccomp,), ("change_mode", "change_times")),
    "bare: seccomp": ("landlock-bare", (no_seccomp,), (*SOCKETS, *SHARES, *OTHERS)),
    "bare: network": ("landlock-bare", (no_landlock, no_seccomp), NETWORK),
    "bare: processes": ("landlock-bare", (no_landlock, no_seccomp), PROCESSES),
    "bwrap: files": (
        "bwrap",
        (no_landlock, no_mounts),
        ("read_file", "list_folder", "read_by_link", *CHANGES),
    ),
    "bwrap: descriptors": ("bwrap", (no_landlock,), ("reopen_descriptor",)),
    "bwrap: network": ("bwrap", (no_landlock, no_seccomp, no_namespaces), NETWORK),
    "bwrap: seccomp": ("bwrap", (no_seccomp,), ("netlink",)),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_each_protection_is_what_holds(removal: str, host: Host) -> None:
    backend, changes, deeds = REMOVALS[removal]
    done = host.intrude(without(sandbox_or_skip(backend), *changes))
    assert {deed for deed in deeds if not done[deed]} <= MAY_FAIL_OUTSIDE
