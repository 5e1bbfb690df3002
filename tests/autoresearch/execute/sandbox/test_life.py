"""How a jailed tree starts and ends: nothing of it survives, and real work runs inside."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autoresearch.execute.sandbox import cgroup
from tests.support.jail import BACKENDS, make_jail, run_python, sandbox_or_skip, start_python

pytestmark = pytest.mark.slow

ALL = (*BACKENDS, "none")

# Its first process ends only when the daemon has spoken: with it ends the sandbox, and whoever is in it.
DAEMON = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
spoken, speak = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("ready", flush=True)
        os.write(speak, b"!")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(spoken, 1)
"""


def alive(marker: str) -> list[int]:
    """Processes that have the marker on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if marker in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


@pytest.fixture(params=[False, True], ids=["cgroup", "no-cgroup"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(cgroup, "create", lambda limits: None)


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("backend", ALL)
def test_a_daemon_dies_with_a_candidate_that_ends(backend: str, tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    with start_python(sandbox_or_skip(backend), DAEMON, make_jail(tmp_path / "scratch"), marker) as jailed:
        assert jailed.process.stdout is not None
        assert jailed.process.stdout.readline() == b"ready\n"
        assert jailed.process.wait(20) == 0
        if not backend.endswith("bare"):
            assert alive(marker) == [], "when the outermost process has ended, all has"
    assert alive(marker) == []


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize("backend", ALL)
def test_a_daemon_dies_with_a_candidate_that_is_killed(backend: str, tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    code = DAEMON + "\ntime.sleep(600)"
    with start_python(sandbox_or_skip(backend), code, make_jail(tmp_path / "scratch"), marker) as jailed:
        assert jailed.process.stdout is not None
        assert jailed.process.stdout.readline() == b"ready\n"
        assert len(alive(marker)) >= 2
        jailed.kill()
        assert alive(marker) == []
        jailed.kill()


def test_without_a_launcher_the_daemon_survives(tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    argv = [sys.executable, "-I", "-S", "-c", DAEMON, marker]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.wait(20)
        survivors = alive(marker)
        for pid in survivors:
            os.kill(pid, signal.SIGKILL)
    assert len(survivors) == 1


RUNNER = """
import sys, time
from pathlib import Path
from tests.support.jail import make_jail, sandbox_or_skip, start_python
sandbox = sandbox_or_skip(sys.argv[1])
jailed = start_python(sandbox, "import time; print(1, flush=True); time.sleep(600)",
                      make_jail(Path(sys.argv[2])), sys.argv[3])
jailed.process.stdout.readline()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("backend", ALL)
def test_the_tree_dies_with_its_runner(backend: str, tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    sandbox_or_skip(backend)
    argv = [sys.executable, "-c", RUNNER, backend, str(tmp_path / "scratch"), marker]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"ready\n"
        assert len(alive(marker)) >= 2
        runner.kill()
    deadline = time.monotonic() + 60
    while alive(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(marker) == []


TORCH = """
import torch
x = torch.arange(6.0).reshape(2, 3)
attended = torch.nn.functional.scaled_dot_product_attention(*[x[None, None]] * 3)
print((x @ x.T).tolist(), float(attended.sum()) > 0)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_works_inside(backend: str, tmp_path: Path) -> None:
    jail = make_jail(tmp_path / "scratch")
    output, status, _ = run_python(sandbox_or_skip(backend), TORCH, jail, isolated=False)
    assert (output.splitlines()[-1], status) == ("[[5.0, 14.0], [14.0, 50.0]] True", 0)


COMPILE = """
import ctypes, subprocess
open("one.c", "w").write("int one(void) { return 1; }")
subprocess.run(["cc", "-shared", "-fPIC", "-o", "one.so", "one.c"], check=True)
print(ctypes.CDLL("./one.so").one())
"""


@pytest.mark.parametrize("backend", ALL)
def test_a_compiler_is_in_reach_for_torch_compile(backend: str, tmp_path: Path) -> None:
    if not Path("/usr/bin/cc").exists():
        pytest.skip("no C compiler on this machine")
    output, status, _ = run_python(sandbox_or_skip(backend), COMPILE, make_jail(tmp_path / "scratch"))
    assert (output, status) == ("1\n", 0)


TOOL = """
import sys
from pathlib import Path
from autoresearch.execute.sandbox.plain import run_tool
folder = Path(sys.argv[1])
daemon = "(setsid nohup sh -c 'trap \\"\\" TERM HUP; echo $$ >> pids; exec sleep 7788' &) "
words = f"echo $$ >> pids; {daemon}; sleep 7788 & echo $! >> pids; wait"
env = {"PATH": "/usr/bin:/bin"}
run_tool(["sh", "-c", words], folder=folder, env=env, output=folder / "out", timeout=600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_a_tool_and_its_daemons_end_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", TOOL, str(tmp_path)])
    pids = tmp_path / "pids"
    deadline = time.monotonic() + 60
    while not pids.exists() or len(pids.read_text().split()) < 3:
        assert time.monotonic() < deadline and runner.poll() is None
        time.sleep(0.02)
    family = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    runner.kill()
    runner.wait()
    while any(map(_lives, family)):
        assert time.monotonic() < deadline, family
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
