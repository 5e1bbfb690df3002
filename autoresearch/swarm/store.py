"""What a server of tracks has received, from whom, and what became of it: one SQLite file for all tracks.

The server and the verifiers write it, in transactions that add to the log of the track what they change. So
what was acknowledged is on the disk, and what the log tells has happened. A transaction that cannot be made
(the file is locked, the disk is full) changes nothing, and is told as `Busy`. Not covered: which contribution
comes next (`queue`), and the experiments themselves, which are in the journal of the track's search.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from autoresearch.clock import now
from autoresearch.config import Serve as Limits
from autoresearch.errors import Refused, UserError
from autoresearch.store.connection import begin, connect
from autoresearch.store.git.repository import Repository
from autoresearch.swarm import log
from autoresearch.swarm.chain.links import SEGMENT, publish, published
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import DAY, RECENT, WINDOW, Record, Sent, Spent, Turns, Waiting, over_quota

FOLDER = "swarm"
"""Where the store and the server's key lie, in the folder of searches."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS contributions (
    number INTEGER PRIMARY KEY, track TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, who TEXT NOT NULL,
    network TEXT NOT NULL, received REAL NOT NULL, tree TEXT NOT NULL, title TEXT NOT NULL,
    claim REAL NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    experiment INTEGER, commit_id TEXT NOT NULL DEFAULT '', effect REAL, runs REAL NOT NULL DEFAULT 0,
    known INTEGER NOT NULL DEFAULT 0, decided REAL, hidden TEXT NOT NULL DEFAULT '');
CREATE UNIQUE INDEX IF NOT EXISTS one_of_each ON contributions (track, tree) WHERE state != 'refused';
CREATE INDEX IF NOT EXISTS by_state ON contributions (track, state);
CREATE INDEX IF NOT EXISTS by_sender ON contributions (who, received);
CREATE INDEX IF NOT EXISTS by_network ON contributions (network, received);
CREATE INDEX IF NOT EXISTS by_decision ON contributions (decided);
CREATE TABLE IF NOT EXISTS people (
    who TEXT PRIMARY KEY, public_key TEXT NOT NULL, author TEXT NOT NULL UNIQUE, since REAL NOT NULL,
    banned TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
"""

INDEX = "CREATE INDEX IF NOT EXISTS by_kind ON log (track, kind);"


class State(StrEnum):
    """What became of a contribution."""

    WAITING = "waiting"
    TAKEN = "taken"  # an experiment tests it, or will
    KEPT = "kept"
    DISCARDED = "discarded"
    RETURNED = "returned"  # it no longer fits the tip: to be made anew by its sender
    REFUSED = "refused"
    REMOVED = "removed"  # it was kept, and a moderator took it back


OPEN = (State.WAITING, State.TAKEN)


class Busy(UserError):
    """The store cannot be written now; the same request may work later."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The store cannot be written now: {why}.", "Try again in a minute.", code=3)


class OverQuota(Refused):
    """Too much was sent; the same contribution may be sent later."""


@dataclass(frozen=True)
class Received:
    """A contribution as the store knows it.

    Attributes:
        number: In the order of arrival, over all tracks.
        track: Name of the track.
        digest: Names the contribution.
        who: Fingerprint of its sender's key.
        received: By the server's clock, Unix time in seconds.
        claim: Claimed gain; see `queue.claimed`.
        state: What became of it.
        reason: Why, in words.
        experiment: Of the track's search, if one tests it.
        commit: That was kept; empty if none was.
        effect: Gain that the verifier measured; None if it measured none.
        runs: Trainings that the verdict took.
        hidden: Why a moderator hides its texts; empty if they are shown.
        title: In its sender's words.
        author: Name of its sender.
    """

    number: int
    track: str
    digest: str
    who: str
    received: float
    claim: float
    state: State
    reason: str
    experiment: int | None
    commit: str
    effect: float | None
    runs: float
    hidden: str
    title: str
    author: str


_COLUMNS = (
    "number, track, digest, who, received, claim, state, reason, experiment, commit_id, effect, runs, "
    "hidden, title, author"
)


class Store:
    """The store of a server; any number of processes may open it.

    Args:
        folder: Where it lies; made if it is not there.
        patience: Seconds to wait for another process that writes; None: as long as it takes.
        say: Is told of a wait.
    """

    def __init__(
        self, folder: Path, patience: float | None = None, say: Callable[[str], None] = print
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "store.db"
        self.identity = Identity.make(folder / "key")
        self.say = say
        self._patience, self._lock = patience, threading.RLock()
        self.path.touch(mode=0o600)
        with self._told():
            self._db = connect(self.path)
            self._db.executescript(SCHEMA + log.SCHEMA + INDEX)
            if patience is not None:
                self._db.execute(f"PRAGMA busy_timeout = {int(1000 * patience)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # Tracks

    def add_track(self, name: str, about: Mapping[str, Any]) -> None:
        """Begin the log of a track, unless it has one."""
        with self._write() as db:
            if log.head(db, name) is None:
                log.append(db, self.identity, name, Kind.TRACK, about)

    def entries(self, track: str, first: int = 0, most: int = -1) -> list[log.Entry]:
        """Entries of the log of a track, from a number on."""
        with self._read() as db:
            return list(log.entries(db, track, first, most))

    def flagged(self, track: str) -> list[log.Entry]:
        """The entries about links that did not hold when they were measured again."""
        with self._read() as db:
            query = "SELECT number FROM log WHERE track = ? AND kind = 'flagged' ORDER BY number"
            numbers = [number for (number,) in db.execute(query, (track,)).fetchall()]
            return [entry for number in numbers for entry in log.entries(db, track, number, 1)]

    def publish(self, track: str, repository: Repository) -> None:
        """Bring the chain of a track, as git holds it, up to date with the log."""
        first = published(repository, track) // SEGMENT * SEGMENT
        told = self.entries(track, first)
        kept = {
            e.data["contribution"] for e in told if e.kind is Kind.VERDICT and e.data["state"] == State.KEPT
        }
        found = [one for one in map(self.find, sorted(kept)) if one and not one.hidden]
        publish(repository, track, told, {one.digest: self.signed(one.number).to_json() for one in found})

    def version(self, track: str) -> int:
        """Grows with everything that happens in a track."""
        with self._read() as db:
            head = log.head(db, track)
        return -1 if head is None else head.number

    def decisions(self, track: str) -> int:
        """Grows with every verdict, flag and act of a moderator, but not with what comes in."""
        kinds = f"'{Kind.VERDICT}', '{Kind.FLAGGED}', '{Kind.MODERATED}'"
        query = f"SELECT MAX(number) FROM log WHERE track = ? AND kind IN ({kinds})"
        with self._read() as db:
            return int(db.execute(query, (track,)).fetchone()[0] or 0)

    # Contributions come in

    def receive(self, signed: Signed, network: str, claim: float, limits: Limits) -> Received:
        """Take a contribution whose signature is good; the same one again changes nothing.

        Raises:
            OverQuota: If the sender, its network or everybody has sent too much.
            Refused: If the sender is banned, its name is another's, or the same files were sent before.
            Busy: If the store cannot be written; nothing was taken then.
        """
        sent, who = signed.contribution, signed.contribution.fingerprint
        with self._write() as db:
            if known := self._found(db, sent.digest):
                return known
            self._check_sender(db, signed, network, limits)
            clash = db.execute(
                "SELECT who FROM contributions WHERE track = ? AND tree = ? AND state != 'refused'",
                (sent.track, sent.tree),
            ).fetchone()
            if clash is not None:
                by = "you" if clash[0] == who else "somebody else"
                reason = f"{by} sent the same files before: the first counts"
                self._insert(db, signed, network, claim, State.REFUSED, reason)
            else:
                self._insert(db, signed, network, claim, State.WAITING)
            found = self._found(db, sent.digest)
        assert found is not None
        return found

    def turn_away(self, signed: Signed, network: str, reason: str, limits: Limits) -> Received:
        """Record that a contribution with a good signature cannot be tried; it counts among what was sent.

        Raises:
            Refused: As `receive`.
        """
        with self._write() as db:
            if known := self._found(db, signed.contribution.digest):
                return known
            self._check_sender(db, signed, network, limits)
            self._insert(db, signed, network, 0.0, State.REFUSED, reason)
            found = self._found(db, signed.contribution.digest)
        assert found is not None
        return found

    def _check_sender(self, db: sqlite3.Connection, signed: Signed, network: str, limits: Limits) -> None:
        sent, who = signed.contribution, signed.contribution.fingerprint
        person = db.execute("SELECT author, banned FROM people WHERE who = ?", (who,)).fetchone()
        if person and person[1]:
            raise Refused(f"your key is banned here: {person[1]}")
        owner = db.execute("SELECT who FROM people WHERE author = ?", (sent.author,)).fetchone()
        if owner and owner[0] != who:
            raise Refused(f"the name {sent.author} belongs to another key; choose another name")
        theirs, around = self._sent(db, "who", who), self._sent(db, "network", network)
        waiting = db.execute("SELECT COUNT(*) FROM contributions WHERE state = 'waiting'").fetchone()[0]
        record = self._records(db, [who]).get(who, Record())
        if problem := over_quota(limits, record, theirs, around, waiting):
            raise OverQuota(problem)
        if person is None:
            values = (who, sent.public_key, sent.author, now())
            db.execute("INSERT INTO people (who, public_key, author, since) VALUES (?, ?, ?, ?)", values)

    def _sent(self, db: sqlite3.Connection, column: str, value: str) -> Sent:
        query = f"SELECT COUNT(*) FROM contributions WHERE {column} = ?"
        waiting = db.execute(f"{query} AND state = 'waiting'", (value,)).fetchone()[0]
        today = db.execute(f"{query} AND received > ?", (value, now() - DAY)).fetchone()[0]
        return Sent(waiting, today)

    def _insert(
        self,
        db: sqlite3.Connection,
        signed: Signed,
        network: str,
        claim: float,
        state: State,
        reason: str = "",
    ) -> None:
        sent, refused = signed.contribution, state is State.REFUSED
        told = {"contribution": sent.digest, "tree": sent.tree, "parent": sent.parent}
        told |= {"who": sent.fingerprint, "author": sent.author, "title": sent.title}
        extra = {"reason": reason} if refused else {}
        kind = Kind.REFUSED if refused else Kind.RECEIVED
        entry = log.append(db, self.identity, sent.track, kind, told | extra)
        values = (
            sent.track,
            sent.digest,
            sent.fingerprint,
            network,
            entry.time,
            sent.tree,
            sent.title,
            claim,
        )
        db.execute(
            "INSERT INTO contributions (track, digest, who, network, received, tree, title, claim, body, "
            "state, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, "" if refused else signed.to_json(), state, reason),
        )

    # The verifier's side

    def waiting(self, track: str) -> list[Waiting]:
        """What waits in a track."""
        with self._read() as db:
            rows = db.execute(
                "SELECT number, who, network, claim FROM contributions WHERE track = ? AND state = 'waiting'",
                (track,),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def turns(self, track: str) -> Turns:
        """What the verifier of a track has done lately, and the record of everybody who waits there."""
        with self._read() as db:
            rows = db.execute(
                "SELECT who, network, known, runs FROM contributions WHERE track = ? AND decided IS NOT NULL "
                "AND runs > 0 ORDER BY decided DESC, number DESC LIMIT ?",
                (track, WINDOW),
            ).fetchall()
            query = "SELECT DISTINCT who FROM contributions WHERE track = ? AND state = 'waiting'"
            people = [who for (who,) in db.execute(query, (track,))]
            records = self._records(db, people)
        return Turns([Spent(who, net, bool(known), runs) for who, net, known, runs in rows[::-1]], records)

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

    # Moderation

    def ban(self, who: str, reason: str) -> int:
        """Take nothing more of a contributor, and refuse what waits; an empty reason lifts the ban.

        Returns:
            How many contributions were refused.

        Raises:
            UserError: If nobody has this key.
        """
        with self._write() as db:
            if db.execute("UPDATE people SET banned = ? WHERE who = ?", (reason, who)).rowcount == 0:
                raise UserError(f"Nobody has the key {who}.", "See the leaderboard for the keys of people.")
            rows = db.execute(
                "SELECT number, track FROM contributions WHERE who = ? AND state = 'waiting'", (who,)
            ).fetchall()
            tracks = {track for (track,) in db.execute("SELECT DISTINCT track FROM log")}
            for track in sorted(tracks):
                told = {"action": "ban" if reason else "unban", "who": who, "reason": reason}
                log.append(db, self.identity, track, Kind.MODERATED, told)
            if reason:
                query = "UPDATE contributions SET state = 'refused', reason = ? WHERE number = ?"
                db.executemany(query, [(f"banned: {reason}", number) for number, _ in rows])
        return len(rows) if reason else 0

    def moderate(self, track: str, told: Mapping[str, Any], numbers: Mapping[int, str] | None = None) -> None:
        """Record what a moderator did.

        Args:
            track: The track.
            told: For the log.
            numbers: Contributions that are hidden from now on, each with the reason; empty: shown again.
        """
        with self._write() as db:
            log.append(db, self.identity, track, Kind.MODERATED, told)
            for number, reason in (numbers or {}).items():
                db.execute("UPDATE contributions SET hidden = ? WHERE number = ?", (reason, number))

    # Looking

    def contributions(self, track: str, most: int = -1) -> list[Received]:
        """Everything that was received in a track, the latest first."""
        with self._read() as db:
            query = f"SELECT {_COLUMNS} FROM contributions JOIN people USING (who) WHERE track = ?"
            rows = db.execute(f"{query} ORDER BY number DESC LIMIT ?", (track, most)).fetchall()
        return [_received(row) for row in rows]

    def find(self, digest: str) -> Received | None:
        """The contribution of a digest."""
        with self._read() as db:
            return self._found(db, digest)

    def signed(self, number: int) -> Signed:
        """What was sent; only of a contribution that was not refused when it arrived."""
        with self._read() as db:
            row = db.execute("SELECT body FROM contributions WHERE number = ?", (number,)).fetchone()
        return Signed.from_stored(row[0])

    def numbered(self, number: int) -> Received:
        """The contribution of a number."""
        with self._read() as db:
            return self._numbered(db, number)

    def person(self, name: str) -> str:
        """The fingerprint of the key that a person is known by; the fingerprint itself is a name, too.

        Raises:
            UserError: If nobody is known by it.
        """
        with self._read() as db:
            row = db.execute("SELECT who FROM people WHERE author = ? OR who = ?", (name, name)).fetchone()
        if row is None:
            raise UserError(f"Nobody is known by the name or key {name}.", "See the leaderboard.")
        return str(row[0])

    def records(self, track: str) -> dict[str, Record]:
        """The record of everybody who sent something to a track."""
        with self._read() as db:
            rows = db.execute("SELECT DISTINCT who FROM contributions WHERE track = ?", (track,))
            return self._records(db, [who for (who,) in rows.fetchall()])

    def _records(self, db: sqlite3.Connection, people: list[str]) -> dict[str, Record]:
        found = {}
        for who in people:
            rows = db.execute(
                "SELECT state FROM contributions WHERE who = ? AND decided IS NOT NULL AND runs > 0 "
                "ORDER BY decided DESC, number DESC LIMIT ?",
                (who, RECENT),
            ).fetchall()
            if rows:
                found[who] = Record.of([state == State.KEPT for (state,) in rows[::-1]])
        return found

    def _found(self, db: sqlite3.Connection, digest: str) -> Received | None:
        query = f"SELECT {_COLUMNS} FROM contributions JOIN people USING (who) WHERE digest = ?"
        row = db.execute(query, (digest,)).fetchone()
        return _received(row) if row else None

    def _numbered(self, db: sqlite3.Connection, number: int) -> Received:
        query = f"SELECT {_COLUMNS} FROM contributions JOIN people USING (who) WHERE number = ?"
        return _received(db.execute(query, (number,)).fetchone())

    # The file

    def copy(self, target: Path) -> None:
        """Write a whole copy of the file, as of one moment."""
        with self._read() as db, closing(sqlite3.connect(target)) as copy:
            db.backup(copy)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            yield self._db

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._patience is None:
                begin(self._db, self.path, self.say)
            else:
                self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite itself rolls back when the disk is full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Busy(str(error)) from error


def _received(row: tuple[Any, ...]) -> Received:
    values = dict(zip(Received.__dataclass_fields__, row, strict=True))
    return Received(**{**values, "state": State(values["state"])})
