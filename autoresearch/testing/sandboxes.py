"""What every sandbox promises, as tests.

Subclass `SandboxContract` in a test module of your own::

    from autoresearch.testing.sandboxes import SandboxContract

    class TestMySandbox(SandboxContract):
        @pytest.fixture
        def sandbox(self):
            return MySandbox()

A backend that protects from less than all of `probe.THREATS` says so in `promises`, and its report must say
so to a person.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.sandbox import Jail, Limits, Sandbox, describe, probe, start

LIMITS = Limits(memory_gb=1.0, processes=64, file_gb=0.02, open_files=128)


class SandboxContract:
    """Tests of one backend. A subclass gives the fixture `sandbox`.

    Attributes:
        promises: Keys of `probe.THREATS` from which it protects on this machine.
    """

    promises: Collection[str] = tuple(probe.THREATS)

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        """The backend."""
        raise NotImplementedError

    @pytest.fixture
    def scratch(self, tmp_path: Path) -> Path:
        """The folder that the candidate may write."""
        folder = tmp_path.resolve() / "scratch"
        folder.mkdir()
        return folder

    def jail(self, scratch: Path, **changes: Any) -> Jail:
        """A jail with one writable folder."""
        env = {"PATH": "/usr/bin:/bin", "HOME": str(scratch)}
        values = {"read_only": (), "writable": (scratch,), "env": env, "cwd": scratch, "fds": ()}
        return Jail(**{**values, "gpu": False, "limits": LIMITS, **changes})

    def run(self, sandbox: Sandbox, code: str, jail: Jail, *words: str) -> tuple[str, int, str]:
        """Run Python code: what it printed, its exit status, and the limit it broke."""
        argv = [sys.executable, "-I", "-S", "-c", code, *words]
        with start(sandbox, argv, jail, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as jailed:
            output = jailed.process.communicate(timeout=60)[0].decode(errors="replace")
        return output, jailed.process.returncode, jailed.breach

    def test_what_it_promises_was_seen_to_hold(self, sandbox: Sandbox) -> None:
        """A harmless intruder is kept from every threat, and a person is warned of the others."""
        assert set(sandbox.means) == set(probe.THREATS) and all(sandbox.means.values())
        report = describe(sandbox)
        held = {protection.name for protection in report.protections if protection.held}
        assert held >= {probe.THREATS[key][0] for key in self.promises}
        missing = [otherwise for title, otherwise in probe.THREATS.values() if title not in held]
        assert (report.warning == "") == (not missing)
        assert all(text in report.warning for text in missing)

    def test_equal_sandboxes_have_one_hash(self, sandbox: Sandbox) -> None:
        """So what was measured of one is remembered of the other."""
        assert hash(sandbox) == hash(sandbox) and sandbox in {sandbox}

    def test_the_command_starts_where_told_with_the_environment_given(
        self, sandbox: Sandbox, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of the environment outside is inherited."""
        monkeypatch.setenv("SECRET", "x")
        code = "import os; print(os.getcwd(), dict(os.environ)['ONE'], 'SECRET' in os.environ)"
        output, status, _ = self.run(sandbox, code, self.jail(scratch, env={"ONE": "a b\n'c'"}))
        assert (output, status) == (f"{scratch} a b\n'c' False\n", 0)

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("raise SystemExit(7)", 7),
            ("import os; os.kill(os.getpid(), 9)", 137),
            ("import os; os.abort()", 134),
        ],
    )
    def test_the_exit_status_is_the_candidate_s(
        self, sandbox: Sandbox, scratch: Path, code: str, status: int
    ) -> None:
        """A process that dies of signal n ends with 128 + n."""
        assert self.run(sandbox, code, self.jail(scratch))[1] == status

    def test_a_command_that_does_not_exist_is_an_error(self, sandbox: Sandbox, scratch: Path) -> None:
        """Status 125 says that the sandbox itself failed."""
        argv = sandbox.wrap(["no-such-command"], self.jail(scratch))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        assert done.returncode == 125 and done.stderr.startswith("sandbox: ")

    def test_descriptors_handed_over_arrive_and_no_others(self, sandbox: Sandbox, scratch: Path) -> None:
        """A descriptor that is inheritable by accident does not arrive."""
        read, write = os.pipe()
        other, end = os.pipe()
        os.set_inheritable(other, True)
        code = "import os, sys; os.write(int(sys.argv[1]), b'hello'); os.read(int(sys.argv[2]), 1)"
        output, _, _ = self.run(sandbox, code, self.jail(scratch, fds=(write,)), str(write), str(other))
        assert os.read(read, 10) == b"hello"
        assert "Bad file descriptor" in output
        for fd in (read, write, other, end):
            os.close(fd)

    def test_it_reads_what_it_is_shown_and_writes_its_own_folder(
        self, sandbox: Sandbox, scratch: Path, tmp_path: Path
    ) -> None:
        """What is shown read-only stays as it is, where the backend promises that."""
        shown = tmp_path.resolve() / "shown"
        shown.mkdir()
        (shown / "text").write_text("shown")
        code = (
            "import sys; from pathlib import Path; file = Path(sys.argv[1])\n"
            "Path('own').write_text(file.read_text())\n"
            "file.write_text('changed')"
        )
        jail = self.jail(scratch, read_only=(shown,))
        _, status, _ = self.run(sandbox, code, jail, str(shown / "text"))
        assert (scratch / "own").read_text() == "shown"
        if "changes" in self.promises:
            assert status != 0 and (shown / "text").read_text() == "shown"

    def test_who_writes_more_than_its_limit_is_stopped(self, sandbox: Sandbox, scratch: Path) -> None:
        """Many small files count like one large one."""
        code = (
            "import time\n"
            "for i in range(60): open(str(i), 'wb').write(bytes(10**6)); time.sleep(0.01)\n"
            "time.sleep(60)"
        )
        _, status, breach = self.run(sandbox, code, self.jail(scratch))
        assert status != 0 and "GB of files" in breach

    def test_killing_it_leaves_nothing(self, sandbox: Sandbox, scratch: Path) -> None:
        """Not even a process that has left its session and its parent."""
        code = (
            "import os, sys, time\n"
            "if os.fork() == 0:\n"
            "    os.setsid()\n"
            "    if os.fork() == 0:\n"
            "        print('ready', flush=True); time.sleep(1)\n"
            "        open('survived', 'w').close()\n"
            "    os._exit(0)\n"
            "time.sleep(60)"
        )
        argv = [sys.executable, "-I", "-S", "-c", code]
        with start(sandbox, argv, self.jail(scratch), stdout=subprocess.PIPE) as jailed:
            assert jailed.process.stdout is not None and jailed.process.stdout.readline() == b"ready\n"
        assert jailed.process.stdout.read() == b"", "nobody holds the pipe any more"
        assert not (scratch / "survived").exists()
