import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from starlette.testclient import TestClient

from autoresearch.report.live.web import MOST_BYTES, create_app, state
from autoresearch.store.calls import CallLog
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.lock import Lease
from autoresearch.store.records.notes import Brief
from autoresearch.types import Call, Category, Cost, Proposal
from tests.support.browser import Browser
from tests.support.searches import EVIL
from tests.support.stub import make_repository, make_search

TOKEN = "secret-token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    search = make_search(make_repository(tmp_path_factory.mktemp("web") / "repo"), [0.2, 1.9])
    search.run()
    return search.journal.path.parent


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(folder, TOKEN, ["127.0.0.1"]), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def ask(
    url: str, data: bytes | None = None, token: str = TOKEN, headers: Mapping[str, str] | None = None
) -> tuple[int, str, Mapping[str, str]]:
    try:
        with urlopen(Request(url, data, {"X-Token": token, **(headers or {})})) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_the_state_is_that_of_the_journal(address: str) -> None:
    code, text, _ = ask(f"{address}/state")
    state = json.loads(text)
    assert code == 200 and [e["verdict"] for e in state["experiments"]] == [None, "keep", "discard"]
    assert state["kept"] == 1 and not state["runs"] and len(state["steps"]) == 2
    assert "+LEVEL = 0.2" in ask(f"{address}/diff/1")[1]
    assert ask(f"{address}/diff/99")[0] == 400


def test_nobody_is_answered_without_the_token_or_under_another_name(address: str) -> None:
    for path, data in (("state", None), ("diff/1", None), ("say/note", b'{"text": "x"}')):
        assert ask(f"{address}/{path}", data, token="")[0] == 403
        assert ask(f"{address}/{path}", data, token="secret-tokem")[0] == 403
        assert ask(f"{address}/{path}", data, headers={"Host": "evil.test"})[0] == 400


def test_notes_and_ideas_reach_the_inbox_and_wishes_only_a_search_that_runs(
    address: str, folder: Path
) -> None:
    assert ask(f"{address}/say/note", json.dumps({"text": EVIL}).encode())[0] == 200
    assert ask(f"{address}/say/idea", b'{"text": "fewer heads"}')[0] == 200
    inbox = Inbox(folder)
    assert EVIL.replace("\0", "").strip()[:40] in inbox.notes()[-1]
    assert inbox.ideas()[-1].text == "fewer heads"
    assert "No process runs" in ask(f"{address}/say/stop", b"{}")[1] and inbox.wished == "run"
    for data, code in ((b"{}", 400), (b"[1]", 400), (b"no json", 400), (b"x" * (MOST_BYTES + 1), 413)):
        assert ask(f"{address}/say/note", data)[0] == code
    assert ask(f"{address}/say/delete", b'{"text": "x"}')[0] == 400


def test_the_page_is_alone_in_the_world(address: str) -> None:
    code, page, headers = ask(address, token="")
    policy = headers["Content-Security-Policy"]
    assert code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page
    assert "innerHTML" not in page and "eval(" not in page


WHY = "Searches of a contest have the briefs that are compared."


def opened(browser: Browser, address: str, width: int = 1200) -> Browser:
    browser.open(f"{address}/#{TOKEN}", width)
    browser.wait("document.querySelectorAll('circle').length == 3")
    assert browser.eval("document.getElementById('error').textContent") == ""
    return browser


@pytest.mark.slow
def test_a_browser_shows_the_search(address: str, folder: Path, browser: Browser) -> None:
    Inbox(folder).add_note("<b id=evil>bold</b>")
    said = opened(browser, address).text()
    for words in ("autoresearch/x: ", "Not running. Continue: autoresearch run name=x", "Places", "keep"):
        assert words in said, said
    assert "<b id=evil>" in said and not browser.eval("!!document.getElementById('evil')")
    assert browser.eval("document.querySelectorAll('#lanes rect').length") >= 3
    browser.eval("document.querySelectorAll('#rows tr')[1].click()")
    browser.wait("document.getElementById('diff').innerText.includes('+LEVEL = 0.2')")


@pytest.mark.slow
def test_a_telephone_shows_all_of_it(address: str, browser: Browser) -> None:
    opened(browser, address, 400)
    assert browser.eval("document.documentElement.scrollWidth") <= 400, "nothing is cut off"
    hit = "[...document.querySelectorAll('button')].every(b => !b.offsetParent || b.offsetHeight >= 36)"
    assert browser.eval(hit), "a thumb hits every button"


@pytest.mark.slow
def test_the_brief_is_edited_for_the_next_question(address: str, folder: Path, browser: Browser) -> None:
    opened(browser, address)
    browser.eval("document.querySelector('#briefbox summary').click()")
    browser.wait("document.getElementById('brief').value.length > 100")
    browser.eval("document.getElementById('brief').value = '# Go deeper\\nOnly depth.'")
    browser.eval("document.getElementById('savebrief').click()")
    edited = Brief(0, "default", "# Go deeper\nOnly depth.")
    browser.wait(f"document.getElementById('briefstate').innerText.includes('{edited.hash}')")
    browser.wait(f"document.getElementById('briefname').innerText.includes('{edited.hash} takes over')")
    found = Inbox(folder).edited_brief()
    assert found is not None and (found.name, found.text) == ("default", edited.text)
    assert ask(f"{address}/say/brief", b'{"text": ""}')[0] == 400, "a search has some brief"
    assert "at most" in ask(f"{address}/say/brief", json.dumps({"text": "x" * 100_001}).encode())[1]


def test_a_brief_that_is_fixed_says_why(folder: Path) -> None:
    client = TestClient(create_app(folder, TOKEN, ["testserver"], fixed=WHY), headers={"X-Token": TOKEN})
    assert client.get("/brief").json()["fixed"] == WHY
    before = Inbox(folder).edited_brief()
    refused = client.post("/say/brief", json={"text": "# Mine"})
    assert refused.status_code == 400 and WHY in refused.json()["error"]
    assert Inbox(folder).edited_brief() == before
    assert TestClient(client.app).get("/brief").status_code == 403, "who has no token is not told either"


def test_what_waits_and_what_a_model_said_is_told(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2])
    search.run()
    journal, folder = search.journal, search.journal.path.parent
    proposal = Proposal(f"tie {EVIL}", Category.ARCHITECTURE, (), "anthropic", mechanism="fewer weights")
    journal.draft(proposal, journal.info().base_commit, 1.0)
    CallLog(folder).record(Call("c1", "anthropic:m", 5.0, "asked", "I would tie them", "", Cost()))
    told = state(folder)
    assert [(q["why"], q["proposer"]) for q in told["queue"]] == [("fewer weights", "anthropic")]
    assert told["thought"] == {"who": "anthropic:m", "time": 5.0, "text": "I would tie them"}
    assert {lane["experiment"] for lane in told["lanes"]} == {0, 1}
    json.dumps(told, allow_nan=False)
    journal.close()


@pytest.mark.slow
def test_a_search_that_runs_shows_its_trial_beside_the_incumbent(
    address: str, folder: Path, browser: Browser
) -> None:
    curve = [[0.0, 9.0], [0.2, 8.0], [0.4, 7.5]]
    trial = {"id": 9, "experiment": 3, "name": "screen", "place": "cpu", "state": "40%", "progress": None}
    now = {"updated": 1.0, "doing": "tries #3", "hypothesis": "wider", "seconds_left": 600.0, "places": 1}
    now |= {"messages": [], "trials": [{**trial, "fraction": 0.4, "curve": curve}]}
    journal = Journal(folder / "journal.db")
    journal.set("lease", Lease.ours().to_json())
    (folder / "now.json").write_text(json.dumps(now))
    try:
        said = opened(browser, address).text()
        assert "tries #3" in said and "wider" in said and "about 10 min left" in said, said
        titles = "[...document.querySelectorAll('#curves title')].map(t => t.textContent).join()"
        assert browser.eval(titles) == "#3 screen,incumbent"
        assert not browser.eval("document.getElementById('pause').disabled")
    finally:
        (folder / "now.json").unlink()
        journal.set("lease", "")
        journal.close()


def test_a_search_that_runs_can_be_paused(address: str, folder: Path) -> None:
    journal = Journal(folder / "journal.db")
    journal.set("lease", Lease.ours().to_json())
    try:
        assert ask(f"{address}/say/pause", b"{}")[0] == 200 and Inbox(folder).wished == "pause"
        assert json.loads(ask(f"{address}/state")[1])["runs"]
        assert ask(f"{address}/say/resume", b"{}")[0] == 200 and Inbox(folder).wished == "run"
    finally:
        journal.set("lease", "")
        journal.close()
