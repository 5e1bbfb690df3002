"""Inner searches: each is a search of its own that follows one brief. It is run, resumed by name, and read.

An inner search is an ordinary search in a folder of its own. Its name follows from the brief, the seed and
the settings, so nothing is paid for twice: a search that has ended is read, and one that was killed goes on.
It runs in a process of its own, through the same command as any search, on a repository that holds the
starting commit's files alone: the user's repository gets none of its commits. Its gain is what its own judge
claims on the sealed split. Nothing kept, or nothing that can be claimed, is a gain of 0.

Money is counted here: an inner search is begun only if what has been paid, its cap, and the caps of all that
have not ended stay below the common cap. Not covered: what is done with the gains (`measurer`,
`autoresearch.contest`).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from autoresearch.clock import now
from autoresearch.config import Config, load
from autoresearch.config.files import quoted
from autoresearch.errors import UserError
from autoresearch.store.claims import read_claims
from autoresearch.store.connection import open_read_only
from autoresearch.store.files import remove_tree
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.notes import read_unbilled, seconds_after
from autoresearch.store.searches import STOPPED
from autoresearch.types import Cost, Experiment, in_order

TIED = """
import ctypes, os, runpy, signal, sys
libc = ctypes.CDLL(None)
if hasattr(libc, "prctl"):
    libc.prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(128 + signal.SIGTERM)
runpy.run_module("autoresearch", run_name="__main__", alter_sys=True)
"""
"""Runs the command line, and ends with the process that started it (on Linux, PR_SET_PDEATHSIG)."""
LOOK, KEEP_TIME, PATIENCE = 0.2, 5.0, 60.0
"""Seconds between two looks at an inner search, and two notes of its time; and for it to end when told to."""
ATTEMPTS = 3
"""Times that an inner search is started without coming to its end."""
RUNS_ALREADY = 4
"""Exit code of a search that another process runs."""
OWN = ("name", "runs", "brief", "seed", "experiments", "minutes")
"""Settings of an inner search that follow from what it is for."""
DEFAULTS = ("tracking=none", "alarm=null")
"""Unless the settings say otherwise: the outer search is tracked; a brief that makes all fail has no gain."""


@dataclass(frozen=True)
class Spend:
    """What one inner search may use.

    Attributes:
        experiments: Candidates that it tries.
        minutes: Or so long; None: no limit.
        dollars: Most that it may pay for language models; None: what its proposer's own settings say.
    """

    experiments: int
    minutes: float | None = None
    dollars: float | None = None


@dataclass(frozen=True)
class Inner:
    """One inner search: a brief, the seed of the search, and its settings."""

    brief: str
    seed: int
    settings: tuple[str, ...]
    spend: Spend

    @property
    def name(self) -> str:
        """Its name, equal for the same search only."""
        what = json.dumps([self.brief, self.settings, self.spend.experiments, self.spend.minutes])
        return f"{hashlib.sha256(what.encode()).hexdigest()[:12]}-{self.seed}"


@dataclass(frozen=True)
class Result:
    """What an inner search came to.

    Attributes:
        name: Its name.
        gain: Of its tip over its start on the sealed split, in the unit of its metric; positive is better.
        error: Standard error of `gain`; 0 if nothing was kept.
        tried: Its experiments.
        kept: How many of them were kept.
        dollars: What it paid for language models.
        device_seconds: For how long its trials kept devices busy.
        void: Why there is no claim although something was kept; empty if there is one.
        experiments: All of them, the baseline first.
    """

    name: str
    gain: float
    error: float
    tried: int
    kept: int
    dollars: float
    device_seconds: float
    void: str
    experiments: tuple[Experiment, ...]


class Searches:
    """The inner searches of one folder.

    Args:
        folder: For all of them; made if it is missing. `code` in it is their repository.
        cache: Prepared data, shared with all other searches.
        settings: Of each inner search, as for `autoresearch run`.
        spend: What each may use.
        dollars: Most that all of them may pay for language models; None: no limit.
    """

    def __init__(
        self, folder: Path, cache: Path, settings: Sequence[str], spend: Spend, dollars: float | None = None
    ) -> None:
        self.folder, self.cache = folder.resolve(), cache.resolve()
        self.settings, self.spend, self.dollars = tuple(settings), spend, dollars
        self._ended: dict[str, Result] = {}

    @property
    def code(self) -> Path:
        """The repository in which they run."""
        return self.folder / "code"

    def prepare(self, export: Callable[[Path], None]) -> None:
        """Make the repository, once.

        Args:
            export: Writes the files of the starting commit into a folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.code.exists():
            half = self.folder / "code.half"
            remove_tree(half)
            export(half)
            Repository.begin(half)
            half.rename(self.code)
        if not (link := self.folder / "cache").exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.cache, target_is_directory=True)

    def inner(self, brief: str, seed: int, more: Sequence[str] = ()) -> Inner:
        """The inner search that follows a brief.

        Args:
            brief: The text.
            seed: Of the search.
            more: Settings that replace others.
        """
        return Inner(brief, seed, merged(self.settings, more), self.spend)

    def result(self, inner: Inner) -> Result | None:
        """What an inner search came to; None while it has not ended."""
        return self._read(self.folder / inner.name)

    def _read(self, folder: Path) -> Result | None:
        """What a search came to; what has ended does not change any more."""
        if folder.name not in self._ended and (done := read_result(folder)):
            self._ended[folder.name] = done
        return self._ended.get(folder.name)

    def run(self, inner: Inner, tick: Callable[[float, int], None] = lambda seconds, tried: None) -> Result:
        """Run an inner search to its end; one that has ended is only read.

        Args:
            inner: Which one.
            tick: Called several times a second with the seconds that it has run and the number of its
                experiments; an exception stops the search, which can go on later.

        Raises:
            UserError: If it cannot be run to its end, or if it could break the common cap in dollars.
        """
        if done := self.result(inner):
            return done
        self._check_money(inner)
        text = self.folder / f"{inner.name}.md"
        text.write_text(inner.brief, encoding="utf-8")
        log = self.folder / f"{inner.name}.log"
        journal = self.folder / inner.name / "journal.db"
        for _ in range(ATTEMPTS):
            clock = _Clock(self.folder / f"{inner.name}.seconds")
            overrides = self._overrides(inner, text, clock.before)

            def look(clock: _Clock = clock) -> None:
                tick(clock.tick(), _tried(journal))

            code = run_search(self.code, overrides, log, look)
            clock.note()
            if done := self.result(inner):
                return done
            if code == RUNS_ALREADY:  # it has survived the process that started it
                while _runs(journal):
                    look()
                    time.sleep(LOOK)
            elif code:
                break
        said = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        raise UserError(
            f"The inner search {inner.name} did not come to its end. It said last:\n{said}",
            f"The same command goes on with it. Look at it: autoresearch report name={inner.name} "
            f"runs={self.folder}",
            code=3,
        )

    def spent(self, but: str = "") -> float:
        """Dollars of all inner searches but one; a search that has not ended counts with its cap."""
        each = cap(self.settings, self.spend) or 0.0
        found = [path.parent for path in self.folder.glob("*/journal.db") if path.parent.name != but]
        return sum(done.dollars if (done := self._read(folder)) else each for folder in found)

    def affords(self, count: int) -> bool:
        """Whether so many more inner searches are sure to stay below the common cap."""
        each = cap(self.settings, self.spend)
        return self.dollars is None or self.spent() + count * (each or 0.0) <= self.dollars

    def _check_money(self, inner: Inner) -> None:
        if self.dollars is None:
            return
        each, others = cap(inner.settings, inner.spend), self.spent(but=inner.name)
        if each is None:
            raise UserError(
                f"A cap of {self.dollars:g} dollars for all inner searches needs one for each of them.",
                "Give it: budget.dollars=...",
            )
        if others + each > self.dollars:
            raise UserError(
                f"The next inner search could break the cap of {self.dollars:g} dollars: {others:.4g} are "
                f"spent or reserved, and it may spend up to {each:.4g}.",
                "Raise the cap and give the same command again: nothing is lost.",
                code=3,
            )

    def _overrides(self, inner: Inner, brief: Path, seconds: float) -> list[str]:
        """The settings of an inner search that has run for so many seconds before."""
        given = {override.partition("=")[0] for override in inner.settings}
        spend = inner.spend
        left = None if spend.minutes is None else max(spend.minutes - seconds / 60, 0.001)
        own = {
            "name": inner.name,
            "runs": str(self.folder),
            "brief": str(brief),
            "seed": inner.seed,
            "experiments": spend.experiments,
            **({} if left is None else {"minutes": left}),
            **({} if spend.dollars is None else {"proposer.max_dollars": spend.dollars}),
        }
        default = [value for value in DEFAULTS if value.partition("=")[0] not in given]
        return [*default, *inner.settings, *(f"{key}={quoted(value)}" for key, value in own.items())]


def merged(settings: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Settings with others in place of those of the same keys."""
    keys = {override.partition("=")[0] for override in more}
    return (*(override for override in settings if override.partition("=")[0] not in keys), *more)


def run_search(code: Path, overrides: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Run a search through the command line, in a process that ends with this one.

    Args:
        code: The repository.
        overrides: As for `autoresearch run`.
        log: What it says is added there.
        tick: Called several times a second; if it raises, the search is stopped.

    Returns:
        Its exit code.
    """
    # -P: the repository may hold modules of any name; they are not to be imported here.
    command = [sys.executable, "-P", "-c", TIED, str(os.getpid()), "run", "--view", "plain", *overrides]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=code, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while process.poll() is None:
            tick()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
    finally:
        if process.poll() is None:
            _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a search as Ctrl-C does; one that does not end is killed."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_result(folder: Path) -> Result | None:
    """What the search in a folder came to; None while it has not ended, its claim included."""
    if not (folder / "journal.db").exists():
        return None
    with closing(Journal(folder / "journal.db")) as journal:
        if journal.info().finished is None or journal.get(STOPPED) or journal.runner() is not None:
            return None
        experiments = journal.experiments()
        kept = [e for e in in_order(experiments) if e.kept]
        claim = next((c for c in read_claims(journal) if kept and c.tip == kept[-1].commit), None)
        if kept and (claim is None or claim.finished is None):
            return None
        gain = error = 0.0
        if claim is not None and claim.result is not None:
            low, high = claim.result.interval
            gain, error = claim.result.effect, (high - low) / 2 / NormalDist().inv_cdf(0.975)
        return Result(
            name=folder.name,
            gain=gain,
            error=error,
            tried=len(experiments) - 1,
            kept=len(kept),
            dollars=_dollars(journal, experiments),
            device_seconds=sum(t.seconds for e in experiments for t in e.trials) + seconds_after(journal),
            void=claim.void if claim else "",
            experiments=experiments,
        )


def cap(settings: Sequence[str], spend: Spend) -> float | None:
    """Most that one inner search can pay for language models; None if nothing limits it.

    Raises:
        UserError: If `spend.dollars` is given and its proposer has no such limit.
    """
    config = load(list(settings))
    limits = [_limit(config.proposer)]
    if fallback := config.proposer.get("fallback"):
        limits.append(_limit(load([f"proposer={fallback}"]).proposer))
    if spend.dollars is not None:
        if config.proposer["name"] == "portfolio" or any(limits[1:]):
            raise UserError(
                "A cap in dollars for each inner search needs a proposer that is one model.",
                "For example, in the settings of the inner searches: proposer=anthropic",
            )
        if limits[0] != 0.0:
            limits[0] = spend.dollars
    return None if None in limits else sum(limit or 0.0 for limit in limits)


def _limit(proposer: dict[str, object]) -> float | None:
    """The cap of a proposer in dollars; 0 if it pays for nothing."""
    if proposer["name"] == "portfolio":
        return None  # each of its members has one
    value = proposer.get("max_dollars", 0.0)
    return None if value is None else float(str(value))


def check_settings(settings: Sequence[str], spend: Spend) -> Config:
    """The configuration of the inner searches.

    Raises:
        UserError: If something in it is wrong, or follows from what they are for.
    """
    for override in settings:
        key = override.partition("=")[0]
        if key in OWN:
            raise UserError(f"{key} of an inner search cannot be set here.", "budget says how long it is.")
    config = load(list(settings))
    if config.task["name"] == "brief":
        raise UserError("An inner search cannot be one of briefs.", "Name another task: task=nanomodel")
    if not config.claim:
        raise UserError("An inner search needs a claim: its gain is what it claims.", "For example: claim=4")
    cap(settings, spend)
    return config


def _dollars(journal: Journal, experiments: Sequence[Experiment]) -> float:
    """What a search paid for language models, for what was never tried as well."""
    paid = [p.cost for e in experiments for p in (e.proposal, *e.dropped) if p is not None]
    paid += [draft.proposal.cost for draft in journal.drafts()]
    return sum((*paid, *read_unbilled(journal).values()), Cost()).dollars


def _tried(journal: Path) -> int:
    """Number of experiments with a verdict; 0 while there is no journal."""
    try:
        with open_read_only(journal) as db:
            return int(db.execute("SELECT COUNT(*) FROM experiments WHERE verdict IS NOT NULL").fetchone()[0])
    except (sqlite3.Error, OSError):
        return 0


def _runs(journal: Path) -> bool:
    with closing(Journal(journal)) as opened:
        return opened.runner() is not None


class _Clock:
    """How long an inner search has run, all its processes together; kept in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self._since, self._noted = path, now(), 0.0
        try:
            self.before = float(path.read_text())
        except (OSError, ValueError):
            self.before = 0.0

    def tick(self) -> float:
        """Seconds so far."""
        seconds = self.before + now() - self._since
        if seconds - self._noted > KEEP_TIME:
            self.note()
        return seconds

    def note(self) -> None:
        """Keep the time for the case that this process is killed."""
        self._noted = self.before + now() - self._since
        half = self.path.with_suffix(".half")
        half.write_text(f"{self._noted:.3f}")
        half.replace(self.path)
