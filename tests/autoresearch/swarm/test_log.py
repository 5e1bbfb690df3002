import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoresearch.store.connection import connect
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.log import BrokenLog, Entry, Kind, append, check, entries, head
from tests.support.swarm import identity, log_file


@pytest.fixture
def server(tmp_path: Path) -> Identity:
    return identity(tmp_path, "server")


@pytest.fixture
def db(tmp_path: Path) -> sqlite3.Connection:
    return log_file(tmp_path / "tracks.db")


def write(db: sqlite3.Connection, server: Identity, count: int = 5, track: str = "tiny") -> list[Entry]:
    with db:
        db.execute("BEGIN IMMEDIATE")
        append(db, server, track, Kind.TRACK, {"base": "a" * 40}, when=10.0)
        for number in range(1, count):
            append(db, server, track, Kind.RECEIVED, {"contribution": str(number)}, when=10.0 + number)
    return list(entries(db, track))


def test_entries_are_given_back_in_order_and_each_track_has_its_own(
    db: sqlite3.Connection, server: Identity
) -> None:
    first, second = write(db, server), write(db, server, 2, "other")
    assert [entry.number for entry in first] == [0, 1, 2, 3, 4]
    assert list(check(iter(first), server.public_key)) == first
    assert list(check(second, server.public_key)) == second
    assert head(db, "tiny") == first[-1] and head(db, "none") is None
    assert list(entries(db, "tiny", first=2, most=2)) == first[2:4]
    assert Entry.from_dict(first[1].to_dict()) == first[1] and first[1].data == {"contribution": "1"}


def test_sqlite_itself_refuses_to_change_an_entry(db: sqlite3.Connection, server: Identity) -> None:
    before = write(db, server)
    for statement in ("UPDATE log SET payload = '{}'", "DELETE FROM log WHERE number = 4"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    assert list(entries(db, "tiny")) == before


def test_an_entry_that_was_not_committed_leaves_no_gap(db: sqlite3.Connection, server: Identity) -> None:
    write(db, server)
    db.execute("BEGIN IMMEDIATE")
    append(db, server, "tiny", Kind.REFUSED, {})
    db.execute("ROLLBACK")
    with db:
        db.execute("BEGIN IMMEDIATE")
        assert append(db, server, "tiny", Kind.FLAGGED, {}).number == 5
    assert len(list(check(entries(db, "tiny"), server.public_key))) == 6


def test_a_long_reason_is_cut_so_that_no_sender_can_stop_the_log(
    db: sqlite3.Connection, server: Identity
) -> None:
    with db:
        db.execute("BEGIN IMMEDIATE")
        append(db, server, "tiny", Kind.TRACK, {"reason": "\U0001f600" * 100_000})
    [entry] = check(entries(db, "tiny"), server.public_key)
    assert len(entry.data["reason"]) == 2000


def test_two_servers_on_one_file_write_one_log(
    tmp_path: Path, db: sqlite3.Connection, server: Identity
) -> None:
    write(db, server)
    other = connect(tmp_path / "tracks.db")
    for turn in range(6):
        used = (db, other)[turn % 2]
        with used:
            used.execute("BEGIN IMMEDIATE")
            append(used, server, "tiny", Kind.RECEIVED, {"turn": turn})
    assert len(list(check(entries(db, "tiny"), server.public_key))) == 11
    other.close()


def test_time_never_runs_backwards_when_the_clock_is_set_back(
    db: sqlite3.Connection, server: Identity
) -> None:
    write(db, server)
    with db:
        db.execute("BEGIN IMMEDIATE")
        assert append(db, server, "tiny", Kind.RECEIVED, {}, when=3.0).time == 14.0
    assert len(list(check(entries(db, "tiny"), server.public_key))) == 6


def test_a_payload_that_cannot_be_written_is_refused(db: sqlite3.Connection, server: Identity) -> None:
    with pytest.raises(ValueError, match="transaction"):
        append(db, server, "tiny", Kind.TRACK, {})
    db.execute("BEGIN IMMEDIATE")
    for payload in ({"x": ["y" * 70_000]}, {"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            append(db, server, "tiny", Kind.TRACK, payload)
    db.execute("ROLLBACK")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(data=st.data())
def test_every_change_of_a_log_is_found_at_its_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    server, thief = identity(folder, "server"), identity(folder, "thief")
    db = log_file(folder / "tracks.db")
    log = write(db, server)
    db.close()
    at = data.draw(st.integers(1, 4))
    old = log[at]
    forged = replace(old, payload='{"contribution":"forged"}')
    rehashed = replace(forged, hash=forged.content_hash())
    resigned = replace(rehashed, signature=thief.sign(rehashed.hash.encode(), "autoresearch-log"))
    changes = {
        "payload": [*log[:at], forged, *log[at + 1 :]],
        "hash": [*log[:at], rehashed, *log[at + 1 :]],
        "signature": [*log[:at], resigned, *log[at + 1 :]],
        "dropped": [*log[:at], *log[at + 1 :]] if at < 4 else [replace(log[0], number=4), *log[1:]],
        "inserted": [*log[:at], log[at - 1], *log[at:]],
        "swapped": [*log[: at - 1], log[at], log[at - 1], *log[at + 1 :]],
        "time": [*log[:at], replace(old, time=0.0), *log[at + 1 :]],
        "kind": [*log[:at], replace(old, kind=Kind.TRACK), *log[at + 1 :]],
        "track": [*log[:at], replace(old, track="other"), *log[at + 1 :]],
    }
    for what in changes:
        with pytest.raises(BrokenLog):
            list(check(changes[what], server.public_key))


def test_a_log_that_its_own_server_has_rewritten_is_found_by_who_saw_it(
    tmp_path: Path, server: Identity
) -> None:
    one, other = (log_file(tmp_path / name) for name in ("one.db", "other.db"))
    seen, told = write(one, server), write(other, server, 3)
    with other:
        other.execute("BEGIN IMMEDIATE")
        append(other, server, "tiny", Kind.REFUSED, {"another": "story"})
    told = list(entries(other, "tiny"))
    list(check(told, server.public_key))  # to who has seen nothing it looks right
    list(check(seen, server.public_key, {2: seen[2].hash}))
    with pytest.raises(BrokenLog, match="rewritten"):
        list(check(told, server.public_key, {3: seen[3].hash}))
    with pytest.raises(BrokenLog, match="gone"):
        list(check(told[:3], server.public_key, {4: seen[4].hash}))
    one.close()
    other.close()
