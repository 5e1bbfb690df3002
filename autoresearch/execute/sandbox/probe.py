"""Measures what a sandbox protects here: runs a harmless intruder inside, and reports what it achieved.

Invariant: every reported protection was tried on this machine. The intruder reads a file, changes a file,
connects to a listener, looks for another process and its environment, and leaves a daemon behind; all these
targets belong to the probe.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autoresearch.execute.sandbox import cgroup
from autoresearch.execute.sandbox.base import Jail, Limits, Protection, Sandbox

LIMITS = Limits(memory_gb=1.0, processes=64, file_gb=0.1, open_files=64)

PROBE_SECONDS = 30.0
"""A sandbox whose intruder has not ended by then does not work."""

INTRUDER = r"""
import json, os, socket, sys
secret, pid, port, marker = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def can(attack):
    try:
        return bool(attack())
    except Exception:
        return False
def change():
    os.chmod(secret, 0o640)
    with open(secret, "a") as file:
        return file.write("changed")
def connect():
    return socket.create_connection(("127.0.0.1", port), 2).sendall(b"x") is None
def read(path):
    with open(path, "rb") as file:
        return marker.encode() in file.read()
done = {
    "files": can(lambda: read(secret)),
    "changes": can(change),
    "network": can(connect),
    "processes": can(lambda: os.kill(pid, 0) is None) or can(lambda: read(f"/proc/{pid}/cmdline")),
    "secrets": can(lambda: read(f"/proc/{pid}/environ")),
}
print(json.dumps(done), flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdin.read()  # ends when the probe closes it, should nothing else have ended it before
        import time
        time.sleep(0.5)
        print("daemon", flush=True)
    os._exit(0)
os.wait()
"""

THREATS = {
    "files": ("your files are private", "a candidate can read what you can read"),
    "changes": ("your files stay as they are", "a candidate can change what you can change"),
    "network": ("no network", "a candidate can open connections"),
    "processes": ("other processes are out of reach", "a candidate can see and signal other processes"),
    "secrets": (
        "secrets are out of reach",
        "a candidate can read other processes' environment, keys included",
    ),
    "daemons": ("nothing outlives a trial", "a candidate can leave processes behind"),
}


class ProbeError(Exception):
    """The sandbox cannot run anything here; the message is its error."""


@dataclass(frozen=True)
class Report:
    """What a sandbox protects on this machine.

    Attributes:
        backend: Its name.
        protections: Each protection, and whether it held.
        warning: A sentence for every start of a search, if something does not hold; else empty.
    """

    backend: str
    protections: tuple[Protection, ...]
    warning: str


@cache
def describe(sandbox: Sandbox) -> Report:
    """Run the intruder inside, once for each sandbox, and report which protections held.

    Raises:
        ProbeError: If nothing runs in this sandbox here.
    """
    achieved = _intrude(sandbox)
    protections = [
        Protection(title, key not in achieved, sandbox.means[key] if key not in achieved else otherwise)
        for key, (title, otherwise) in THREATS.items()
    ]
    protections.append(Protection("use of the machine is limited", True, _limits()))
    return Report(sandbox.name, tuple(protections), _warning(sandbox.name, protections))


def _intrude(sandbox: Sandbox) -> set[str]:
    """Keys of `THREATS` that the intruder achieved."""
    marker = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        root = Path(folder).resolve()
        secret, scratch = root / "secret", root / "scratch"
        secret.write_text(marker)
        secret.chmod(0o600)
        scratch.mkdir()
        victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "input()", marker],
            stdin=subprocess.PIPE,
            env={"SECRET": marker},
        )
        try:
            words = [str(secret), str(victim.pid), str(listener.getsockname()[1]), marker]
            argv = [sys.executable, "-I", "-S", "-c", INTRUDER, *words]
            jail = Jail((), (scratch,), {"HOME": str(scratch)}, scratch, (), False, LIMITS)
            output = _run(sandbox, argv, jail)
        finally:
            victim.kill()
            victim.communicate()
        achieved = {key for key, done in json.loads(output[0]).items() if done}
        if secret.read_text() != marker or secret.stat().st_mode & 0o777 != 0o600:
            achieved.add("changes")
        if "daemon" in output[1:]:
            achieved.add("daemons")
        return achieved


def _run(sandbox: Sandbox, argv: list[str], jail: Jail) -> list[str]:
    """Lines that the intruder and its daemon printed."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            sandbox.wrap(argv, jail),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise ProbeError(f"{error.filename}: {error.strerror}") from error
    try:
        output, errors = process.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own, and may have children
        process.communicate()
        raise ProbeError(f"it did not end within {PROBE_SECONDS:g} seconds") from None
    if process.returncode != 0:
        raise ProbeError(errors.strip() or f"exit status {process.returncode}")
    return output.splitlines()


def _limits() -> str:
    group = cgroup.create(LIMITS)
    if group is None:
        return "resource limits of the system, and a look at all processes ten times a second"
    group.remove()
    return "a control group for memory and processes; disk is looked at three times a second"


def _warning(name: str, protections: list[Protection]) -> str:
    missing = [protection.how for protection in protections if not protection.held]
    if not missing:
        return ""
    return f"Candidates run without protection (sandbox: {name}): {'; '.join(missing)}."
