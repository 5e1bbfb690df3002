"""Writes a folder so that it is either complete or does not exist.

Invariant: a prepared folder under its final name is complete, and a process that is killed at any instant
leaves at most a temporary folder, which the next preparation removes. Only the holder of the lock of key K
creates, renames and removes the temporary folder of K. The kernel frees the lock when its holder dies, so a
temporary folder with a free lock is garbage.

Uses flock, so Linux and macOS; on a network disk it needs working locks.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY, LOCKS = ".preparing", ".locks"


@contextmanager
def locked(cache: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `name` of `cache`; calls `waiting` if another process holds it."""
    descriptor = _open_lock(cache, name)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def staged(cache: Path, key: str) -> Iterator[Path]:
    """A new temporary folder that becomes `cache/key` if the block succeeds, and is removed otherwise.

    The caller holds the lock of `key`.
    """
    folder = cache / TEMPORARY / key  # one level down, where a listing of `cache` does not find it
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        for file in folder.iterdir():
            _sync(file)
        _sync(folder)
        folder.rename(cache / key)
        _sync(cache)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(cache: Path) -> None:
    """Remove the temporary folders of killed preparations."""
    for folder in (cache / TEMPORARY).glob("*"):
        descriptor = _open_lock(cache, folder.name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # alive
        finally:
            os.close(descriptor)


def _open_lock(cache: Path, name: str) -> int:
    # A lock file is never removed: a process might wait on it, and a new file would be another lock.
    (cache / LOCKS).mkdir(parents=True, exist_ok=True)
    return os.open(cache / LOCKS / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _sync(path: Path) -> None:
    """Wait until `path` is on disk, so that a power cut cannot leave a renamed folder of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
