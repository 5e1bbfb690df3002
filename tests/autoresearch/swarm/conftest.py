"""Tracks that take seconds to make, for tests that copy them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.store.git.repository import Repository
from autoresearch.swarm.store import Store
from autoresearch.swarm.web.track import Track
from tests.autoresearch.conftest import Once
from tests.support import tracks


@pytest.fixture
def folder(once: Once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the search of the track `t`; its repository is the current folder."""
    tracks.quicken(monkeypatch, tmp_path / "site")
    root = tmp_path / "repo"
    shutil.copytree(once("track", tracks.make_begun_root), root)
    monkeypatch.chdir(root)
    return root / "runs" / "t"


@pytest.fixture
def store(folder):
    with Store(folder.parent / "swarm", patience=30.0) as store:
        yield store


@pytest.fixture
def track(folder, store):
    track = Track(folder, store, Repository(folder.parent.parent))
    track.begin()
    yield track
    track.close()


@pytest.fixture
def address(track: Track, store: Store) -> Iterator[str]:
    """A server of the track `t` on the loopback."""
    with tracks.served({"t": track}, store) as address:
        yield address
