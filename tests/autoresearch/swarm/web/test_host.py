"""The server as a process of its own, with its verifier: killed, and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.support.cli import environment
from tests.support.tracks import Person

ROOT = Path(__file__).parents[4]


def start(root: Path, site: Path) -> tuple[subprocess.Popen[str], str]:
    """A server, and its address once it has one."""
    env = {**environment(), "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "autoresearch", "serve", "t", "--port", "0", "serve.search=false"]
    server = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("track: http"), line
    return server, line.split()[1].removesuffix("/t")


@pytest.mark.soak
def test_a_server_that_is_killed_goes_on_and_its_verifier_with_it(folder, tmp_path):
    root = folder.parent.parent
    server, address = start(root, tmp_path / "site")
    try:
        sent = Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 1.6").to_json().encode()
        with urlopen(Request(f"{address}/api/tracks/t/contributions", sent)) as answer:
            digest = json.load(answer)["contribution"]
    finally:
        server.kill()
        server.wait()
    server, address = start(root, tmp_path / "site")
    try:
        row = {"state": "waiting"}
        while row["state"] in ("waiting", "taken"):
            assert server.poll() is None
            time.sleep(0.2)
            with urlopen(f"{address}/api/tracks/t/contributions/{digest}") as answer:
                row = json.load(answer)
        assert row["state"] == "kept", (folder / "verifier.log").read_text()
        server.send_signal(signal.SIGTERM)
        assert server.wait() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    finally:
        server.kill()
        server.wait()
