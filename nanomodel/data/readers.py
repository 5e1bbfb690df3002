"""Reads documents from .txt, .jsonl and .parquet files, one piece at a time whatever the size of a file.

Invariant: every document is valid UTF-8 and not blank. Text that is not UTF-8 is refused, with the file and
the place, and never repaired: a wrongly guessed encoding would damage a corpus unnoticed. Otherwise text
stays as it is, except that a byte order mark at the start of a .txt is removed.

A .txt is one document, except that some are cut at blank lines: the only file, a file larger than
`WHOLE_FILE`, and among up to `FEW` files one larger than a document should be. Otherwise a held-out split
might hold one novel, or none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanomodel.data.progress import Report
from nanomodel.data.spec import DataError

WHOLE_FILE = 16 << 20
FEW = 1000
BLOCK = 1 << 20
ROWS = 128
"""Rows of a .parquet in memory at once."""
LACKING, LACKING_SHARE = 100, 0.1
"""Lines of a .jsonl that may lack the field: so many, or this share of the lines, whichever is more."""
STRETCH = 4
"""A document of a cut .txt is at most this many times as large as it should be."""

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_MARK = b"\xef\xbb\xbf"
Piece = tuple[bytes, int]
"""A document, and how far into its file it ends, in bytes."""


def read_files(files: Sequence[Path], column: str, document_bytes: int, report: Report) -> Iterator[bytes]:
    """The documents of `files`, in order.

    Args:
        files: Each ends in .txt, .jsonl or .parquet.
        column: Where the text is, in the latter two.
        document_bytes: About the size of a document of a .txt that is cut; 0: never cut.
        report: Called with the bytes read so far.

    Raises:
        DataError: If a file cannot be read, is not what its name says, or has no such column.
    """
    total, before = sum(f.stat().st_size for f in files), 0
    for file in files:
        size = file.stat().st_size
        try:
            for raw, at in _pieces(file, column, document_bytes, len(files), report):
                if raw.strip():
                    yield raw
                report("Reading", before + at, total)
        except OSError as error:
            raise DataError(f"Cannot read {file}: {error.strerror or error}.", "Check the file.") from error
        before += size
        report("Reading", before, total)


def _pieces(file: Path, column: str, document_bytes: int, files: int, report: Report) -> Iterator[Piece]:
    if file.suffix.lower() == ".parquet":
        return _parquet(file, column)
    if file.suffix.lower() == ".jsonl":
        return _jsonl(file, column, report)
    most = 0 if files == 1 else STRETCH * document_bytes if files < FEW else WHOLE_FILE
    if document_bytes and file.stat().st_size > most:
        return _paragraphs(file, document_bytes)
    return _whole(file)


def _whole(file: Path) -> Iterator[Piece]:
    raw = file.read_bytes()
    yield _checked(raw.removeprefix(_MARK), file, 0), len(raw)


def _paragraphs(file: Path, size: int) -> Iterator[Piece]:
    """Cut at the first blank line after `size` bytes; in text without any, at a line, a word, a character."""
    with file.open("rb") as handle:
        buffer, at = handle.read(len(_MARK)).removeprefix(_MARK), 0
        start = handle.tell() - len(buffer)
        while block := handle.read(BLOCK):
            buffer, at = buffer[at:] + block, 0
            while len(buffer) - at > STRETCH * size:
                end = _cut(buffer, at, size)
                yield _checked(buffer[at:end], file, start), start + end - at
                start, at = start + end - at, end
        if rest := buffer[at:]:
            yield _checked(rest, file, start), start + len(rest)


def _cut(buffer: bytes, at: int, size: int) -> int:
    limit = at + STRETCH * size
    if blank := _BLANK_LINE.search(buffer, at + size, limit):
        return blank.end()
    for mark in (b"\n", b" "):
        if (found := buffer.rfind(mark, at + size, limit)) >= 0:
            return found + 1
    end = limit
    while end > limit - 4 and buffer[end] & 0xC0 == 0x80:  # not inside a character
        end -= 1
    return end


def _jsonl(file: Path, column: str, report: Report) -> Iterator[Piece]:
    """The field of each line; a few lines may lack it."""
    at, rows, lacking = 0, 0, 0
    first: DataError | None = None
    with file.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            at += len(line)
            if not line.strip():
                continue
            rows += 1
            try:
                yield _field(line, column, f"line {number} of {file}"), at
            except _FieldMissing as error:
                first, lacking = first or error, lacking + 1
                if lacking > max(LACKING, LACKING_SHARE * rows):
                    raise first from None
    if first is not None:
        if lacking == rows:
            raise first
        report(f"{file.name}: {lacking} of {rows} lines have no {column!r}; they are left out", 0, 0)


class _FieldMissing(DataError):
    """A line has no such field."""


def _field(line: bytes, column: str, where: str) -> bytes:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise _not_utf8(where) from error
    except ValueError as error:
        raise DataError(f"Not JSON, {where}: {error}.", 'Lines look like {"text": "..."}.') from error
    except RecursionError:
        raise DataError(f"The JSON of {where} is nested too deep.", "Take that line out.") from None
    if isinstance(row, list):
        hint = "Write one object a line, for example: jq -c '.[]' OLD > NEW.jsonl"
        raise DataError(f"A JSON array, not an object, is in {where}.", hint)
    if not isinstance(row, dict):
        raise DataError(f"Not a JSON object, {where}.", 'Lines look like {"text": "..."}.')
    if column not in row:
        missing = _no_column(column, list(row), where)
        raise _FieldMissing(missing.message, missing.hint)
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise DataError(f"{column!r} in {where} is not text.", _other_column(list(row), column))
    try:
        return (text or "").encode()
    except UnicodeEncodeError as error:  # an escape such as \\ud800, half of a character
        raise _not_utf8(where) from error


def _parquet(file: Path, column: str) -> Iterator[Piece]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.stat().st_size
    try:
        # Without pre_buffer and with a buffer, columns are read page by page and not by whole row groups.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK) as parquet:
            names = parquet.schema_arrow.names
            if column not in names:
                raise _no_column(column, names, str(file))
            if names.count(column) > 1:
                hint = "Write the file again with names that differ."
                raise DataError(f"{file} has {names.count(column)} columns called {column!r}.", hint)
            kind, rows, row = parquet.schema_arrow.field(column).type, parquet.metadata.num_rows, 0
            if not _is_text(kind):
                raise DataError(
                    f"Column {column!r} of {file} holds {kind}, not text.", _other_column(names, column)
                )
            for batch in parquet.iter_batches(ROWS, columns=[column], use_threads=False):
                for value in batch.column(0).cast(pa.large_string()).cast(pa.large_binary()).to_pylist():
                    row += 1
                    yield _checked(value or b"", file, f"row {row}"), size * row // rows
    except pa.ArrowInvalid as error:
        hint = "Perhaps it was cut short: fetch it again."
        raise DataError(f"{file} is not a whole .parquet file: {error}.", hint) from error


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _checked(raw: bytes, file: Path, place: int | str) -> bytes:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        where = f"byte {place + error.start}" if isinstance(place, int) else place
        raise _not_utf8(f"{file}, at {where},") from error
    if isinstance(place, int) and b"\0" in raw:
        raise DataError(f"{file} has NUL bytes: it looks like a binary file.", "Give a file of plain text.")
    return raw


def _not_utf8(where: str) -> DataError:
    hint = "Convert it first, for example: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
    return DataError(f"The text of {where} is not UTF-8.", hint)


def _no_column(column: str, names: Sequence[str], where: str) -> DataError:
    return DataError(f"There is no column {column!r} in {where}.", _other_column(names, column))


def _other_column(names: Sequence[str], column: str) -> str:
    others = [str(name) for name in names if name != column]
    if not others:
        return f"Write the text into a column {column!r}."
    return f"Set data.text_column to one of: {', '.join(others)}."
