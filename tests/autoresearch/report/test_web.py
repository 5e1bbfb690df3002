import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn

from autoresearch.report.web import MOST_BYTES, create_app
from autoresearch.store.inbox import Inbox
from autoresearch.store.lock import Lease
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


@pytest.mark.slow
def test_a_browser_shows_the_search(address: str, folder: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
    Inbox(folder).add_note("<b id=evil>bold</b>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--no-first-run", f"--user-data-dir={tmp_path}", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run(
        [str(browser), *options, f"{address}/#{TOKEN}"], capture_output=True, text=True, timeout=120
    )
    page = done.stdout
    assert "autoresearch/x: " in page and page.count("<circle") == 3 and 'class="keep"' in page
    assert "&lt;b id=evil&gt;" in page and '<b id="evil">' not in page
    assert 'id="error" role="alert" class="crash"></p>' in page


def test_a_search_that_runs_can_be_paused(address: str, folder: Path) -> None:
    from autoresearch.store.journal import Journal

    journal = Journal(folder / "journal.db")
    journal.set("lease", Lease.ours().to_json())
    try:
        assert ask(f"{address}/say/pause", b"{}")[0] == 200 and Inbox(folder).wished == "pause"
        assert json.loads(ask(f"{address}/state")[1])["runs"]
        assert ask(f"{address}/say/resume", b"{}")[0] == 200 and Inbox(folder).wished == "run"
    finally:
        journal.set("lease", "")
        journal.close()
