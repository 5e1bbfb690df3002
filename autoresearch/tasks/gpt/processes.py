"""The three jailed processes of a trial, started at once or kept ready for the next one.

    trainer             runs the training script           (ready: `nanomodel.standby` waits in its place)
    model, witness      serve the submitted model          (idle until they are handed weights)

Invariants: each crew serves one trial, and no two crews share a folder. A crew that is kept ready has
started from a tree without any candidate's file in it, so nothing but frozen code has run in it; the
candidate's files are put in from outside when its trial begins, and the whole tree is then compared with the
candidate's own.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from autoresearch.execute.sandbox import Limits, Sandbox, remove_tree
from autoresearch.execute.tree_hash import digest
from autoresearch.tasks.gpt.process import Candidate
from nanomodel.wire import WireError

FOLDERS = ("train", "model", "witness")
"""What the three may write, below a trial's scratch folder."""
STANDBY = "standby"
"""Module of the task's package that waits in the place of a training script."""
OURS = f"{os.getpid()}-{secrets.token_hex(4)}"
"""What places of this process are called: a number alone may have been a dead runner's."""
PATIENCE = 60.0
"""Seconds that a crew may take to be ready before a fresh one is started instead."""


@dataclass(frozen=True)
class Kit:
    """How candidates' processes are started; the same for every trial.

    Attributes:
        sandbox: How they are confined.
        limits: How much of the host each may use.
        train: Module of the training script.
        serve: Module of the model server.
        threads: CPU threads of each.
        gpu: Whether they may use the GPU.
        furnish: Called with the folder of a trainer before a script runs in it.
        only: The only GPU they are to see; empty for whatever we see.
    """

    sandbox: Sandbox
    limits: Limits
    train: str
    serve: str
    threads: int
    gpu: bool
    furnish: Callable[[Path], None]
    only: str = ""

    def start(self, code: Path, folder: Path, name: str, *module: str) -> Candidate:
        """Start one of them, with a folder of its own below `folder`."""
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        return Candidate(
            self.sandbox,
            *module,
            code=code,
            folder=own,
            threads=self.threads,
            gpu=self.gpu,
            limits=self.limits,
            only=self.only,
        )


class Crew:
    """The processes of one trial. Use it as a context: leaving kills them all.

    Attributes:
        code: The tree they run.
        folder: Where their folders are.
        trainer: Runs the training script.
        servers: The model's server and the witness's.
        logs: What all of them print, those that were replaced included.
    """

    def __init__(self, kit: Kit, code: Path, folder: Path, *, standby: bool = False) -> None:
        """Start all three.

        Args:
            kit: How.
            code: The candidate's tree; with `standby`, one that still lacks the candidate's files.
            folder: Where their folders are made.
            standby: Whether the trainer waits for `go`.
        """
        self.code, self.folder, self._kit, self._waits = code, folder, kit, standby
        package = kit.train.rpartition(".")[0]
        module = (f"{package}.{STANDBY}", kit.train) if standby else (kit.train,)
        if not standby:
            (folder / FOLDERS[0]).mkdir(parents=True, exist_ok=True)
            kit.furnish(folder / FOLDERS[0])
        with ExitStack() as stack:
            self.trainer = stack.enter_context(kit.start(code, folder, FOLDERS[0], *module))
            self.servers = [
                stack.enter_context(kit.start(code, folder, name, kit.serve)) for name in FOLDERS[1:]
            ]
            self._stack = stack.pop_all()
        self.logs = [process.log for process in (self.trainer, *self.servers)]

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def go(self) -> bool:
        """Let the waiting trainer run its script; whether it was ready and could be told."""
        if not self._waits:
            return True
        try:
            message, _ = self.trainer.wire.recv(PATIENCE)
            self.trainer.wire.send({"type": "go"})
        except WireError:
            return False
        return message.get("type") == STANDBY and all(server.alive for server in self.servers)

    def renew_servers(self) -> None:
        """Put fresh servers in the place of those that have seen weights or questions.

        Nothing that the old ones wrote is left: a witness that had been asked before would know too much.
        """
        for server in self.servers:
            server.kill()
        for name in FOLDERS[1:]:
            remove_tree(self.folder / name)
        self.servers = [
            self._stack.enter_context(self._kit.start(self.code, self.folder, name, self._kit.serve))
            for name in FOLDERS[1:]
        ]
        self.logs += [server.log for server in self.servers]

    def kill(self) -> None:
        """Kill all three, and wait until they are gone."""
        self._stack.close()


class Standby:
    """Keeps one crew ready for the trial that comes next.

    Safe to use from several threads: a crew is given to one of them.
    """

    _numbers = itertools.count(1)

    def __init__(self, kit: Kit, folder: Path, trusted: Path, editable: Sequence[str]) -> None:
        """Nothing is started yet; what a killed runner left behind is removed.

        Args:
            kit: How to start a crew.
            folder: Below it the waiting crews live.
            trusted: A tree that no candidate can write: the task's frozen files are taken from here.
            editable: The files that come with a candidate, relative to the tree.
        """
        self._kit, self._trusted, self._editable = kit, trusted, tuple(editable)
        self._folder = folder / f"{OURS}-{next(self._numbers)}"
        self._lock = threading.Lock()
        self._next: Future[Crew] | None = None
        # Jailed processes die with the thread that started them, so that one stays for as long as this does.
        self._starter = ThreadPoolExecutor(1, "standby")
        for old in folder.glob("*-*"):
            if not old.name.startswith(f"{OURS}-"):
                remove_tree(old)

    def prepare(self) -> None:
        """Begin to start a crew, unless there is one. Returns at once."""
        with self._lock:
            if self._next is None:
                self._next = self._starter.submit(self._start)

    def take(self, code: Path) -> Crew | None:
        """The crew that waits, told to run the candidate in `code`; None if there is none that can.

        Its tree is then the same as `code`, and its folders lie in a place that `leave` removes.
        """
        with self._lock:
            waiting, self._next = self._next, None
        if waiting is None:
            return None
        try:
            crew = waiting.result()
        except Exception:  # whatever it is: a crew of the trial's own will meet it, and say so
            return None
        try:
            if self._bring(code, crew.code):
                self._kit.furnish(crew.folder / FOLDERS[0])
                if crew.go():
                    return crew
        except BaseException:
            self.leave(crew)
            raise
        self.leave(crew)
        return None

    def leave(self, crew: Crew, keep: Path | None = None) -> None:
        """End a crew and remove its place.

        Args:
            crew: From `take`.
            keep: Where to put what it wrote, if that is wanted and possible.
        """
        crew.kill()
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for name in FOLDERS:
                if not (keep / name).exists():
                    with suppress(OSError):
                        (crew.folder / name).rename(keep / name)
        remove_tree(crew.code.parent)

    def close(self) -> None:
        """End whoever waits. Nothing can be prepared afterwards."""
        with self._lock:
            waiting, self._next = self._next, None
        if waiting is not None and not waiting.cancel():
            with suppress(Exception):
                self.leave(waiting.result())
        self._starter.shutdown()
        remove_tree(self._folder)

    def _start(self) -> Crew:
        place = self._folder / str(next(self._numbers))
        shutil.copytree(
            self._trusted, place / "code", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        for path in self._editable:
            (place / "code" / path).unlink(missing_ok=True)
        return Crew(self._kit, place / "code", place / "scratch", standby=True)

    def _bring(self, code: Path, tree: Path) -> bool:
        """Put the candidate's files into a tree; whether it is then the candidate's whole tree."""
        for path in self._editable:
            source, target = code / path, tree / path
            if source.is_symlink() or not source.is_file():
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return digest(tree) == digest(code)
