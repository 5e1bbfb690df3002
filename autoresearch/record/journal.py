"""The journal: the SQLite record of a search, and the one source of truth.

Owns the invariant that a step is written before it is acted on: what git, MLflow and the report show can
be rebuilt from here. One file per search, `runs/<name>/journal.db`; one writer (see `lock`). Results of a
trial, the judge's state and the verdict that follow from it are one transaction, so a search killed at any
instant never counts a trial twice. Not covered: weights and logs, which lie beside it as files.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.errors import UserError
from autoresearch.types import Experiment, Proposal, State, Trial, TrialResult, Verdict

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, created REAL NOT NULL,
    commit_id TEXT NOT NULL DEFAULT '', proposal TEXT, verdict TEXT, diff TEXT NOT NULL DEFAULT '',
    finished REAL, dirty INTEGER NOT NULL DEFAULT 1);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL REFERENCES experiments(number), arm TEXT NOT NULL,
    seed INTEGER NOT NULL, commit_id TEXT NOT NULL, started REAL NOT NULL, finished REAL, result TEXT);
CREATE INDEX trials_by_experiment ON trials (experiment);
"""


@dataclass(frozen=True)
class SearchInfo:
    """What is fixed when a search begins.

    Attributes:
        name: Name of the search.
        base_commit: The commit it started from.
        branch: The feature branch that collects what is kept.
        created: Unix time in seconds.
        task: Name of the task.
        brief: Name or path of the brief.
        brief_text: Its Markdown.
        config: The resolved configuration tree.
        data: `meta.json` of the prepared corpus.
        device: The device in words, e.g. "cpu (2 threads)".
        finished: Unix time in seconds; None while there is more to do.
    """

    name: str
    base_commit: str
    branch: str
    created: float
    task: str
    brief: str
    brief_text: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    device: str
    finished: float | None = None


class Journal:
    """Reads and writes one search. Every method that writes is one durable transaction."""

    def __init__(self, path: Path) -> None:
        """Open an existing journal.

        Raises:
            UserError: If there is none, or it was written by a newer version.
        """
        if not path.exists():
            raise UserError(
                f"No search has been recorded at {path}.", "Start one: autoresearch run name=NAME"
            )
        self.path = path
        self._db = _connect(path)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path} has journal schema {version}; this version reads {SCHEMA_VERSION}.",
                "Use the version of autoresearch that wrote it, or start a search under another name.",
            )
        self._recorded: dict[int, Experiment] = {}

    @classmethod
    def create(cls, path: Path, info: SearchInfo) -> Journal:
        """Begin a new journal with experiment 0, the baseline. Atomic: all of it exists, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        db = _connect(partial, journal_mode="DELETE")
        db.executescript(_SCHEMA)
        db.execute("INSERT INTO notes VALUES ('info', ?)", (json.dumps(asdict(info)),))
        db.execute(
            "INSERT INTO experiments (number, state, parent, created, commit_id) VALUES (0, ?, ?, ?, ?)",
            (State.COMMITTED, info.base_commit, info.created, info.base_commit),
        )
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.commit()
        db.close()
        partial.rename(path)
        return cls(path)

    def close(self) -> None:
        """Close the file. The journal cannot be used afterwards."""
        self._db.close()

    # What is fixed, and small notes

    def info(self) -> SearchInfo:
        """What was fixed when the search began."""
        return SearchInfo(**json.loads(self.get("info") or "{}"))

    def get(self, key: str) -> str | None:
        """A note by its key, if there is one."""
        row = self._db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Write or replace a note."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, value))

    def update(self, **changes: Any) -> None:
        """Change what is known of the search as a whole, e.g. `finished`."""
        self.set("info", json.dumps(asdict(replace(self.info(), **changes))))

    def judge_state(self) -> str | None:
        """The judge as JSON, as it was after the last trial it observed."""
        return self.get("judge")

    # Experiments

    def add(self, proposal: Proposal, parent: str) -> Experiment:
        """Write down a proposal before anything is done about it; gives it the next number."""
        with self._write() as db:
            number = db.execute("SELECT MAX(number) + 1 FROM experiments").fetchone()[0]
            db.execute(
                "INSERT INTO experiments (number, state, parent, created, proposal) VALUES (?, ?, ?, ?, ?)",
                (number, State.PROPOSED, parent, time.time(), json.dumps(proposal.to_dict())),
            )
        return self.experiment(number)

    def committed(self, number: int, commit: str, diff: str) -> Experiment:
        """Note the candidate's commit and its diff to the parent."""
        self._update(number, state=State.COMMITTED, commit_id=commit, diff=diff)
        return self.experiment(number)

    def judged(self, number: int, verdict: Verdict) -> Experiment:
        """Note a verdict that rests on no (further) trial; others come with `finish_trial`."""
        self._update(number, state=State.JUDGED, verdict=json.dumps(verdict.to_dict()), finished=time.time())
        return self.experiment(number)

    def recorded(self, number: int, commit: str) -> Experiment:
        """Note the final commit, whose message tells the verdict; git's refs follow from these."""
        self._update(number, state=State.RECORDED, commit_id=commit)
        return self.experiment(number)

    def experiment(self, number: int) -> Experiment:
        """One experiment with its trials.

        Raises:
            UserError: If there is no such experiment.
        """
        found = self._read("WHERE number = ?", (number,))
        if not found:
            raise UserError(
                f"There is no experiment {number} in {self.path.parent.name}.", "See: autoresearch log"
            )
        return found[0]

    def experiments(self) -> tuple[Experiment, ...]:
        """All experiments in order, the baseline first."""
        # Recorded ones never change (but for incumbent re-runs of the baseline), so they are read once:
        # the cost of a call does not grow with what has long been decided.
        fresh = self._read("WHERE state != ? OR number = 0", (State.RECORDED,))
        known = [
            n
            for (n,) in self._db.execute("SELECT number FROM experiments WHERE state = ?", (State.RECORDED,))
        ]
        missing = [n for n in known if n not in self._recorded]
        if missing:
            low, high = min(missing), max(missing)
            found = self._read("WHERE state = ? AND number BETWEEN ? AND ?", (State.RECORDED, low, high))
            self._recorded.update({e.number: e for e in found})
        merged = {n: self._recorded[n] for n in known} | {e.number: e for e in fresh}
        return tuple(merged[n] for n in sorted(merged))

    # Trials

    def start_trial(self, experiment: int, arm: str, seed: int, commit: str) -> Trial:
        """Write down a trial before it starts."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO trials (experiment, arm, seed, commit_id, started) VALUES (?, ?, ?, ?, ?)",
                (experiment, arm, seed, commit, started := time.time()),
            )
            db.execute("UPDATE experiments SET dirty = 1 WHERE number = ?", (experiment,))
        assert cursor.lastrowid is not None
        return Trial(cursor.lastrowid, experiment, arm, seed, commit, started)

    def finish_trial(
        self, trial: Trial, result: TrialResult, judge: str | None = None, verdict: Verdict | None = None
    ) -> Trial:
        """Write a trial's result, the judge that has seen it, and the verdict it led to, all at once."""
        done = replace(trial, finished=time.time(), result=result)
        with self._write() as db:
            db.execute(
                "UPDATE trials SET finished = ?, result = ? WHERE id = ?",
                (done.finished, json.dumps(result.to_dict()), trial.id),
            )
            db.execute("UPDATE experiments SET dirty = 1 WHERE number = ?", (trial.experiment,))
            if judge is not None:
                db.execute("INSERT OR REPLACE INTO notes VALUES ('judge', ?)", (judge,))
            if verdict is not None:
                db.execute(
                    "UPDATE experiments SET state = ?, verdict = ?, finished = ? WHERE number = ?",
                    (State.JUDGED, json.dumps(verdict.to_dict()), done.finished, trial.experiment),
                )
        return done

    def abandon_open_trials(self) -> int:
        """Close trials whose runner died: they have no result, and their want will be asked again."""
        with self._write() as db:
            cursor = db.execute("UPDATE trials SET finished = ? WHERE finished IS NULL", (time.time(),))
        return cursor.rowcount

    # The outbox: what the mirrors (MLflow) have not seen yet

    def dirty(self) -> tuple[int, ...]:
        """Numbers of the experiments that changed since they were last mirrored."""
        return tuple(
            n for (n,) in self._db.execute("SELECT number FROM experiments WHERE dirty = 1 ORDER BY number")
        )

    def mirrored(self, number: int) -> None:
        """Note that the mirror shows this experiment as it is now."""
        with self._write() as db:
            db.execute("UPDATE experiments SET dirty = 0 WHERE number = ?", (number,))

    def _update(self, number: int, **columns: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._write() as db:
            db.execute(
                f"UPDATE experiments SET {assignments}, dirty = 1 WHERE number = ?",
                (*columns.values(), number),
            )

    def _read(self, where: str, values: tuple[object, ...]) -> list[Experiment]:
        rows = self._db.execute(
            "SELECT number, state, parent, created, commit_id, proposal, verdict, diff, finished "
            f"FROM experiments {where} ORDER BY number",
            values,
        ).fetchall()
        return [self._experiment(row) for row in rows]

    def _experiment(self, row: tuple[Any, ...]) -> Experiment:
        number, state, parent, created, commit, proposal, verdict, diff, finished = row
        trials = self._db.execute(
            "SELECT id, experiment, arm, seed, commit_id, started, finished, result "
            "FROM trials WHERE experiment = ? ORDER BY id",
            (number,),
        ).fetchall()
        return Experiment(
            number=number,
            state=State(state),
            parent=parent,
            created=created,
            commit=commit,
            proposal=Proposal.from_dict(json.loads(proposal)) if proposal else None,
            verdict=Verdict.from_dict(json.loads(verdict)) if verdict else None,
            diff=diff,
            finished=finished,
            trials=tuple(_trial(*row) for row in trials),
        )

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except sqlite3.OperationalError as error:
            raise UserError(
                f"The journal {self.path} cannot be written: {error}.",
                "Check free disk space and permissions, then run the same command again: nothing is lost.",
                code=3,
            ) from error


def _trial(
    id: int,
    experiment: int,
    arm: str,
    seed: int,
    commit: str,
    started: float,
    finished: float | None,
    result: str | None,
) -> Trial:
    known = TrialResult.from_dict(json.loads(result)) if result else None
    return Trial(id, experiment, arm, seed, commit, started, finished, known)


def _connect(path: Path, journal_mode: str = "WAL") -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA journal_mode = {journal_mode}")
    db.execute("PRAGMA synchronous = FULL")
    return db


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the right to run the search in `folder`; the kernel gives it back if this process dies.

    Raises:
        UserError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"The search {folder.name} is already running (process {file.read().strip() or 'unknown'}).",
                f"Watch it with: autoresearch status name={folder.name}",
                code=4,
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
