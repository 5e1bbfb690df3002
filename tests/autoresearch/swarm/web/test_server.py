"""The server: what it hands out, what it takes, and what strangers may do to it."""

import asyncio
import json
import socket
import sqlite3
from contextlib import closing
from urllib.request import urlopen
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from autoresearch.config import load
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.log import check
from autoresearch.swarm.verify.verifier import require_safe, verify
from autoresearch.swarm.web.guard import Rates
from autoresearch.swarm.web.host import opened
from autoresearch.swarm.web.server import BUNDLE, create_app
from tests.support.tracks import LIMITS, Person, served

pytestmark = pytest.mark.slow


@pytest.fixture
def client(track):
    return TestClient(create_app({"t": track}, track.store, LIMITS), client=("10.1.2.3", 5))


def post(client, signed, **headers):
    return client.post("/api/tracks/t/contributions", content=signed.to_json(), headers=headers)


def test_by_hand_from_a_contribution_to_a_link_that_the_page_shows(client, track, folder, tmp_path):
    about = client.get("/api/tracks/t").json()
    assert about["tip"] == about["base"] and about["metric"]["better"] == "higher"
    ada = Person(tmp_path, "ada")
    answer = post(client, ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))
    assert answer.status_code == 202 and answer.json()["state"] == "waiting"
    assert "waits for the verifier" in client.get("/t").text
    verify(folder, track.store)
    row = client.get(f"/api/tracks/t/contributions/{answer.json()['contribution']}").json()
    assert row["state"] == "kept" and row["gain"] > 0
    about = client.get("/api/tracks/t").json()
    assert about["tip"] == row["commit"] == client.get("/api/tracks/t/chain").json()[-1]["commit"]
    page = client.get("/t").text
    assert "LEVEL = 1.0 becomes LEVEL = 1.6" in page and "ada" in page and "100%" in page
    assert "<script" not in page
    feed = client.get("/t/feed.atom")
    assert feed.headers["content-type"].startswith("application/atom+xml") and row["commit"] in feed.text


def test_every_route_is_described_and_every_description_is_a_route(client, track):
    described = client.get("/openapi.json").json()["paths"]
    routes = {route.path for route in client.app.routes if route.path.startswith("/api")}
    assert set(described) == routes
    about = client.get("/api/tracks/t").json()
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert set(about) == set(schemas["Track"]["properties"])
    assert set(client.get("/api/tracks/t/chain").json()[0]) == set(schemas["Link"]["properties"])
    assert set(client.get("/api/tracks/t/log").json()[0]) == set(schemas["Entry"]["properties"])


def test_nothing_secret_is_handed_out(client, track, folder, tmp_path):
    ada = Person(tmp_path, "ada")
    post(client, ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))
    key = (track.store.path.parent / "key").read_text()
    secrets = [track.journal.seed_secret(), "10.1.2", str(folder), key]
    for path in ("", "/chain", "/people", "/tried", "/ideas", "/log", "/contributions"):
        text = client.get(f"/api/tracks/t{path}").text
        assert not [secret for secret in secrets if secret in text], path
        assert "LEVEL = 1.6  # 0..2" not in text, path  # the patch of what waits is nobody's business
    assert not [secret for secret in secrets if secret in client.get("/t").text]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"contribution": {}, "signature": ""}',
        b"[" * 9000,
    ],
)
def test_what_is_no_contribution_is_refused_and_not_written_down(client, track, body):
    answer = client.post("/api/tracks/t/contributions", content=body)
    assert answer.status_code == 400 and answer.json()["error"]
    answer = client.post("/api/tracks/t/contributions", content=body, headers={"Content-Type": BUNDLE})
    assert answer.status_code == 400 and answer.json()["error"]
    assert len(track.store.entries("t")) == 1


def test_too_much_is_turned_away_while_it_streams_in(client, track, store):
    assert client.post("/api/tracks/t/contributions", content=b"x" * 2_000_000).status_code == 413
    with served({"t": track}, store) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection, pytest.raises(OSError):
            head = (
                "POST /api/tracks/t/contributions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            connection.sendall(head.encode())
            for _ in range(1000):  # far more than any buffer holds
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def test_forged_stolen_and_replayed_contributions_count_for_nothing(client, track, folder, tmp_path):
    ada, eve = Person(tmp_path, "ada"), Person(tmp_path, "eve")
    good = ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6")
    first = post(client, good)
    assert first.status_code == 202 and post(client, good).json() == first.json()  # a replay changes nothing
    forged = json.loads(good.to_json())
    forged["contribution"]["public_key"] = eve.key.public_key
    assert client.post("/api/tracks/t/contributions", content=json.dumps(forged)).status_code == 400
    stolen = post(client, eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.6"))
    assert stolen.status_code == 400 and "somebody else sent the same files" in stolen.json()["reason"]
    named = eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.7", author="ada")
    assert "belongs to another key" in post(client, named).json()["error"]
    elsewhere = eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.8", track="other")
    assert "signed for the track other" in post(client, elsewhere).json()["error"]
    false = eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.9", tree="0" * 64)
    assert post(client, false).json()["state"] == "refused"
    lost = eve.change(folder, "LEVEL = 1.0", "LEVEL = 2.0", parent="0" * 40)
    assert "no commit of this track" in post(client, lost).json()["reason"]
    assert [one.author for one in track.store.contributions("t") if one.state == "waiting"] == ["ada"]
    assert list(check(track.store.entries("t"), track.store.identity.public_key))


def test_a_flood_is_slowed_down_and_takes_no_place_from_others(track, folder, tmp_path):
    limits = LIMITS.model_copy(update={"requests": 4, "waiting": 2})
    app = create_app({"t": track}, track.store, limits)
    flooder, other = (TestClient(app, client=(address, 5)) for address in ("10.1.2.3", "10.9.9.9"))
    eve, bob = Person(tmp_path, "eve"), Person(tmp_path, "bob")
    sent = [eve.change(folder, "MORE = 0", f"MORE = {i}") for i in range(1, 5)]
    answers = [post(flooder, one) for one in sent]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 429]
    assert all("Retry-After" in answer.headers for answer in answers[2:])
    assert [flooder.get("/api/tracks/t").status_code for _ in range(9)].count(429) >= 2
    assert post(other, bob.change(folder, "MORE = 0", "MORE = 9")).status_code == 202


def test_rates_are_remembered_for_so_many_networks_only():
    time = [0.0]
    rates = Rates(60, lambda: time[0])
    assert [rates.wait("a") for _ in range(60)] == [0.0] * 60
    assert 0 < rates.wait("a") <= 1
    time[0] = 1.0
    assert rates.wait("a") == 0.0 and rates.wait("a") > 0
    for i in range(30_000):
        rates.wait(f"net{i}")
    assert len(rates._buckets) == 10_000


def test_a_locked_or_full_store_takes_nothing_and_says_so(client, track, folder, tmp_path, monkeypatch):
    track.store._db.execute("PRAGMA busy_timeout = 50")
    ada = Person(tmp_path, "ada")
    signed = ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6")
    with closing(sqlite3.connect(track.store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = post(client, signed)
        assert answer.status_code == 503 and answer.json()["retry"] and "locked" in answer.json()["error"]
        assert client.get("/t").status_code == 200  # reading goes on
        other.execute("ROLLBACK")
    pages = track.store._db.execute("PRAGMA page_count").fetchone()[0]
    track.store._db.execute(f"PRAGMA max_page_count = {pages}")
    long = ada.change(folder, "LEVEL = 1.0", "LEVEL = 1.6", why="x " * 1900)
    full = [post(client, long)]
    for i in range(1, 10):
        one = Person(tmp_path, f"p{i}").change(folder, "MORE = 0", f"MORE = {i}", why="x " * 1900)
        full.append(post(client, one))
    assert full[-1].status_code == 503 and "full" in full[-1].json()["error"]
    track.store._db.execute("PRAGMA max_page_count = 1000000")
    taken = sum(answer.status_code == 202 for answer in full)
    assert len(track.store.contributions("t")) == taken == len(track.store.entries("t")) - 1
    assert list(check(track.store.entries("t"), track.store.identity.public_key))


def test_texts_of_strangers_are_text_on_the_page_and_in_the_feed(client, track, folder, tmp_path):
    evil = '<script>alert(1)</script><img src=x onerror=alert(1)> "&'
    eve = Person(tmp_path, "eve")
    sent = eve.change(folder, "LEVEL = 1.0", "LEVEL = 1.7", title=evil, author="<b>eve</b>")
    assert post(client, sent).status_code == 202
    verify(folder, track.store)
    for path in ("/t", "/t/feed.atom", "/"):
        text = client.get(path).text
        assert "<script>" not in text and "<img" not in text and "<b>eve" not in text, path
    assert "&lt;script&gt;" in client.get("/t").text
    ElementTree.fromstring(client.get("/t/feed.atom").text)
    policy = client.get("/t").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy


def test_people_whose_names_look_alike_are_told_apart_by_their_keys(client, folder, tmp_path):
    people = [Person(tmp_path, name) for name in ("ada", "\N{CYRILLIC SMALL LETTER A}da")]
    for number, person in enumerate(people):
        assert post(client, person.change(folder, "MORE = 0", f"MORE = {number + 1}")).status_code == 202
    page = client.get("/t").text
    for person in people:
        assert f"{person.name} <code" in page and person.key.fingerprint[7:15] in page
    other = Person(tmp_path / "other", "ada").change(folder, "MORE = 0", "MORE = 9")
    assert "belongs to another key" in post(client, other).json()["error"]


def test_connections_that_send_nothing_or_too_slowly_are_closed_and_others_are_served(track, store):
    limits = LIMITS.model_copy(update={"seconds": 3.0})
    with served({"t": track}, store, limits) as address:
        host, port = address.removeprefix("http://").split(":")
        begun = b"POST /api/tracks/t/contributions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        starts = [b"", b"GET / HT", begun]
        slow = [socket.create_connection((host, int(port))) for _ in starts]
        for connection, start in zip(slow, starts, strict=True):
            connection.settimeout(60)
            connection.sendall(start)
        with urlopen(f"{address}/api/tracks/t") as answer:
            assert answer.status == 200
        ends = [_end(connection) for connection in slow]  # it may be closed before its request was read
        assert ends[:2] == [b"", b""] and ends[2] in (b"", b"HTTP/1.1 408")


def test_a_body_that_does_not_arrive_is_not_waited_for(track, store):
    app = create_app({"t": track}, store, LIMITS.model_copy(update={"seconds": 0.01}))
    said: list[dict] = []

    async def never() -> dict:
        await asyncio.Event().wait()
        raise AssertionError

    async def say(message: dict) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/tracks/t/contributions", "headers": []}
    asyncio.run(app({**scope, "query_string": b"", "client": ("10.1.2.3", 5)}, never, say))
    assert said[0]["status"] == 408 and len(store.entries("t")) == 1


def _end(connection: socket.socket) -> bytes:
    """The first word of what a server says before it closes a connection."""
    with connection:
        said = b""
        try:
            while part := connection.recv(4096):
                said += part
        except ConnectionError:
            pass
        return said[:12]


def test_who_disappears_in_the_middle_leaves_nothing(track, store, folder, tmp_path):
    body = Person(tmp_path, "ada").change(folder, "LEVEL = 1.0", "LEVEL = 1.6").to_json().encode()
    with served({"t": track}, store) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = (
                f"POST /api/tracks/t/contributions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:-1])
        with urlopen(f"{address}/api/tracks/t/contributions") as answer:
            assert json.load(answer) == []
    assert len(store.entries("t")) == 1


def test_a_second_server_on_the_same_store_is_refused(folder):
    repository = Repository(folder.parent.parent)
    with opened(["t"], folder.parent, repository) as (tracks, _):
        assert list(tracks) == ["t"]
        with (
            pytest.raises(UserError, match="serves the tracks") as error,
            opened(["t"], folder.parent, repository),
        ):
            pass
        assert error.value.code == 4
    with opened(["t"], folder.parent, repository) as (tracks, store):
        assert len(store.entries("t")) == 1  # the store is still there


@pytest.mark.parametrize("settings", ["sandbox=none", "task=command task.train=x task.editable=[a.py]"])
def test_a_track_that_strangers_could_abuse_is_refused(settings, folder, monkeypatch):
    config = load([*settings.split(), "name=t", "executor.device=cpu"], {})
    with pytest.raises(UserError, match=r"without a sandbox|print their own scores"):
        require_safe(config)
