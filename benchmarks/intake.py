"""How many contributions a second a server of tracks takes: a real process, over HTTP, with real signatures.

A server of the toy task is started as a process of its own, without a verifier. Contributions of 50 people,
each signed and from a network of its own, are sent at a fixed rate over connections that are kept open; the
time of each counts from when it was due. The server checks signature, rules and duplicates, and writes each
to its store and log, on the disk, before it answers. Printed: contributions a second, the 99th percentile of
the time to the answer, the processor time of the server for each, and by how much its memory grew. Exits
with 1 if a goal is missed.

    python -m benchmarks.intake [--seconds 20] [--rate 100]
"""

from __future__ import annotations

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.swarm import missed
from tests.support import tracks
from tests.support.cli import environment

ROOT = Path(__file__).resolve().parents[1]

PEOPLE = 50

CONNECTIONS = 20
"""That the client keeps open."""

LIMITS = ("waiting=1000000", "daily=1000000", "queue=1000000", "requests=1000000")
"""Of the server: nobody sends too much."""


@dataclass(frozen=True)
class Intake:
    """What was measured.

    Attributes:
        rate: Contributions a second that were answered with 202.
        half: Median of the seconds to the answer.
        late: 99th percentile of them.
        cpu: Processor seconds of the server for each contribution.
        grown: Growth of the server's memory in MB.
        answers: Status -> how often.
    """

    rate: float
    half: float
    late: float
    cpu: float
    grown: float
    answers: dict[int, int]


class Client:
    """Sends contributions over connections that are kept open, one for each thread.

    Args:
        port: Of the server, on the loopback.
    """

    def __init__(self, port: int) -> None:
        self._port, self._own = port, threading.local()
        self._lock = threading.Lock()
        self.took: list[float] = []
        self.answers: Counter[int] = Counter()

    def send(self, number: int, body: bytes, due: float) -> None:
        """Send one, which was due at a time of the monotonic clock."""
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection: http.client.HTTPConnection = self._own.connection
        headers = {"Content-Type": "application/json", "X-Forwarded-For": f"10.{number % PEOPLE}.0.1"}
        for _ in range(2):
            try:
                connection.request("POST", "/api/tracks/t/contributions", body, headers)
                answer = connection.getresponse()
                answer.read()
                break
            except (http.client.HTTPException, ConnectionError):  # it was idle, and the server has closed it
                connection.close()
        took = time.monotonic() - due
        with self._lock:
            self.took.append(took)
            self.answers[answer.status] += 1


def bodies(folder: Path, root: Path, count: int) -> list[bytes]:
    """So many contributions to a track, all different, signed by `PEOPLE` people."""
    people, at = [tracks.Person(root, f"p{number}") for number in range(PEOPLE)], tracks.tip_of(folder)
    changes = ((people[n % PEOPLE], f"LEVEL = 1.{n:06d}") for n in range(1, count + 1))
    return [who.change(folder, "LEVEL = 1.0", new, at=at).to_json().encode() for who, new in changes]


def start(root: Path, site: Path) -> tuple[subprocess.Popen[str], int]:
    """A server of the track in a repository, and its port."""
    env = {**environment(), "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "autoresearch", "serve", "t", "--port", "0", "--no-verify"]
    command += ["--proxies", "127.0.0.1", *(f"serve.{limit}" for limit in LIMITS)]
    server = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline().rpartition(":")[2].partition("/")[0])


def measure(seconds: float, rate: int) -> Intake:
    """Send contributions at a rate for so many seconds."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        root, repository = Path(name), Path(name, "repository")
        tracks.quicken(patch, root / "site")
        tracks.make_begun_root(repository)
        patch.chdir(repository)
        made = bodies(repository / "runs" / "t", root, int(seconds * rate) + CONNECTIONS)
        server, port = start(repository, root / "site")
        try:
            return _sent(Client(port), psutil.Process(server.pid), made, rate)
        finally:
            server.terminate()
            server.wait()


def _sent(client: Client, server: psutil.Process, made: Sequence[bytes], rate: int) -> Intake:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for number, body in enumerate(made[:CONNECTIONS]):  # opens the connections
            pool.submit(client.send, number, body, time.monotonic()).result()
        client.took.clear()
        client.answers.clear()
        used, size, begun = sum(server.cpu_times()[:2]), server.memory_info().rss, time.monotonic()
        for number, body in enumerate(made[CONNECTIONS:]):
            due = begun + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            pool.submit(client.send, number, body, due)
    whole = time.monotonic() - begun
    return Intake(
        rate=client.answers[202] / whole,
        half=median(client.took),
        late=quantiles(client.took, n=100)[98],
        cpu=(sum(server.cpu_times()[:2]) - used) / len(client.took),
        grown=(server.memory_info().rss - size) / 1e6,
        answers=dict(client.answers),
    )


def main() -> int:
    """Run it, print what was measured, and say which goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=100)
    args = parser.parse_args()
    found = measure(args.seconds, args.rate)
    goals = [
        ("contributions a second", found.rate, ">=", 0.99 * args.rate),
        ("99th percentile, s", found.late, "<=", 1.0),
        ("growth of memory, MB", found.grown, "<=", 200.0),
    ]
    print(f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores; answers {found.answers}")
    print(f"median {found.half:.3f} s; processor time of the server {1000 * found.cpu:.1f} ms for each")
    return missed(goals)


if __name__ == "__main__":
    sys.exit(main())
