"""What a server of tracks has received, from whom, and what became of it: one SQLite file for all tracks.

The server and the verifiers write it, in transactions that add to the log of the track what they change. So
what was acknowledged is on the disk, and what the log tells has happened. A transaction that cannot be made
(the file is locked, the disk is full) changes nothing, and is told as `Busy`. Not covered: which contribution
comes next (`queue`), and the experiments themselves, which are in the journal of the track's search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm import log
from autoresearch.swarm.chain.links import SEGMENT, publish, published
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import Record
from autoresearch.swarm.store.file import COLUMNS, Received, State, received
from autoresearch.swarm.store.incoming import Incoming
from autoresearch.swarm.store.verdicts import Verdicts

OWN = "verifier"
"""Name of the server's verifiers among the contributors, unless somebody else has it."""


class Store(Incoming, Verdicts):
    """The store of a server; see `File` for how it is opened."""

    # Tracks

    def add_track(self, name: str, about: Mapping[str, Any]) -> None:
        """Begin the log of a track, unless it has one."""
        with self._write() as db:
            if log.head(db, name) is None:
                log.append(db, self.identity, name, Kind.TRACK, about)
            key = self.identity
            taken = db.execute("SELECT 1 FROM people WHERE author = ?", (OWN,)).fetchone()
            own = f"{OWN}-{key.fingerprint[7:15]}" if taken else OWN
            values = (key.fingerprint, key.public_key, own, now())
            db.execute(
                "INSERT OR IGNORE INTO people (who, public_key, author, since) VALUES (?, ?, ?, ?)", values
            )

    @property
    def own_name(self) -> str:
        """The name under which the server's verifiers contribute what they find by themselves."""
        with self._read() as db:
            query = "SELECT author FROM people WHERE who = ?"
            return str(db.execute(query, (self.identity.fingerprint,)).fetchone()[0])

    def start(self, track: str) -> str:
        """The commit at which a track began; empty if it has not."""
        first = self.entries(track, 0, 1)
        return str(first[0].data["tip"]) if first else ""

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
            query = f"SELECT {COLUMNS} FROM contributions JOIN people USING (who) WHERE track = ?"
            rows = db.execute(f"{query} ORDER BY number DESC LIMIT ?", (track, most)).fetchall()
        return [received(row) for row in rows]

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
