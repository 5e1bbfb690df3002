"""The journal: the SQLite record of a search, `runs/<name>/journal.db`, and the one source of truth.

Each step is written before it is acted on, so what git, MLflow and the report show can be rebuilt from here.
The result of a trial, the judge's state after it and the verdict are one transaction, so a search that is
killed at any instant never counts a trial twice. One process writes (see `lock`); its threads may share a
journal. A transaction is durable when the method returns. Not covered: reading (`reader`), the file
(`database`), and losses, which are files beside it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.store.connection import JOURNAL, connect
from autoresearch.store.database import Span, add_span, create, set_note
from autoresearch.store.reader import Reader, SearchInfo
from autoresearch.types import Arm, Draft, Experiment, Measurement, Proposal, State, Trial, Verdict

__all__ = ["Journal", "SearchInfo"]


class Journal(Reader):
    """Reads and writes one search. Every method that writes is one transaction."""

    @classmethod
    def of(cls, folder: Path) -> Journal:
        """The journal of the search in a folder."""
        return cls(folder / JOURNAL)

    @classmethod
    def create(cls, path: Path, info: SearchInfo, seed_secret: str = "") -> Journal:
        """Begin a new journal with experiment 0, the baseline; if this is cut short, there is none.

        Only the user can read the file.

        Args:
            path: Where it shall lie.
            info: What is fixed when the search begins.
            seed_secret: See `Reader.seed_secret`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        db = connect(partial, journal_mode="DELETE")
        create(db)
        if seed_secret:
            set_note(db, "seed_secret", seed_secret)
        db.execute("INSERT INTO notes VALUES ('info', ?)", (json.dumps(asdict(info)),))
        db.execute(
            "INSERT INTO experiments (number, state, parent, created, commit_id, version) "
            "VALUES (0, ?, ?, ?, ?, 1)",
            (State.COMMITTED, info.base_commit, info.created, info.base_commit),
        )
        db.close()
        partial.rename(path)
        return cls(path)

    def update(self, **changes: Any) -> None:
        """Change fields of `SearchInfo`, e.g. `finished`."""
        self.set("info", json.dumps(asdict(replace(self.info(), **changes))))

    # Experiments

    def add(self, proposal: Proposal, parent: str, fingerprint: str = "") -> Experiment:
        """Record a proposal as the next experiment, before anything is done about it."""
        with self._write() as db:
            number = _add(db, proposal, parent, fingerprint)
        return self.experiment(number)

    def committed(self, number: int, commit: str, diff: str) -> Experiment:
        """Record the candidate's commit and its diff from the parent."""
        return self._update(number, state=State.COMMITTED, commit_id=commit, diff=diff)

    def judged(self, number: int, verdict: Verdict) -> Experiment:
        """Record a verdict that follows from no trial; the others are recorded by `finish_trial`."""
        with self._write() as db:
            _judge(db, number, verdict)
        return self.experiment(number)

    def rebased(self, number: int, proposal: Proposal, parent: str, fingerprint: str) -> Experiment:
        """Record that a candidate was merged onto another incumbent; it has no commit there yet.

        Args:
            number: Of its experiment.
            proposal: The proposal, with edits that apply to that incumbent.
            parent: The incumbent.
            fingerprint: Of the candidate as it is now.
        """
        text = json.dumps(proposal.to_dict())
        new = {"parent": parent, "proposal": text, "fingerprint": fingerprint, "commit_id": ""}
        return self._update(number, state=State.PROPOSED, **new)

    def recorded(self, number: int, commit: str) -> Experiment:
        """Record the final commit, whose message contains the verdict; refs are pointed at it afterwards."""
        return self._update(number, state=State.RECORDED, commit_id=commit)

    def set_fingerprint(self, number: int, fingerprint: str) -> None:
        """Record the fingerprint of an experiment that has none."""
        self._update(number, fingerprint=fingerprint)

    # Drafts: proposals made ahead

    def draft(self, proposal: Proposal, parent: str, started: float) -> Draft:
        """Record a proposal as soon as it exists, since it may have cost money.

        Args:
            proposal: What was proposed.
            parent: The incumbent it was made for.
            started: When its author was asked, Unix time in seconds.
        """
        created = now()
        with self._write() as db:
            number = _draft(db, proposal, parent, started, created)
        return Draft(number, parent, proposal, started, created)

    def adopt(self, draft: Draft, proposal: Proposal, parent: str, fingerprint: str = "") -> Experiment:
        """Make a draft the next experiment.

        Args:
            draft: Which one.
            proposal: The draft's proposal; its edits may have been merged onto another incumbent.
            parent: The incumbent it applies to.
            fingerprint: Of the candidate.
        """
        with self._write() as db:
            number = _add(db, proposal, parent, fingerprint)
            db.execute("UPDATE drafts SET state = 'taken', experiment = ? WHERE id = ?", (number, draft.id))
            add_span(db, Span(number, None, "propose", draft.started, draft.created))
            add_span(db, Span(number, None, "queue", draft.created, now()))
        return self.experiment(number)

    def drop(self, draft: Draft, reason: str) -> None:
        """Give a draft up. Its cost is counted with the latest experiment."""
        with self._write() as db:
            _drop(db, draft.id, reason)

    def diagnosed(
        self, draft: Draft, trial: Trial, result: Measurement, notes: Mapping[str, str], reason: str
    ) -> Trial:
        """Record what the incumbent printed with the edits of a draft, which is done with that, all at once.

        Args:
            draft: Asked for it. Its cost is counted with the latest experiment.
            trial: The training.
            result: Of the training.
            notes: Notes to write.
            reason: What became of the draft.
        """
        with self._write() as db:
            done = _finish(db, trial, result)
            for key, value in notes.items():
                set_note(db, key, value)
            _drop(db, draft.id, reason)
        return done

    def refused(self, proposal: Proposal, reason: str) -> None:
        """Record a proposal that was refused for good, as a draft that was dropped."""
        with self._write() as db:
            _drop(db, _draft(db, proposal, "", now(), now()), reason)

    # Trials

    def start_trial(self, experiment: int, arm: Arm, seed: int, commit: str, place: str = "") -> Trial:
        """Record a trial before it starts."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO trials (experiment, arm, seed, commit_id, started, place) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (experiment, arm, seed, commit, started := now(), place),
            )
            _changed(db, "number = ?", experiment)
        assert cursor.lastrowid is not None
        return Trial(cursor.lastrowid, experiment, arm, seed, commit, started, place=place)

    def finish_trial(
        self,
        trial: Trial,
        result: Measurement,
        judge: str | None = None,
        verdicts: Mapping[int, Verdict] | None = None,
        needless: Iterable[int] = (),
    ) -> Trial:
        """Record a trial's result, the judge that has seen it, and the verdicts it led to, all at once.

        The phases of the result become spans of the timeline.

        Args:
            trial: The trial.
            result: What it measured.
            judge: The judge, as JSON.
            verdicts: Number of an experiment -> its verdict.
            needless: Trials under way whose results are not needed any more. They are closed.
        """
        with self._write() as db:
            done = _finish(db, trial, result)
            if judge is not None:
                set_note(db, "judge", judge)
            for number, verdict in (verdicts or {}).items():
                _judge(db, number, verdict)
            _close(db, needless)
        return done

    def cancelled(self, trials: Iterable[int]) -> None:
        """Close trials under way whose results are not needed any more."""
        with self._write() as db:
            _close(db, trials)

    def revoke(
        self,
        verdicts: Mapping[int, Verdict],
        judge: str,
        notes: Mapping[str, str],
        again: Iterable[tuple[Proposal, str]],
        ended: tuple[Trial, Measurement] | None = None,
        needless: Iterable[int] = (),
    ) -> None:
        """Record verdicts that follow from no score; git follows (see `search.checks.revocation`).

        Args:
            verdicts: Number of an experiment -> its verdict from now on.
            judge: The judge, which has forgotten these candidates, or stepped back behind them.
            notes: Notes to write.
            again: Proposals to be judged again, each with the incumbent that it was made for.
            ended: The trial that showed it, and its result, if the journal knows the trial.
            needless: Trials under way whose results are not needed any more. They are closed.
        """
        moment = now()
        with self._write() as db:
            if ended is not None:
                _finish(db, *ended)
            for number, verdict in verdicts.items():
                _judge(db, number, verdict)
            _close(db, needless)
            for proposal, parent in again:
                _draft(db, proposal, parent, moment, moment)
            for key, value in {**notes, "judge": judge}.items():
                set_note(db, key, value)

    def abandon_open_trials(self) -> int:
        """Close the trials of a process that died; they have no result. Gives how many there were.

        They ended, as far as is known, with the last thing that the journal tells of since, not now. What it
        tells of before does not count: the clock may have been set back when that process began. Proposals
        made ahead wait anew from now: nobody waited in between.
        """
        begun = now()
        with self._write() as db:
            _changed(db, "number IN (SELECT experiment FROM trials WHERE finished IS NULL)")
            cursor = db.execute(
                "UPDATE trials SET finished = MAX(started, (SELECT MAX(last) FROM ("
                "SELECT MAX(started) AS last FROM trials AS t WHERE t.id >= trials.id "
                "UNION SELECT MAX(finished) FROM trials AS t WHERE t.id >= trials.id "
                "UNION SELECT MAX(finished) FROM timeline AS s WHERE s.trial >= trials.id "
                "UNION SELECT MAX(created) FROM drafts AS d "
                "WHERE d.experiment IS NULL OR d.experiment > trials.experiment))) "
                "WHERE finished IS NULL"
            )
            waiting = "WHERE state = 'waiting' AND experiment IS NULL"
            db.execute(
                f"UPDATE drafts SET started = ? - (created - started), created = ? {waiting}", (begun, begun)
            )
        return cursor.rowcount

    # What MLflow has not seen yet

    def mirrored(self, number: int) -> None:
        """Record that MLflow shows this experiment as it is now."""
        with self._write() as db:
            db.execute("UPDATE experiments SET dirty = 0 WHERE number = ?", (number,))

    def unmirrored(self) -> None:
        """Forget what MLflow has seen: it will be shown everything again."""
        with self._write() as db:
            db.execute("UPDATE experiments SET dirty = 1")

    # Size

    def shorten_logs(self, keep: int, characters: int) -> int:
        """Cut the logs of old trials to their last characters; what they measured stays.

        Args:
            keep: Logs of this many of the latest experiments stay whole.
            characters: How much of each other log stays.

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

    def _update(self, number: int, **columns: object) -> Experiment:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._write() as db:
            db.execute(f"UPDATE experiments SET {assignments} WHERE number = ?", (*columns.values(), number))
            _changed(db, "number = ?", number)
        return self.experiment(number)


def _add(db: sqlite3.Connection, proposal: Proposal, parent: str, fingerprint: str) -> int:
    number = int(db.execute("SELECT MAX(number) + 1 FROM experiments").fetchone()[0])
    db.execute(
        "INSERT INTO experiments (number, state, parent, created, proposal, fingerprint) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (number, State.PROPOSED, parent, now(), json.dumps(proposal.to_dict()), fingerprint),
    )
    _changed(db, "number = ?", number)
    return number


def _draft(db: sqlite3.Connection, proposal: Proposal, parent: str, started: float, created: float) -> int:
    cursor = db.execute(
        "INSERT INTO drafts (state, parent, started, created, proposal) VALUES ('waiting', ?, ?, ?, ?)",
        (parent, started, created, json.dumps(proposal.to_dict())),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _drop(db: sqlite3.Connection, number: int, reason: str) -> None:
    latest = "(SELECT MAX(number) FROM experiments)"
    statement = f"UPDATE drafts SET state = 'dropped', reason = ?, experiment = {latest} WHERE id = ?"
    db.execute(statement, (reason, number))
    _changed(db, f"number = {latest}")


def _finish(db: sqlite3.Connection, trial: Trial, result: Measurement) -> Trial:
    """Store the result of a trial; its phases become spans of the timeline."""
    measured = sum(end - start for _, start, end in result.phases)
    done = replace(trial, finished=now(), result=replace(result, phases=()), measured=measured)
    for phase in result.phases:
        add_span(db, Span(trial.experiment, trial.id, *phase))
    db.execute(
        "UPDATE trials SET finished = ?, result = ? WHERE id = ?",
        (done.finished, json.dumps(replace(result, phases=()).to_dict()), trial.id),
    )
    _changed(db, "number = ?", trial.experiment)
    return done


def _judge(db: sqlite3.Connection, number: int, verdict: Verdict) -> None:
    """Store a verdict. The place in the order of verdicts is that of the first one."""
    db.execute(
        "UPDATE experiments SET state = ?, verdict = ?, finished = ?, "
        "decided = IFNULL(decided, (SELECT IFNULL(MAX(decided), 0) + 1 FROM experiments)) WHERE number = ?",
        (State.JUDGED, json.dumps(verdict.to_dict()), now(), number),
    )
    _changed(db, "number = ?", number)


def _close(db: sqlite3.Connection, trials: Iterable[int]) -> None:
    """End trials without a result."""
    for id in trials:
        db.execute("UPDATE trials SET finished = ? WHERE id = ? AND finished IS NULL", (now(), id))
        _changed(db, "number = (SELECT experiment FROM trials WHERE id = ?)", id)


def _changed(db: sqlite3.Connection, where: str, *values: object) -> None:
    """Note that experiments changed: for the mirror, and for readers that have read them before."""
    db.execute(
        "UPDATE experiments SET dirty = 1, version = (SELECT MAX(version) + 1 FROM experiments) "
        f"WHERE {where}",
        values,
    )
