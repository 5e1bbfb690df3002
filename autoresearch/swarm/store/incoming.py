"""Takes contributions, or writes down why one is refused: quotas, names, bans, and what was sent before."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoresearch.clock import now
from autoresearch.config import Serve as Limits
from autoresearch.errors import Refused
from autoresearch.swarm import log
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.log import Kind
from autoresearch.swarm.queue import DAY, Record, Sent, over_quota
from autoresearch.swarm.store.file import File, OverQuota, Received, State


@dataclass
class Arrival:
    """A contribution that is to be written; see `Incoming.receive`.

    Attributes:
        outcome: What came of it: as the store knows it, or why it was not taken.
    """

    signed: Signed
    network: str
    claim: float
    limits: Limits
    problem: str
    outcome: Received | BaseException | None = None


class Incoming(File):
    """The part of the store that takes what is sent; see `File` for its arguments."""

    def __init__(
        self, folder: Path, patience: float | None = None, say: Callable[[str], None] = print
    ) -> None:
        super().__init__(folder, patience, say)
        self._arrivals: deque[Arrival] = deque()

    def receive(
        self, signed: Signed, network: str, claim: float, limits: Limits, problem: str = ""
    ) -> Received:
        """Take a contribution whose signature is good; the same one again changes nothing.

        Args:
            signed: What was sent.
            network: Where it came from.
            claim: Claimed gain; see `queue.claimed`.
            limits: What is taken.
            problem: Why it cannot be tried; then it is recorded as refused, and counts among what was sent.

        Raises:
            OverQuota: If the sender, its network or everybody has sent too much.
            Refused: If the sender is banned, or its name is another's.
            Busy: If the store cannot be written; nothing was taken then.
        """
        arrival = Arrival(signed, network, claim, limits, problem)
        self._arrivals.append(arrival)
        with self._lock:
            if arrival.outcome is None:  # else another thread has written it along with its own
                self._receive_all()
        if isinstance(arrival.outcome, BaseException):
            raise arrival.outcome
        assert arrival.outcome is not None
        return arrival.outcome

    def _receive_all(self) -> None:
        """Write all that has arrived in one transaction: what takes longest is to wait for the disk, once."""
        arrivals = [self._arrivals.popleft() for _ in range(len(self._arrivals))]
        try:
            with self._write() as db:
                outcomes = [self._receive(db, arrival) for arrival in arrivals]
        except BaseException as error:
            outcomes = [error] * len(arrivals)
        for arrival, outcome in zip(arrivals, outcomes, strict=True):
            arrival.outcome = outcome

    def _receive(self, db: sqlite3.Connection, arrival: Arrival) -> Received | BaseException:
        """Write one within a transaction; one that is refused leaves nothing behind."""
        signed, sent = arrival.signed, arrival.signed.contribution
        if known := self._found(db, sent.digest):
            return known
        try:
            self._check_sender(db, signed, arrival.network, arrival.limits)
        except Refused as error:
            return error
        problem = arrival.problem or self._sent_before(db, signed)
        state = State.REFUSED if problem else State.WAITING
        self._insert(db, signed, arrival.network, arrival.claim, state, problem)
        found = self._found(db, sent.digest)
        assert found is not None
        return found

    def receive_own(self, signed: Signed) -> Received:
        """Record what the verifier found by itself; if somebody sent the same files before, gives that."""
        sent = signed.contribution
        with self._write() as db:
            query = "SELECT number FROM contributions WHERE track = ? AND tree = ? AND state != 'refused'"
            known = db.execute(query, (sent.track, sent.tree)).fetchone()
            if known is None:
                self._insert(db, signed, "", 0.0, State.TAKEN, "")
                query = "UPDATE contributions SET known = 1 WHERE digest = ? RETURNING number"
                known = db.execute(query, (sent.digest,)).fetchone()
            return self._numbered(db, known[0])

    def _sent_before(self, db: sqlite3.Connection, signed: Signed) -> str:
        """Says who sent the same files before; empty if nobody did."""
        sent = signed.contribution
        clash = db.execute(
            "SELECT who FROM contributions WHERE track = ? AND tree = ? AND state != 'refused'",
            (sent.track, sent.tree),
        ).fetchone()
        if clash is None:
            return ""
        by = "you" if clash[0] == sent.fingerprint else "somebody else"
        return f"{by} sent the same files before: the first counts"

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
        self, db: sqlite3.Connection, signed: Signed, network: str, claim: float, state: State, reason: str
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
