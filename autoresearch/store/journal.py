"""The journal: the SQLite record of a search, and the one source of truth.

Owns the invariant that a step is written before it is acted on: what git, MLflow and the report show can
be rebuilt from here. One file per search, `runs/<name>/journal.db`. Results of a trial, the judge's state and
the verdict that follow from it are one transaction, so a search killed at any instant never counts a trial
twice. Not covered: what it says (`reader`); transactions, notes and the timeline (`file`), the tables
(`schema`); weights and losses, which lie beside it as files.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoresearch.store.database import Span
from autoresearch.store.reader import Reader, SearchInfo
from autoresearch.store.schema import connect, create
from autoresearch.types import Arm, Draft, Experiment, Measurement, Proposal, State, Trial, Verdict

__all__ = ["Journal", "SearchInfo"]


class Journal(Reader):
    """Reads and writes one search. Every method that writes is one durable transaction."""

    @classmethod
    def create(cls, path: Path, info: SearchInfo) -> Journal:
        """Begin a new journal with experiment 0, the baseline. Atomic: all of it exists, or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        db = connect(partial, journal_mode="DELETE")
        create(db)
        db.execute("INSERT INTO notes VALUES ('info', ?)", (json.dumps(asdict(info)),))
        db.execute(
            "INSERT INTO experiments (number, state, parent, created, commit_id, version) "
            "VALUES (0, ?, ?, ?, ?, 1)",
            (State.COMMITTED, info.base_commit, info.created, info.base_commit),
        )
        db.close()
        partial.rename(path)
        return cls(path)

    # What is fixed

    def update(self, **changes: Any) -> None:
        """Change what is known of the search as a whole, e.g. `finished`."""
        self.set("info", json.dumps(asdict(replace(self.info(), **changes))))

    # Experiments

    def add(self, proposal: Proposal, parent: str, fingerprint: str = "") -> Experiment:
        """Write down a proposal before anything is done about it; gives it the next number."""
        with self._write() as db:
            number = self._insert(db, proposal, parent, fingerprint)
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

    def set_fingerprint(self, number: int, fingerprint: str) -> None:
        """Note the fingerprint of an experiment that has none."""
        self._update(number, fingerprint=fingerprint)

    # Drafts: proposals made ahead of their turn

    def draft(self, proposal: Proposal, parent: str, started: float) -> Draft:
        """Write down a proposal as soon as it exists: it may have cost money.

        Args:
            proposal: What was proposed.
            parent: The incumbent it was made for.
            started: When its author was asked.
        """
        created = time.time()
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO drafts (state, parent, started, created, proposal) "
                "VALUES ('waiting', ?, ?, ?, ?)",
                (parent, started, created, json.dumps(proposal.to_dict())),
            )
        assert cursor.lastrowid is not None
        return Draft(cursor.lastrowid, parent, proposal, started, created)

    def adopt(self, draft: Draft, proposal: Proposal, parent: str, fingerprint: str = "") -> Experiment:
        """Make a draft the next experiment.

        Args:
            draft: Which one.
            proposal: As it is now: its edits may have been rebased.
            parent: The incumbent it applies to.
            fingerprint: Of the candidate.
        """
        with self._write() as db:
            number = self._insert(db, proposal, parent, fingerprint)
            db.execute("UPDATE drafts SET state = 'taken', experiment = ? WHERE id = ?", (number, draft.id))
            self._mark(db, Span(number, None, "propose", draft.started, draft.created))
            self._mark(db, Span(number, None, "queue", draft.created, time.time()))
        return self.experiment(number)

    def drop(self, draft: Draft, reason: str) -> None:
        """Give a draft up. Its cost counts with the latest experiment, during which it was made."""
        with self._write() as db:
            db.execute(
                "UPDATE drafts SET state = 'dropped', reason = ?, "
                "experiment = (SELECT MAX(number) FROM experiments) WHERE id = ?",
                (reason, draft.id),
            )
            _touch(db, "number = (SELECT MAX(number) FROM experiments)")

    # Trials

    def start_trial(self, experiment: int, arm: Arm, seed: int, commit: str, place: str = "") -> Trial:
        """Write down a trial before it starts."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO trials (experiment, arm, seed, commit_id, started, place) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (experiment, arm, seed, commit, started := time.time(), place),
            )
            _touch(db, "number = ?", experiment)
        assert cursor.lastrowid is not None
        return Trial(cursor.lastrowid, experiment, arm, seed, commit, started, place=place)

    def finish_trial(
        self, trial: Trial, result: Measurement, judge: str | None = None, verdict: Verdict | None = None
    ) -> Trial:
        """Write a trial's result, the judge that has seen it, and the verdict it led to, all at once.

        The phases of the result become spans of the timeline.
        """
        spans = [Span(trial.experiment, trial.id, *phase) for phase in result.phases]
        result = replace(result, phases=())
        done = replace(trial, finished=time.time(), result=result)
        with self._write() as db:
            for span in spans:
                self._mark(db, span)
            db.execute(
                "UPDATE trials SET finished = ?, result = ? WHERE id = ?",
                (done.finished, json.dumps(result.to_dict()), trial.id),
            )
            _touch(db, "number = ?", trial.experiment)
            if judge is not None:
                db.execute("INSERT OR REPLACE INTO notes VALUES ('judge', ?)", (judge,))
            if verdict is not None:
                # Whatever else of it still runs is not needed any more.
                db.execute(
                    "UPDATE trials SET finished = ? WHERE experiment = ? AND finished IS NULL",
                    (done.finished, trial.experiment),
                )
                db.execute(
                    "UPDATE experiments SET state = ?, verdict = ?, finished = ? WHERE number = ?",
                    (State.JUDGED, json.dumps(verdict.to_dict()), done.finished, trial.experiment),
                )
        return done

    def adopt_trial(self, trial: Trial, commit: str) -> Trial:
        """Note the commit that a trial trains, which was begun before there was one."""
        with self._write() as db:
            db.execute("UPDATE trials SET commit_id = ? WHERE id = ?", (commit, trial.id))
            _touch(db, "number = ?", trial.experiment)
        return replace(trial, commit=commit)

    def give_up_trial(self, trial: Trial) -> None:
        """Close a trial that nobody waits for any more; it has no result."""
        with self._write() as db:
            db.execute("UPDATE trials SET finished = ? WHERE id = ?", (time.time(), trial.id))
            _touch(db, "number = ?", trial.experiment)

    def abandon_open_trials(self) -> int:
        """Close trials whose runner died: they have no result, and their want will be asked again."""
        with self._write() as db:
            _touch(db, "number IN (SELECT experiment FROM trials WHERE finished IS NULL)")
            cursor = db.execute("UPDATE trials SET finished = ? WHERE finished IS NULL", (time.time(),))
        return cursor.rowcount

    # The outbox: what the mirrors (MLflow) have not seen yet

    def mirrored(self, number: int) -> None:
        """Note that the mirror shows this experiment as it is now."""
        with self._write() as db:
            db.execute("UPDATE experiments SET dirty = 0 WHERE number = ?", (number,))

    def unmirrored(self) -> None:
        """Forget what was mirrored: the mirror will be shown everything again."""
        with self._write() as db:
            db.execute("UPDATE experiments SET dirty = 1")

    # Keeping it small

    def shorten_logs(self, keep: int, characters: int = 2000) -> int:
        """Cut what old trials printed to its end; what they measured stays.

        Args:
            keep: Logs of so many of the latest experiments stay whole.
            characters: How much stays of the others.

        Returns:
            How many logs were cut.
        """
        with self._write() as db:
            last = db.execute("SELECT MAX(number) FROM experiments").fetchone()[0]
            rows = db.execute(
                "SELECT id, result FROM trials WHERE experiment <= ? AND length(result) > ?",
                (last - keep, characters),
            ).fetchall()
            cut = 0
            for id, text in rows:
                result = json.loads(text)
                if len(result.get("log", "")) > characters:
                    result["log"] = result["log"][-characters:]
                    db.execute("UPDATE trials SET result = ? WHERE id = ?", (json.dumps(result), id))
                    cut += 1
        return cut

    # How it is done

    def _insert(self, db: sqlite3.Connection, proposal: Proposal, parent: str, fingerprint: str) -> int:
        number = int(db.execute("SELECT MAX(number) + 1 FROM experiments").fetchone()[0])
        db.execute(
            "INSERT INTO experiments (number, state, parent, created, proposal, fingerprint) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (number, State.PROPOSED, parent, time.time(), json.dumps(proposal.to_dict()), fingerprint),
        )
        _touch(db, "number = ?", number)
        return number

    def _update(self, number: int, **columns: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._write() as db:
            db.execute(f"UPDATE experiments SET {assignments} WHERE number = ?", (*columns.values(), number))
            _touch(db, "number = ?", number)


def _touch(db: sqlite3.Connection, where: str, *values: object) -> None:
    """Note that experiments changed: for the mirrors, and for readers that have seen them before."""
    db.execute(
        "UPDATE experiments SET dirty = 1, version = (SELECT MAX(version) + 1 FROM experiments) "
        f"WHERE {where}",
        values,
    )
