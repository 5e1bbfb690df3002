"""The jailed processes of a trial, started with the trial or kept ready before it.

    trainer             runs the training script           (kept ready: `nanomodel.standby` runs in its place)
    model, witness      serve the submitted model          (idle until they get weights)
    blind               the same, asked before the others  (only in some trials; never kept ready)

No name, path or number tells a server which of them it is; when it gets its weights does.

Invariants: each set of processes serves one trial, and no two sets share a folder. A set that is kept ready
started from a tree without any candidate's file, so it has run only frozen code. When its trial begins, the
runner copies the candidate's files in from outside, and compares the whole tree with the candidate's.
"""

from __future__ import annotations

import itertools
import random
import secrets
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from autoresearch.execute.sandbox.usage import folder_bytes
from autoresearch.store.files import digest, remove_tree
from autoresearch.tasks.gpt.program import CACHES, RUNNER_ID, JailedProgram
from autoresearch.tasks.gpt.settings import LaunchOptions
from nanomodel.wire import WireError

LARGEST_CACHE = 1 << 30
"""In bytes. A larger compile cache would cost more to copy than it saves."""
SERVERS = ("model", "witness")
BLIND = "blind"
FOLDERS = ("train", *SERVERS, BLIND)
"""The folders that they could write, once they are dead; while they live, the names tell nothing."""
STANDBY = "standby"
"""Module of the task's package that waits in place of a training script."""
READY_SECONDS = 60.0
"""Seconds in which waiting processes must answer; otherwise new ones are started."""


class TrialProcesses:
    """The processes of one trial. Use it as a context: leaving kills them all.

    Attributes:
        code: The tree they run.
        folder: Where their folders are.
        folders: The folder of each, by its name in `FOLDERS`.
        trainer: Runs the training script.
        servers: The model's server and the witness's, after the one for blind questions if there is one.
        names: Of the servers.
    """

    def __init__(self, options: LaunchOptions, code: Path, folder: Path, *, standby: bool = False) -> None:
        """Start trainer, model and witness.

        Args:
            options: How to start them.
            code: The candidate's tree; with `standby`, one that still lacks the candidate's files.
            folder: Where their folders are made.
            standby: Whether the trainer waits for `run_script`.
        """
        self.code, self.folder, self._options, self._waits = code, folder, options, standby
        self.names: tuple[str, ...] = SERVERS
        self.folders = {name: folder / secrets.token_hex(6) for name in FOLDERS}
        script = options.settings.train
        module = (f"{script.rpartition('.')[0]}.{STANDBY}", script) if standby else (script,)
        if not standby:
            self.folders["train"].mkdir(parents=True)
            options.before_script(self.folders["train"])
        with ExitStack() as stack:
            self.trainer = stack.enter_context(JailedProgram(options, code, self.folders["train"], *module))
            self._stack = stack
            self.servers = self._start_servers(self.names)
            self._stack = stack.pop_all()

    def __enter__(self) -> TrialProcesses:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def run_script(self) -> bool:
        """Let the waiting trainer run its script; False if it was not ready or cannot be told."""
        if not self._waits:
            return True
        try:
            message, _ = self.trainer.wire.recv(READY_SECONDS)
            self.trainer.wire.send({"type": "go"})
        except WireError:
            return False
        return message.get("type") == STANDBY and all(server.alive for server in self.servers)

    def renew_servers(self) -> None:
        """Replace servers that have seen weights or requests by new ones.

        Files of the old servers are deleted, since a witness must not learn about earlier requests.
        """
        for server in self.servers:
            server.kill()
        for name in self.names:
            remove_tree(self.folders[name])
            self.folders[name] = self.folder / secrets.token_hex(6)
        self.servers = self._start_servers(self.names)

    def add_blind_server(self) -> None:
        """Start one more server, which will be asked before the others."""
        [server] = self._start_servers((BLIND,))
        self.servers, self.names = [server, *self.servers], (BLIND, *self.names)

    def kill(self) -> None:
        """Kill all of them, wait until they are gone, and give their folders plain names."""
        self._stack.close()
        for name, path in self.folders.items():
            if path.exists() and not (self.folder / name).exists():
                path.rename(self.folder / name)

    def _start_servers(self, names: Sequence[str]) -> list[JailedProgram]:
        module = self._options.settings.serve
        started = {
            name: self._stack.enter_context(
                JailedProgram(self._options, self.code, self.folders[name], module)
            )
            for name in random.sample(names, len(names))
        }
        return [started[name] for name in names]


class Standby:
    """Keeps the processes of the next trial ready. Safe to use from several threads."""

    _numbers = itertools.count(1)

    def __init__(self, options: LaunchOptions, folder: Path, trusted: Path, editable: Sequence[str]) -> None:
        """Remove the folders of killed runners; starts no process.

        Args:
            options: How to start processes.
            folder: The folder that holds the processes' folders.
            trusted: A tree that no candidate can write: the task's frozen files are copied from here.
            editable: The files that come with a candidate, relative to the tree.
        """
        self._options, self._trusted, self._editable = options, trusted, tuple(editable)
        self._folder = folder / f"{RUNNER_ID}-{next(self._numbers)}"
        self._lock = threading.Lock()
        self._next: Future[TrialProcesses] | None = None
        # Jailed processes die with the thread that started them, so this thread lives as long as this object.
        self._starter = ThreadPoolExecutor(1, "standby")
        for old in folder.glob("*-*"):
            if not old.name.startswith(f"{RUNNER_ID}-"):
                remove_tree(old)

    def prepare(self) -> None:
        """Start processes in the background, unless some are ready or starting. Returns at once."""
        with self._lock:
            if self._next is None:
                self._next = self._starter.submit(self._start)

    def begin(self, code: Path) -> TrialProcesses | None:
        """Let waiting processes run the candidate in `code`; None if no waiting processes can.

        Their tree is then the same as `code`, and their folders lie in a place that `end` removes.
        """
        with self._lock:
            ready, self._next = self._next, None
        if ready is None:
            return None
        try:
            processes = ready.result()
        except Exception:  # the trial then starts its own, which fail too and say why
            return None
        try:
            if self._copy_candidate(code, processes.code):
                self._options.before_script(processes.folders["train"])
                if processes.run_script():
                    return processes
        except BaseException:
            self.end(processes)
            raise
        self.end(processes)
        return None

    def end(self, processes: TrialProcesses, keep: Path | None = None) -> None:
        """Kill processes and remove their folders.

        Args:
            processes: From `begin`.
            keep: Where to move their files, if possible; None: delete them.
        """
        processes.kill()
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for name in FOLDERS:
                if not (keep / name).exists():
                    with suppress(OSError):
                        (processes.folder / name).rename(keep / name)
        remove_tree(processes.code.parent)

    def close(self) -> None:
        """End the waiting processes; no others can be prepared afterwards."""
        with self._lock:
            ready, self._next = self._next, None
        if ready is not None and not ready.cancel():
            with suppress(Exception):
                self.end(ready.result())
        self._starter.shutdown()
        remove_tree(self._folder)

    def _start(self) -> TrialProcesses:
        place = self._folder / str(next(self._numbers))
        shutil.copytree(
            self._trusted, place / "code", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        for path in self._editable:
            (place / "code" / path).unlink(missing_ok=True)
        return TrialProcesses(self._options, place / "code", place / "scratch", standby=True)

    def _copy_candidate(self, code: Path, tree: Path) -> bool:
        """Copy the candidate's files into a tree; returns whether it then equals the candidate's tree."""
        for path in self._editable:
            source, target = code / path, tree / path
            if source.is_symlink() or not source.is_file():
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return digest(tree) == digest(code)


class CompileCache:
    """Keeps the compile cache of one trial of the starting script, and gives copies to later trials.

    Only a jailed process that ran nothing but the starting commit's code writes it. Each trial gets a copy,
    which is deleted with the trial, so a candidate can spoil only its own compilation. (The cache holds
    executable code: if a candidate could write it, its code would run in other trials.)
    """

    def __init__(self, folder: Path, trusted: Path) -> None:
        """Use the cache of an earlier run of the same search, if it exists.

        Args:
            folder: The folder of the cache; no candidate can write it.
            trusted: The tree of the starting commit.
        """
        self._folder, self._starting = folder, digest(trusted)
        for partial in folder.parent.glob(f"{folder.name}.*"):
            if not partial.name.startswith(f"{folder.name}.{RUNNER_ID}"):  # of a killed runner, incomplete
                remove_tree(partial)

    def keep(self, code: Path, folder: Path) -> None:
        """Keep the cache of a finished trial, if it ran the starting script and none is kept yet.

        Args:
            code: The tree it ran.
            folder: The folder that its training process could write; the process is dead.
        """
        found = [folder / name for name in CACHES.values() if (folder / name).is_dir()]
        if self._folder.exists() or not found or digest(code) != self._starting:
            return
        if sum(map(folder_bytes, found)) > LARGEST_CACHE:
            return
        partial = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}.{RUNNER_ID}.", dir=self._folder.parent))
        for source in found:
            shutil.copytree(source, partial / source.name, symlinks=True)
        try:
            partial.rename(self._folder)
        except OSError:  # another place of the same search was first
            remove_tree(partial)

    def copy_to(self, folder: Path) -> None:
        """Put a copy into the folder of a training process that has not started yet."""
        if self._folder.is_dir():
            shutil.copytree(self._folder, folder, symlinks=True, dirs_exist_ok=True)
