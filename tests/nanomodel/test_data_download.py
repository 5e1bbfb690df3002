"""Fetching from a real local server that misbehaves in every way we know of."""

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanomodel.data import DataError, DataSpec, download, prepare
from nanomodel.data.download import fetch_all

BODY = bytes(range(256)) * 20_000
ROOT = Path(__file__).parents[2]


@dataclass
class Hub:
    """A host that redirects to a store, as the public one does; `troubles` are used up one a request."""

    files: dict[str, bytes]
    troubles: list[str] = field(default_factory=list)
    etag: str = '"v1"'
    promise: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name, span = handler.path.rsplit("/", 1)[-1], handler.headers.get("Range", "")
        body = self.files.get(name)
        if handler.path.startswith("/hub/"):
            digest = (
                {"X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"'} if self.promise and body else {}
            )
            return self.send(handler, 302, b"", {"Location": f"/store/{name}", **digest})
        self.requests.append((name, span))
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble.isdigit():
            return self.send(handler, int(trouble), b"", {"Retry-After": "0"})
        if body is None:
            return self.send(handler, 404, b"", {})
        start = int(re.findall(r"\d+", span)[0]) if span and handler.headers["If-Range"] == self.etag else 0
        if start >= len(body):
            return self.send(handler, 416, b"", {})
        headers = {"ETag": self.etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        if trouble == "wrong part":
            headers["Content-Range"] = f"bytes {start + 1}-{len(body) - 1}/{len(body)}"
        sent = body[start:]
        headers["Content-Length"] = str(len(sent))
        if trouble == "damage":
            sent = b"!" + sent[1:]
        if trouble == "break":
            sent = sent[: len(sent) // 2]
        if trouble == "shorter":
            sent = sent[:-10]
            headers["Content-Length"] = str(len(sent))
        return self.send(handler, 206 if start else 200, sent, headers)

    def send(self, handler: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({"a.bin": BODY})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}/hub/"
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Callable[[], bytes]:
    return lambda: fetch_all([hub.url + "a.bin"], tmp_path, lambda *_: None)[0].read_bytes()


def spans(hub: Hub) -> list[str]:
    return [span for _, span in hub.requests]


def test_fetched_once_and_noted(hub: Hub, fetch: Callable[[], bytes], tmp_path: Path):
    assert fetch() == fetch() == BODY
    assert len(hub.requests) == 1
    assert json.loads((tmp_path / "a.bin.json").read_text()) == {
        "url": hub.url + "a.bin",
        "etag": '"v1"',
        "size": len(BODY),
        "sha256": hashlib.sha256(BODY).hexdigest(),
    }
    assert not list(tmp_path.glob("*.part"))


def test_a_broken_connection_is_continued_where_it_broke(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["break", "break"]
    assert fetch() == BODY
    assert spans(hub) == ["", f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) * 3 // 4}-"]


def test_a_later_start_continues_too(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["break", *["503"] * 3]
    with pytest.raises(DataError, match="503") as caught:
        fetch()
    assert "what was fetched is kept" in caught.value.hint
    assert fetch() == BODY
    assert spans(hub)[-1] == f"bytes={len(BODY) // 2}-"


@pytest.mark.parametrize("promise", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(hub: Hub, fetch: Callable[[], bytes], promise: bool):
    hub.promise = promise
    hub.troubles = ["break", "503", "503", "503"]
    with pytest.raises(DataError):
        fetch()
    hub.files["a.bin"], hub.etag = BODY[::-1], '"v2"'
    hub.requests.clear()
    assert fetch() == BODY[::-1]
    assert spans(hub) == [f"bytes={len(BODY) // 2}-"]  # the answer to it was the whole file


@pytest.mark.parametrize("etag", ['W/"v1"', ""])
def test_without_a_strong_etag_nothing_is_continued(hub: Hub, fetch: Callable[[], bytes], etag: str):
    hub.etag, hub.troubles = etag, ["break"]
    assert fetch() == BODY
    assert spans(hub) == ["", ""]


@pytest.mark.parametrize("code", ["503", "500", "429", "408"])
def test_a_host_in_trouble_is_asked_again(hub: Hub, fetch: Callable[[], bytes], code: str):
    hub.troubles = [code, code]
    assert fetch() == BODY
    assert len(hub.requests) == 3


def test_a_host_in_lasting_trouble_is_given_up(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["503"] * 100
    with pytest.raises(DataError, match="503"):
        fetch()
    assert len(hub.requests) == len(download.PAUSES) + 1


@pytest.mark.parametrize(
    ("code", "message"), [("404", "There is no"), ("410", "There is no"), ("403", "refuses")]
)
def test_a_refusal_is_final(hub: Hub, fetch: Callable[[], bytes], code: str, message: str):
    hub.troubles = [code] * 2
    with pytest.raises(DataError, match=message) as caught:
        fetch()
    assert len(hub.requests) == 1 and "data.url" in caught.value.hint


def test_damaged_bytes_are_found_out_and_fetched_again(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["damage"]
    assert fetch() == BODY
    assert spans(hub) == ["", ""]


def test_bytes_that_stay_damaged_are_never_used(hub: Hub, fetch: Callable[[], bytes], tmp_path: Path):
    hub.troubles = ["damage"] * 100
    with pytest.raises(DataError, match="not those that the host promised"):
        fetch()
    assert not (tmp_path / "a.bin").exists() and not (tmp_path / "a.bin.part").exists()


def test_a_plain_host_whose_etag_is_the_sha256_is_held_to_it(hub: Hub, fetch: Callable[[], bytes]):
    hub.promise, hub.etag, hub.troubles = False, f'"{hashlib.sha256(BODY).hexdigest()}"', ["damage"]
    assert fetch() == BODY
    assert len(hub.requests) == 2


def test_a_wrong_size_is_found_out(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["shorter"]
    assert fetch() == BODY
    assert len(hub.requests) == 2


def test_another_part_than_was_asked_for_is_not_appended(hub: Hub, fetch: Callable[[], bytes]):
    hub.troubles = ["break", "wrong part"]
    assert fetch() == BODY
    assert spans(hub)[-1] == ""


def test_a_beginning_longer_than_the_file_is_dropped(hub: Hub, fetch: Callable[[], bytes], tmp_path: Path):
    hub.troubles = ["break", *["503"] * 3]
    with pytest.raises(DataError):
        fetch()
    (tmp_path / "a.bin.part").write_bytes(BODY * 2)
    assert fetch() == BODY


@pytest.mark.parametrize("damage", [BODY[:-1], b"!" + BODY[1:]])
def test_a_file_damaged_on_this_disk_is_fetched_again(
    hub: Hub, fetch: Callable[[], bytes], tmp_path: Path, damage: bytes
):
    fetch()
    (tmp_path / "a.bin").write_bytes(damage)
    assert fetch() == BODY


def test_another_address_is_another_file(hub: Hub, fetch: Callable[[], bytes], tmp_path: Path):
    fetch()
    other = hub.url.replace("/hub/", "/hub/other/") + "a.bin"
    fetch_all([other], tmp_path, lambda *_: None)
    assert len(hub.requests) == 2


def test_a_host_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    with pytest.raises(DataError, match="Could not fetch") as caught:
        fetch_all(["http://127.0.0.1:9/a.bin"], tmp_path, lambda *_: None)
    assert "copy the prepared folder" in caught.value.hint


def test_progress_counts_what_was_there_before(hub: Hub, tmp_path: Path):
    hub.troubles, seen = ["break"], []
    fetch_all([hub.url + "a.bin"], tmp_path, lambda *report: seen.append(report))
    numbers = [done for phase, done, total in seen if total == len(BODY)]
    assert numbers == sorted(numbers) and numbers[-1] == len(BODY)
    assert any("trying again" in phase for phase, _, total in seen if total == 0)


# --- a fetched corpus, from end to end ----------------------------------------------------------------------


@pytest.fixture
def shards(hub: Hub) -> Hub:
    for number in range(3):
        buffer = BytesIO()
        rows = [f"{number} {n} " + " ".join(str(n * k * k) for k in range(150)) for n in range(60)]
        pq.write_table(pa.table({"text": rows}), buffer)
        hub.files[f"shard_{number:02d}.parquet"] = buffer.getvalue()
    return hub


def web(hub: Hub, shards: int) -> DataSpec:
    url = hub.url + "shard_{:02d}.parquet"
    limits = {"validation_tokens": 10**6, "test_tokens": 10**6, "tokenizer_bytes": 10**8}
    return DataSpec("web", 300, 0.1, 0.1, **limits, url=url, shards=shards, shards_available=3)


def test_shards_are_fetched_as_asked_for_and_reused(shards: Hub, tmp_path: Path):
    shards.troubles = ["503", "break"]
    two = prepare(web(shards, 2), tmp_path)
    assert {name for name, _ in shards.requests} == {"shard_00.parquet", "shard_01.parquet"}
    three = prepare(web(shards, 3), tmp_path)
    assert [name for name, _ in shards.requests].count(
        "shard_00.parquet"
    ) == 3  # twice troubled, then never again
    assert (
        two.key != three.key and three.meta["splits"]["train"]["bytes"] > two.meta["splits"]["train"]["bytes"]
    )


def test_prepared_data_is_found_without_a_connection(shards: Hub, tmp_path: Path):
    made = prepare(web(shards, 1), tmp_path)
    count = len(shards.requests)
    (tmp_path / "downloads" / "web" / "shard_00.parquet").unlink()
    assert prepare(web(shards, 1), tmp_path).path == made.path
    assert len(shards.requests) == count


def test_killed_while_fetching_continues(hub: Hub, tmp_path: Path):
    """A process is killed in the middle of a file; the next one asks only for the rest."""
    held = threading.Event()
    plain = hub.send

    def stall(handler: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
        if code != 200 or held.is_set():
            return plain(handler, code, body, headers)
        plain(handler, code, body[: 3 << 20], {"Content-Length": str(len(body)), **headers})
        handler.wfile.flush()
        held.wait(30)

    hub.send = stall  # type: ignore[method-assign]
    program = f"""
from pathlib import Path
from nanomodel.data.download import fetch_all
fetch_all([{hub.url + "a.bin"!r}], Path({str(tmp_path)!r}), lambda _, done, total: print(done, flush=True))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 2 << 20:
            break
    process.kill()
    process.communicate()
    held.set()
    have = (tmp_path / "a.bin.part").stat().st_size
    assert have > 0 and not (tmp_path / "a.bin").exists()
    assert fetch_all([hub.url + "a.bin"], tmp_path, lambda *_: None)[0].read_bytes() == BODY
    assert spans(hub)[-1] == f"bytes={have}-"
