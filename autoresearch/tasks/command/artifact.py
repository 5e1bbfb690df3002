"""Hands over what a candidate leaves behind: plain files, copied after its last process has ended.

Invariant: the copy holds folders and plain files only, with names that are printable text and of a total size
below the limit; no link, device or pipe is opened; and no process of the candidate can reach the copy.
"""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

from autoresearch.tasks.command.metrics import read_plain

MOST_FILES, DEEPEST, LONGEST = 10_000, 16, 200
"""Files, nested folders, and characters of a name."""


class ArtifactError(Exception):
    """What a candidate left cannot be handed over; the message says why.

    Attributes:
        absent: Whether it left nothing at all.
    """

    def __init__(self, reason: str, *, absent: bool = False) -> None:
        super().__init__(reason)
        self.absent = absent


def collect(source: Path, target: Path, most: int) -> int:
    """Copy what a candidate left.

    Args:
        source: The folder in which it left files.
        target: A new folder for the copy.
        most: Largest size of all files together, in bytes.

    Returns:
        Bytes that were copied.

    Raises:
        ArtifactError: If there is nothing, or anything that is no plain file, too much, or oddly named.
    """
    if source.is_symlink() or not source.is_dir():
        raise ArtifactError(f"it left no folder {source.name} for the scorer", absent=True)
    target.mkdir(parents=True)
    total = files = 0
    pending = [(source, target, 0)]
    while pending:
        folder, copy, depth = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise ArtifactError(f"a folder that it left cannot be read: {error.strerror}") from None
        for entry in entries:
            name = entry.name
            if not name.isprintable() or len(name) > LONGEST or not name.strip():
                raise ArtifactError(f"the name {name[:80]!r} that it gave a file is no printable text")
            mode = entry.stat(follow_symlinks=False).st_mode
            files += 1
            if files > MOST_FILES:
                raise ArtifactError(f"it left more than {MOST_FILES:,} files")
            if stat.S_ISDIR(mode):
                if depth == DEEPEST:
                    raise ArtifactError(f"it left folders nested deeper than {DEEPEST}")
                (copy / name).mkdir()
                pending.append((Path(entry.path), copy / name, depth + 1))
                continue
            if not stat.S_ISREG(mode):
                raise ArtifactError(f"{name} is no plain file, and only plain files are handed to the scorer")
            try:
                content = read_plain(Path(entry.path), source, most - total)
            except OSError as error:
                raise ArtifactError(f"what it left cannot be handed over: {error}") from None
            total += len(content)
            (copy / name).write_bytes(content)
    if not files:
        raise ArtifactError(f"it left nothing in {source.name} for the scorer", absent=True)
    return total


def pack(folder: Path, file: Path) -> None:
    """Keep a collected artifact in one file, for a later scoring."""
    partial = file.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        archive.add(folder, arcname=".")
    partial.rename(file)


def unpack(file: Path, folder: Path) -> None:
    """The inverse of `pack`."""
    folder.mkdir(parents=True)
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
