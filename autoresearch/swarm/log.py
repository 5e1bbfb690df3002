"""The log of a track: what came in and what became of it. Each entry holds the hash of the one before.

The server signs every entry. Who has seen an entry knows all before it: none can be changed, dropped or
inserted later without notice. The time of an entry is the server's, and never runs backwards; it is the time
that counts for a key's validity. An entry is written within the caller's transaction, together with what it
tells of. Not covered: who may write what (`store`), and the commits that entries tell of (`chain`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autoresearch.clock import now
from autoresearch.errors import Refused, UserError
from autoresearch.swarm.contribution import canonical, sha256, strict_json
from autoresearch.swarm.identity import Identity, verify
from autoresearch.types import Plain

NAMESPACE = "autoresearch-log"

START = "0" * 64
"""Stands for the hash before the first entry."""

MAX_TEXT = 2000
"""Most characters of a text of the payload; a reason may quote what was sent, and longer ones are cut."""

MAX_PAYLOAD = 64_000
"""Most bytes of a payload: entries name contributions by their digest and do not hold them."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    track TEXT NOT NULL, number INTEGER NOT NULL, previous TEXT NOT NULL, kind TEXT NOT NULL,
    time REAL NOT NULL, payload TEXT NOT NULL, hash TEXT NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (track, number));
CREATE TRIGGER IF NOT EXISTS log_keeps_entries BEFORE UPDATE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_keeps_all BEFORE DELETE ON log
    BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
"""
"""For the SQLite file of the tracks."""


class Kind(StrEnum):
    """What an entry tells."""

    TRACK = "track"  # the first entry: what is improved, from which commit
    RECEIVED = "received"
    REFUSED = "refused"
    VERDICT = "verdict"
    FLAGGED = "flagged"
    MODERATED = "moderated"


@dataclass(frozen=True)
class Entry(Plain):
    """One entry.

    Attributes:
        track: Name of the track.
        number: From 0, without gaps.
        previous: Hash of the entry before.
        kind: What it tells.
        time: Unix time in seconds by the server's clock.
        payload: JSON in canonical form.
        hash: Of all of the above.
        signature: The server's, of the hash.
    """

    track: str
    number: int
    previous: str
    kind: Kind
    time: float
    payload: str
    hash: str
    signature: str

    @property
    def data(self) -> Any:
        """The payload as plain values."""
        return strict_json(self.payload)

    def content_hash(self) -> str:
        """What `hash` must be."""
        return _hash(self.track, self.number, self.previous, self.kind, self.time, self.payload)


class BrokenLog(UserError):
    """A log that is not as its server wrote it.

    Attributes:
        number: The first entry that is wrong.
    """

    def __init__(self, number: int, why: str) -> None:
        super().__init__(
            f"The log is broken at entry {number}: {why}.",
            "Do not build on what this server says; compare with somebody's older copy.",
        )
        self.number = number


def append(
    db: sqlite3.Connection,
    identity: Identity,
    track: str,
    kind: Kind,
    payload: Mapping[str, Any],
    when: float | None = None,
) -> Entry:
    """Add an entry within the caller's transaction.

    Args:
        db: A file with `SCHEMA`, in a transaction that was begun to write.
        identity: The server's key.
        track: Name of the track.
        kind: What it tells.
        payload: Plain values; texts longer than `MAX_TEXT` are cut.
        when: Unix time in seconds; now by default. A time before that of the last entry is raised to it.

    Raises:
        ValueError: If the payload is too large or not plain, or no transaction is open.
    """
    if not db.in_transaction:
        raise ValueError("a log entry belongs into a transaction, with what it tells of")
    cut = {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in payload.items()}
    text = canonical(cut).decode()
    if len(text) > MAX_PAYLOAD:
        raise ValueError(f"a log entry has at most {MAX_PAYLOAD:,} bytes")
    last = head(db, track)
    number, previous = (last.number + 1, last.hash) if last else (0, START)
    time = max(now() if when is None else float(when), last.time if last else 0.0)
    made = _hash(track, number, previous, kind, time, text)
    signature = identity.sign(made.encode(), NAMESPACE)
    entry = Entry(track, number, previous, kind, time, text, made, signature)
    db.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(entry.to_dict().values()))
    return entry


def head(db: sqlite3.Connection, track: str) -> Entry | None:
    """The last entry of a track."""
    row = db.execute("SELECT * FROM log WHERE track = ? ORDER BY number DESC LIMIT 1", (track,)).fetchone()
    return _entry(row) if row else None


def entries(db: sqlite3.Connection, track: str, first: int = 0, most: int = -1) -> Iterator[Entry]:
    """Entries of a track in order, from a number on."""
    where = "WHERE track = ? AND number >= ? ORDER BY number LIMIT ?"
    return map(_entry, db.execute(f"SELECT * FROM log {where}", (track, first, most)))


def check(found: Iterable[Entry], server_key: str, seen: Mapping[int, str] | None = None) -> Iterator[Entry]:
    """Give entries on, each once it is known to be as the server wrote it.

    Args:
        found: Entries from the first one on.
        server_key: The server's public key, known from elsewhere.
        seen: Number -> hash of entries that one has seen before: a server that tells everyone another story
            is found out by them.

    Raises:
        BrokenLog: If an entry is wrong, or one that was seen is gone.
    """
    previous, time, number, track = START, 0.0, -1, None
    for number, entry in enumerate(found):
        track = track or entry.track
        if entry.number != number or entry.track != track:
            raise BrokenLog(number, f"entry {entry.number} of {entry.track} stands in its place")
        if entry.previous != previous:
            raise BrokenLog(number, "it does not follow the entry before")
        if entry.time < time:
            raise BrokenLog(number, "its time is before that of the entry before")
        if entry.hash != entry.content_hash():
            raise BrokenLog(number, "its content was changed")
        if (seen or {}).get(number, entry.hash) != entry.hash:
            raise BrokenLog(number, "it was another entry when it was seen before: the log was rewritten")
        if (entry.kind is Kind.TRACK) != (number == 0):
            raise BrokenLog(number, "the first entry, and no other, must tell of the track")
        try:
            verify(entry.hash.encode(), entry.signature, server_key, NAMESPACE)
        except Refused as error:
            raise BrokenLog(number, str(error)) from None
        previous, time = entry.hash, entry.time
        yield entry
    if number < max(seen or {-1: ""}):
        raise BrokenLog(number + 1, "entries that were seen before are gone")


def _hash(track: str, number: int, previous: str, kind: str, time: float, payload: str) -> str:
    return sha256(canonical([track, number, previous, str(kind), time, payload]))


def _entry(row: tuple[Any, ...]) -> Entry:
    track, number, previous, kind, *rest = row
    return Entry(track, number, previous, Kind(kind), *rest)
