"""A task, a proposer and a machine that have good days and bad ones, for tests that drive whole searches.

The task is the toy with a corpus, and each of its trials says which program and which corpus it had. The
proposer does what `Moody.moods` tells it, and says in each hypothesis which brief and how many notes it saw.
`trouble` lets something happen at one boundary of a command: a kill, a full disk, a lock, a set clock.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import InstanceOf, validate_call

from autoresearch import clock
from autoresearch.config import Config
from autoresearch.errors import UserError
from autoresearch.execute.base import Measurer, Place, TrialSpec
from autoresearch.execute.sandbox import Sandbox
from autoresearch.propose.base import Check, Context, Proposer, ProposerError, SearchServices
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.tasks.base import Dataset
from autoresearch.types import Call, Category, Cost, Edit, Measurement, Progress, Proposal
from tests.support import faults
from tests.support.searches import EVIL
from tests.support.toy_task import PATH, ToyMeasurer, ToyTask

HOLD, HELD = "runs/hold", "runs/held"
"""A trial waits while the one file is there, and makes the other."""


def number(content: bytes | str) -> int:
    """A text as a number that metrics can hold."""
    return int(hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12], 16)


class CorpusTask(ToyTask):
    """The toy, trained on the file that `data.path` names."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._corpus = Path(str(config.data.get("path")))

    def prepare(self, cache: Path) -> Dataset:
        try:
            content = self._corpus.read_bytes()
        except OSError as error:
            raise UserError(f"The corpus {self._corpus} cannot be read: {error.strerror}.") from None
        known = super().prepare(cache / str(number(content)))
        (known.path / "text").write_bytes(content)
        return replace(known, about={**known.about, "key": str(number(content))})

    def measurer(
        self, place: Place, data: Dataset, sandbox: Sandbox, trusted: Path, say: Callable[[str], None]
    ) -> Measurer:
        return _CorpusMeasurer(place, data.path)


class _CorpusMeasurer(ToyMeasurer):
    def __init__(self, place: Place, corpus: Path) -> None:
        super().__init__(place)
        self._corpus = corpus

    def measure(
        self,
        tree: Path,
        spec: TrialSpec,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_stop: Callable[[Progress], bool] | None = None,
    ) -> Measurement:
        while Path(HOLD).exists():
            Path(HELD).touch()
            progress(Progress(0.0, 0.0, loss=9.0))
            time.sleep(0.01)
        program = (tree / PATH).read_bytes()
        had = {
            "program": float(number(program)),
            "corpus": float(number((self._corpus / "text").read_bytes())),
        }
        done = super().measure(tree, spec, scratch, progress, should_stop)
        return replace(done, metrics={**done.metrics, **had})


class Moody(Proposer):
    """Makes better programs, and worse ones, and none, as `moods` says; without a mood better ones."""

    name = "moody"
    instant = True
    moods: ClassVar[deque[str]] = deque()
    price: ClassVar[float] = 0.25

    @validate_call
    def __init__(self, *, services: InstanceOf[SearchServices] | None = None) -> None:
        assert services
        self._record, self._in_vain = services.record, services.unbilled(self.name)

    @property
    def unbilled(self) -> dict[str, Cost]:
        return {self.name: self._in_vain}

    def ask(self, context: Context, check: Check, n: int = 1) -> Sequence[Proposal]:
        before, cost = self._in_vain, Cost(1, 100, 10, self.price, 0.1)
        self._in_vain += cost  # until there is a proposal
        proposal = self._propose(context, check, cost)
        self._in_vain = before
        return [proposal]

    def _propose(self, context: Context, check: Check, cost: Cost) -> Proposal:
        mood = self.moods.popleft() if self.moods else "better"
        self._record(Call(f"{time.monotonic()}", self.name, time.time(), "a question", mood, "", cost))
        if mood == "late":
            raise ProposerError("the server is overloaded", retry=True)
        if mood == "rejected":
            error = ProposerError("401: the key is rejected")
            error.exhausted = False
            raise error
        if mood == "defect":
            raise ValueError("a defect of the proposer")
        level, other = context.sources[PATH].splitlines()[:2]
        count = len(context.proposals) + 1
        edits = {
            "better": Edit(PATH, level, f"LEVEL = {1 + count / 10:.1f}  # 0..2"),
            "worse": Edit(PATH, level, f"LEVEL = {-count / 10:.1f}  # 0..2"),
            "same": Edit(PATH, level, f"{level} "),
        }
        edit = edits.get(mood) or Edit(PATH, other, f"OTHER = '{mood} {count}'")
        saw = f"brief {number(context.brief)} notes {len(context.notes)}"
        words = EVIL if mood == "evil" else mood
        proposal = Proposal(f"{saw} {words}", Category.OTHER, (edit,), self.name, cost=cost)
        check(proposal)
        return proposal


def install(patch: pytest.MonkeyPatch, site: Path) -> None:
    """Make both choices of the command line, as an installed package would: `task=corpus proposer=moody`."""
    about = site / "stateful-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: stateful\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[autoresearch.tasks]\ncorpus = {__name__}:CorpusTask\n"
        f"[autoresearch.proposers]\nmoody = {__name__}:Moody\n"
    )
    patch.syspath_prepend(str(site))
    importlib.invalidate_caches()


class _Trouble(faults.Boundaries):
    """Lets something happen at one boundary."""

    def __init__(self, at: int, happen: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._happen = at, happen

    def passed(self, name: str) -> None:
        super().passed(name)
        if len(self.names) == self._at:
            self._happen()


LOCK = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.execute("BEGIN IMMEDIATE")
print(flush=True)
time.sleep(0.3)
"""


@contextmanager
def trouble(kind: str, at: int, journal: Path, later: float = 0.0) -> Iterator[None]:
    """What a command may meet: at its boundary number `at` something happens.

    Args:
        kind: "kill" (this process ends), "interrupt" (Ctrl-C), "disk" (the journal cannot grow any more),
            "objects" (git cannot write), "lock" (another process holds the journal), "clock" (it is set), or
            "nothing".
        at: Number of the boundary.
        journal: Of the search that is meant.
        later: Seconds that have passed since the process started, beyond those that really have.
    """
    full: set[str] = set()
    shift = 0.0
    real, write, raw = time.time, Journal._write, Repository._raw

    def happen() -> None:
        nonlocal shift
        if kind == "kill":
            os._exit(faults.KILLED)
        if kind == "interrupt" and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        if kind == "clock":
            shift = -3600.0 if at % 2 else 90_000.0
        if kind == "lock" and journal.exists():
            command = [sys.executable, "-IS", "-c", LOCK, str(journal)]
            holder = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert holder.stdout
            holder.stdout.read(1)
            threading.Thread(target=holder.communicate).start()
        full.add(kind)

    @contextmanager
    def writes(own: Journal) -> Iterator[sqlite3.Connection]:
        if "disk" in full:
            pages = own._db.execute("PRAGMA page_count").fetchone()[0]
            own._db.execute(f"PRAGMA max_page_count = {pages}")
        if "lock" in full:
            own._db.execute("PRAGMA busy_timeout = 20")
        with write(own) as db:
            yield db

    def runs(own: Repository, *arguments: str, **more: Any) -> bytes:
        if "objects" in full and any(word in faults.WRITING for word in arguments):
            raise UserError("git failed: error: unable to write file: No space left on device", code=3)
        return raw(own, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "_ORIGIN", clock._ORIGIN + later)
        patch.setattr(time, "time", lambda: real() + later + shift)
        if kind != "nothing":
            patch.setattr(Journal, "_write", writes)
            patch.setattr(Repository, "_raw", runs)
            faults.install(_Trouble(at, happen), patch.setattr)
        yield


def contents(path: Path) -> list[str]:
    """Everything that is in an SQLite file."""
    if not path.exists():
        return []
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return list(db.iterdump())
    finally:
        db.close()


def ugly(text: str) -> bool:
    """Whether a text would do something to a terminal."""
    return bool(re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text))
