"""The verifier's side of the store: whose turn it is, what an experiment tests, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.swarm import log
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import WINDOW, Spent, Turns, Waiting
from autoresearch.swarm.store.file import OPEN, File, State


class Verdicts(File):
    """The part of the store that follows the verifier."""

    def waiting(self, track: str) -> list[Waiting]:
        """What waits in a track."""
        with self._read() as db:
            rows = db.execute(
                "SELECT number, who, network, claim FROM contributions WHERE track = ? AND state = 'waiting'",
                (track,),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def turns(self, track: str, own: Mapping[int, Spent] | None = None) -> Turns:
        """What the verifier of a track has done lately, and the record of everybody who waits there.

        Args:
            track: The track.
            own: What the verifier tried by itself: number of the experiment -> what it took.
        """
        with self._read() as db:
            rows = db.execute(
                "SELECT experiment, who, network, known, runs FROM contributions WHERE track = ? "
                "AND decided IS NOT NULL AND runs > 0 ORDER BY decided DESC, number DESC LIMIT ?",
                (track, WINDOW),
            ).fetchall()
            query = "SELECT DISTINCT who FROM contributions WHERE track = ? AND state = 'waiting'"
            people = [who for (who,) in db.execute(query, (track,))]
            records = self._records(db, people)
        theirs = {number: Spent(who, net, bool(known), runs) for number, who, net, known, runs in rows}
        spent = sorted(({**(own or {}), **theirs}).items())[-WINDOW:]
        return Turns([one for _, one in spent], records)

    def begin(self, number: int) -> int:
        """Count that the verifier begins with a contribution; gives how often it has since one ended well."""
        with self._write() as db:
            query = "UPDATE contributions SET tries = tries + 1 WHERE number = ? RETURNING tries"
            return int(db.execute(query, (number,)).fetchone()[0])

    def went_well(self, track: str) -> None:
        """Record that the verifier of a track ended as it should: what is open has not ended it."""
        with self._write() as db:
            query = "UPDATE contributions SET tries = 0 WHERE track = ? AND state IN ('waiting', 'taken')"
            db.execute(f"{query} AND tries > 0", (track,))

    def take(self, number: int, known: bool) -> None:
        """Record that an experiment will test a contribution.

        Args:
            number: Of the contribution.
            known: Whether its sender had a record.
        """
        with self._write() as db:
            db.execute(
                "UPDATE contributions SET state = 'taken', known = ? WHERE number = ? AND state = 'waiting'",
                (int(known), number),
            )

    def reopen(self, track: str, number: int) -> None:
        """Let a contribution wait again whose experiment was lost."""
        with self._write() as db:
            query = "UPDATE contributions SET state = 'waiting' WHERE track = ? AND number = ?"
            db.execute(f"{query} AND state = 'taken'", (track, number))

    def close_without_run(self, number: int, state: State, reason: str) -> None:
        """Record that a contribution was refused or returned before any run."""
        assert state in (State.REFUSED, State.RETURNED)
        kind = Kind.REFUSED if state is State.REFUSED else Kind.VERDICT
        with self._write() as db:
            one = self._numbered(db, number)
            if one.state not in OPEN:
                return
            told = {"contribution": one.digest, "state": state, "reason": reason}
            entry = log.append(db, self.identity, one.track, kind, told)
            query = "UPDATE contributions SET state = ?, reason = ?, decided = ? WHERE number = ?"
            db.execute(query, (state, reason, entry.time, number))

    def decide(self, number: int, state: State, runs: float, commit: str, told: Mapping[str, Any]) -> bool:
        """Record the verdict of an experiment on a contribution, once; whether it was new.

        A contribution is tested again if a change below it was found to be invalid.

        Args:
            number: Of the contribution.
            state: KEPT, DISCARDED, or RETURNED if the tip moved under it.
            runs: Trainings that it took.
            commit: That was kept.
            told: For the log; with reason, experiment and effect.
        """
        assert state in (State.KEPT, State.DISCARDED, State.RETURNED)
        with self._write() as db:
            one = self._numbered(db, number)
            if one.state not in OPEN and one.experiment == told["experiment"]:
                return False
            payload = {"contribution": one.digest, "state": state, "commit": commit, **told}
            entry = log.append(db, self.identity, one.track, Kind.VERDICT, payload)
            db.execute(
                "UPDATE contributions SET state = ?, reason = ?, experiment = ?, commit_id = ?, effect = ?, "
                "runs = ?, decided = ? WHERE number = ?",
                (state, told["reason"], told["experiment"], commit, told["effect"], runs, entry.time, number),
            )
        return True

    def flag(self, track: str, told: Mapping[str, Any]) -> None:
        """Record that a link of the chain did not hold when it was measured again."""
        with self._write() as db:
            log.append(db, self.identity, track, Kind.FLAGGED, told)

    def take_back(self, number: int, reason: str) -> None:
        """Record that a contribution that was kept is not kept any more: it was found to be invalid."""
        with self._write() as db:
            one = self._numbered(db, number)
            told = {"contribution": one.digest, "commit": one.commit, "reason": reason, "action": "take back"}
            log.append(db, self.identity, one.track, Kind.FLAGGED, told)
            query = "UPDATE contributions SET state = 'removed', reason = ? WHERE number = ?"
            db.execute(query, (reason, number))
