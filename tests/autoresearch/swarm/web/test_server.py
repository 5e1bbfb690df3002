"""The server: what it hands out, what it takes, and what strangers may do to it."""

import pytest
from starlette.testclient import TestClient

from autoresearch.swarm.verify import verify
from autoresearch.swarm.web.server import create_app
from tests.support.tracks import LIMITS, Person

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
