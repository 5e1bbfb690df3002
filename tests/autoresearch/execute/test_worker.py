"""What a worker needs reaches it once and unharmed, and what a trial leaves comes back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.errors import UserError
from autoresearch.execute.base import Place
from autoresearch.execute.remote import RemoteExecutor
from autoresearch.execute.worker import files
from autoresearch.execute.worker.channels import FROM_WORKER, TO_WORKER, Appender, Follower, WorkerLost
from autoresearch.execute.worker.fence import Fence, superseded
from autoresearch.execute.worker.files import File, FileStore, Listing, list_folder, pieces
from autoresearch.execute.worker.messages import Setup, from_line, to_line
from autoresearch.store.files import digest
from autoresearch.testing.executors import events_until_finished, scripted_spec, write_files
from autoresearch.types import Measurement, Outcome
from tests.support.worker_engines import Threads


class Leaves:
    """Measures the text of its data; leaves losses of items, and what the candidate submits."""

    def __init__(self, place: Place, folders: Any, options: Any, say: Any) -> None:
        self.place, self.folders, self.say = place, folders, say
        self.add = options["add"]

    def measure(self, tree: Path, spec: Any, scratch: Path, *_: Any) -> Measurement:
        self.say("measuring")
        submission = Path(spec.submission)
        score = float((self.folders["data"] / "deep" / "number").read_text()) + self.add
        if submission.exists():
            score += 1000
        else:
            submission.parent.mkdir(exist_ok=True)
            submission.write_bytes(os.urandom(files.PIECE + 5))
        np.save(scratch / "validation.npy", np.array([[score, 1.0]]))
        assert (self.folders["trusted"] / "script.txt").read_text() == "trusted"
        return Measurement(Outcome.OK, score)

    def close(self) -> None: ...


def leaves(*arguments: Any) -> tuple[Leaves, dict[str, str]]:
    return Leaves(*arguments), {"sandbox": "none"}


def folder_of(path: Path) -> Path:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "number").write_text("41.5")
    (path / "large").write_bytes(os.urandom(2 * files.PIECE + 1))
    (path / "empty").write_bytes(b"")
    (path / "run").write_text("#!/bin/sh\n")
    (path / "run").chmod(0o755)
    (path / "link").symlink_to("deep/number")
    return path


@pytest.mark.parametrize("shared", [True, False], ids=["shared file system", "through the engine"])
def test_data_and_trees_go_there_and_files_come_back(
    tmp_path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared:
        monkeypatch.setattr(FileStore, "original", lambda *_: None)
        monkeypatch.setattr(FileStore, "_take", lambda *_: False)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "script.txt").write_text("trusted")
    data = list_folder(folder_of(tmp_path / "data"))
    maker = f"{__name__}:leaves"
    setup = Setup("one", maker, {"add": 0.5}, {"data": data}, list_folder(trusted))
    engine = Threads(tmp_path / "cache", ["a"])
    runs = tmp_path / "runs"
    executor = RemoteExecutor(setup, engine, runs, write_files)
    try:
        events: SimpleQueue[Any] = SimpleQueue()
        asked = {"items": "losses/1", "submission": "weights/w"}
        executor.submit(scripted_spec("", **asked), "a", events)
        first = events_until_finished(events)[-1].result
        assert (first.score, first.items) == (42.0, {"validation": "losses/1/validation.items.npy"})
        assert np.load(runs / "one" / first.items["validation"])[0, 0] == 42.0
        kept = (runs / "one" / "weights" / "w").read_bytes()
        assert len(kept) == files.PIECE + 5
        executor.submit(scripted_spec("", trial=2, **asked), "a", events)
        assert events_until_finished(events)[-1].result.score == 1042.0, "it scores what was submitted"
        assert (runs / "one" / "weights" / "w").read_bytes() == kept
        brought = executor.about["a"]["bytes"]
        assert (brought == 0) if shared else (brought > 2 * files.PIECE)
        assert executor.about["a"]["about"] == {"sandbox": "none"}
        assert not list(engine.opened["a"][0].worker._runs.glob("one/[!t]*/*")), "the worker keeps nothing"
    finally:
        executor.close()
    if not shared:  # a second worker of that machine needs nothing
        store = FileStore(tmp_path / "cache")
        assert store.missing(data) == []
        assert digest(store.folder(data)) == digest(tmp_path / "data")


def test_a_worker_with_another_version_measures_nothing(tmp_path: Path) -> None:
    setup = Setup("one", "autoresearch.testing.executors:scripted_maker", versions={"numpy": "0.1"})
    with pytest.raises(UserError, match=r"numpy [\d.]+, not 0\.1"):
        engine = Threads(tmp_path / "cache", ["a"])
        RemoteExecutor(setup, engine, tmp_path / "runs", write_files, start_seconds=0.2)


def test_a_file_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    engine = Threads(tmp_path / "cache", ["a"])
    setup = Setup("one", "autoresearch.testing.executors:scripted_maker")
    executor = RemoteExecutor(setup, engine, tmp_path / "runs", write_files)
    try:
        executor.submit(scripted_spec("endless", items="losses/1"), "a", SimpleQueue())
        site = executor._workers.sites["a"]
        while not (site.jobs and site.jobs[0].attempt):
            pass
        for path in ("../../x", "journal.db", "losses/1/../2/validation.items.npy", "/etc/x", "losses/1/x"):
            with pytest.raises(WorkerLost, match="nobody asked for"):
                executor._orders.take_piece(site.jobs[0], {"path": path, "data": b"", "last": True})
    finally:
        executor.close()


def test_a_damaged_file_is_refused_and_can_be_sent_again(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "data")
    listing, store = list_folder(source), FileStore(tmp_path / "store")
    hidden = Listing("", listing.files)
    large = next(file for file in store.missing(hidden) if file.path == "large")
    with pytest.raises(UserError, match="damaged"):
        store.receive(large, b"something else", True)
    for piece, last in pieces(source / "large"):
        store.receive(large, piece, last)
    assert "large" not in {file.path for file in store.missing(hidden)}
    (source / "run").write_text("changed since it was listed")
    assert [file.path for file in store.missing(listing)] == ["run"]


def test_a_changed_folder_of_a_store_is_not_given(tmp_path: Path) -> None:
    listing, store = list_folder(folder_of(tmp_path / "data")), FileStore(tmp_path / "store")
    assert store.missing(listing) == []
    folder = store.folder(listing)
    (folder / "deep" / "number").chmod(0o600)
    (folder / "deep" / "number").write_text("0")
    with pytest.raises(UserError, match="was changed"):
        store.folder(listing)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ""])
def test_a_listing_cannot_lead_out_of_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="leads out"):
        Listing("", (File(path, "0" * 64, 1),))


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=99), st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False) | st.text()))
def test_a_message_survives_its_line(data: bytes, values: dict[str, Any]) -> None:
    message = {"kind": "file", "values": values, "data": data}
    assert from_line(to_line(message)) == message
    assert to_line(message).count(b"\n") == 1


def test_messages_through_a_folder_arrive_in_order_and_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path / FROM_WORKER)
    assert follower.next(0.01) is None
    out = Appender(tmp_path / FROM_WORKER)
    for number in range(3):
        out.send({"kind": "ping", "number": number})
    assert [follower.next(5)["number"] for _ in range(3)] == [0, 1, 2]  # type: ignore[index]
    with (tmp_path / FROM_WORKER).open("ab") as stream:
        stream.write(b'{"kind":"pi')
        stream.flush()
        assert follower.next(0.01) is None, "half a line is no message"
        stream.write(b'ng"}\n')
    assert follower.next(5) == {"kind": "ping"}


def test_a_fence_names_the_newest_attempt_only(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    assert not superseded(str(fence.path), "x"), "where the file cannot be seen nothing is known"
    first = fence.claim(1)
    assert fence.counts(1, first) and not superseded(str(fence.path), first)
    second = fence.claim(1)
    assert fence.counts(1, second) and not fence.counts(1, first) and superseded(str(fence.path), first)
    Fence(tmp_path)  # the search goes on in another process
    assert superseded(str(fence.path), second) and json.loads(fence.path.read_text()) == {}


@pytest.mark.slow
def test_the_worker_program_works_through_a_folder_and_ends_when_nobody_listens(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_files("", tmp_path / "tree", {"script.txt": "score 3"})
    setup = Setup("one", "autoresearch.testing.executors:scripted_maker")
    spec = scripted_spec("score 3")
    order = {"attempt": "1-a", "spec": spec.to_dict(), "tree": list_folder(tmp_path / "tree").to_dict()}
    to = Appender(tmp_path / TO_WORKER)
    to.send({"kind": "setup", "setup": setup.to_dict()})
    to.send({"kind": "order", "order": order, "tryout": False})
    command = [sys.executable, "-m", "autoresearch.execute.worker", "--place", "p", "--lease", "1"]
    command += ["--cache", str(tmp_path / "cache"), "--spool", str(tmp_path)]
    with subprocess.Popen(command) as process:
        follower, found = Follower(tmp_path / FROM_WORKER), []
        while not found or found[-1]["kind"] != "finished":
            found.append(follower.next(60) or {"kind": "nothing"})
        assert process.wait(60) == 0
    assert [m["kind"] for m in found if m["kind"] != "progress"] == ["hello", "ready", "started", "finished"]
    assert found[-1]["measurement"]["score"] == 3 and found[-1]["measurement"]["provenance"]["place"] == "p"
