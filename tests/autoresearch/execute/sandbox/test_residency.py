"""All files that jails can read are in memory before one starts, whatever the one before did."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from autoresearch.execute.sandbox import residency, visible
from autoresearch.tasks.gpt.program import PACKAGES


@pytest.fixture(autouse=True)
def counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A kernel's counters that stand still, and no memory of other tests."""
    counters = {"pgsteal_file": "1"}
    monkeypatch.setattr(residency, "_counters", lambda: dict(counters))
    monkeypatch.setattr(residency, "_memory_file", lambda: tmp_path / "read-in.json")
    return counters


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir="/var/tmp") as root:  # on a disk: other files never leave memory
        yield fill(Path(root, "library"))


def fill(folder: Path) -> Path:
    """A library of three files and a link."""
    for name, size in {"small.py": 5000, "deep/large.so": 1 << 20, "empty": 0}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    (folder / "link").symlink_to("/")
    os.sync()
    return folder


def is_resident(path: Path) -> bool:
    """Whether every page of a file is in memory."""
    with path.open("rb") as file:
        try:
            pages = range(0, path.stat().st_size, 4096)
            return all(os.preadv(file.fileno(), [bytearray(1)], at, os.RWF_NOWAIT) for at in pages)
        except BlockingIOError:
            return False


def drop(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_what_was_dropped_is_read_again_once_the_kernel_counts_it(
    folder: Path, counters: dict[str, str]
) -> None:
    first = residency.read_in([folder])
    assert first is not None and (first.files, first.left_out) == (3, 0)
    assert residency.read_in([folder]) is None, "nothing was dropped"
    for name in ("small.py", "deep/large.so"):
        drop(folder / name)
        if is_resident(folder / name):
            pytest.skip("this file system keeps its files in memory")
    counters["pgsteal_file"] = "2"
    assert residency.read_in([folder]) is not None
    assert is_resident(folder / "small.py") and is_resident(folder / "deep/large.so")
    assert residency.read_in([folder]) is None


def test_files_that_memory_has_no_room_for_are_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "_free_memory", lambda: 20_000.0)
    done = residency.read_in([folder])
    assert done is not None and (done.files, done.left_out) == (2, 1 << 20)


def test_where_the_kernel_counts_nothing_all_is_read_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "_counters", lambda: {})
    assert residency.read_in([folder]) and residency.read_in([folder])


def test_what_jails_read_is_what_is_kept_in_memory() -> None:
    kept = visible.readable(PACKAGES)
    shown = [path for path in (*visible.roots(), *visible.packages(PACKAGES)) if path.exists()]
    for path in shown:
        inside = any(path.is_relative_to(folder) or folder.is_relative_to(path) for folder in kept)
        assert inside or path.is_symlink() or path.is_relative_to("/sys"), path
    assert not any(path.is_relative_to("/usr/share/doc") for path in kept)
