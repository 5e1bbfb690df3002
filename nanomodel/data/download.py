"""Fetches public files: resumes after an interruption, checks size and hash, and tries again.

Invariants: a file under its final name is complete, and NAME.json beside it holds its sha256; a file that no
longer matches that is fetched again; a partial file (NAME.part) is continued only if the host's ETag says
that it is still the same file.

If a host gives the sha256 (the hub of the corpora in `configs/data` does, in X-Linked-Etag, before it
redirects to its store), damaged bytes are detected; otherwise only a wrong size is.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from nanomodel.data.progress import Report
from nanomodel.data.spec import DataError
from nanomodel.data.staging import locked

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries; there is one try more than pauses."""
LONGEST_PAUSE = 60.0
TIMEOUT = 30.0
BLOCK = 1 << 20
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP errors that may pass by themselves."""


class _Broken(Exception):
    """A failure after which another try may succeed; `pause` is what the host asked for."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class _Note:
    """The note about a file; it is stored beside the file, also while the file is partial."""

    url: str
    etag: str = ""
    size: int = -1
    sha256: str = ""

    @classmethod
    def read(cls, path: Path, url: str) -> _Note:
        """The note at `path`, or an empty one if there is none, or one about another address."""
        try:
            note = cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(url)
        return note if note.url == url else cls(url)

    def write(self, path: Path) -> None:
        """Keep it."""
        path.write_text(json.dumps(asdict(self)) + "\n", "utf-8")


def fetch_all(urls: Sequence[str], folder: Path, report: Report) -> list[Path]:
    """The files at `urls`, in `folder`; complete files are not fetched again.

    Raises:
        DataError: If a file cannot be fetched.
        OSError: If `folder` cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(
        folder, "fetch", lambda: report("Waiting for another process that fetches these files", 0, 0)
    ):
        return [
            fetch(url, folder, report, f"Fetching {number} of {len(urls)}")
            for number, url in enumerate(urls, 1)
        ]


def fetch(url: str, folder: Path, report: Report, phase: str) -> Path:
    """One file; see `fetch_all`. The caller holds the lock of `folder`."""
    path = folder / unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    note = _Note.read(_beside(path, ".json"), url)
    if note.sha256 and path.is_file() and _sha256(path) == note.sha256:
        return path
    for pause in (*PAUSES, None):
        try:
            return _try(url, path, lambda done, total: report(phase, done, total))
        except _Broken as error:
            if pause is None:
                raise DataError(
                    f"Could not fetch {url}: {error}.",
                    "Check the connection and start again: what was fetched is kept. Or prepare the data on a"
                    " machine with a connection, and copy the prepared folder.",
                    machine=True,
                ) from error
            pause = min(max(pause, error.pause), LONGEST_PAUSE)
            report(f"{phase}: {error}; trying again in {pause:g} s", 0, 0)
            time.sleep(pause)
    raise AssertionError("not reached")


def _try(url: str, path: Path, report: Callable[[int, int | None], None]) -> Path:
    part, beside = _beside(path, ".part"), _beside(path, ".json")
    note = _Note.read(beside, url)
    resumable = part.is_file() and note.etag.startswith('"')  # weak ETags do not identify bytes
    have = part.stat().st_size if resumable else 0
    headers = {
        "User-Agent": "nanomodel",
        **({"Range": f"bytes={have}-", "If-Range": note.etag} if have else {}),
    }
    hops = _Hops()
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.build_opener(hops).open(request, timeout=TIMEOUT) as response:
            have = have if response.status == 206 else 0
            size = _size(response.headers, have, part)
            _Note(url, response.headers.get("ETag", ""), size).write(beside)
            _copy(response, part, have, lambda done: report(done, size if size >= 0 else None))
            etag = response.headers.get("ETag", "")
    except urllib.error.HTTPError as error:
        raise _refusal(error, url, part) from error
    except urllib.error.URLError as error:
        raise _Broken(str(error.reason)) from error
    except (TimeoutError, ConnectionError, HTTPException, ssl.SSLError) as error:
        raise _Broken(str(error) or type(error).__name__) from error
    digest = _checked(part, size, hops.sha256 or _as_sha256(etag))
    _Note(url, etag, part.stat().st_size, digest).write(beside)
    return part.rename(path)


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and remembers the sha256 that a hub gives before it redirects."""

    sha256 = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        self.sha256 = _as_sha256(headers.get("X-Linked-Etag", "")) or self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _size(headers: Message, have: int, part: Path) -> int:
    """Bytes of the whole file, -1 if the host does not say."""
    if have:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if span is None or int(span[1]) != have:
            part.unlink()
            raise _Broken("the host sent another part of the file than was asked for")
        return int(span[2])
    return int(headers.get("Content-Length", -1))


def _copy(response: Any, part: Path, have: int, report: Callable[[int], None]) -> None:
    with part.open("ab" if have else "wb") as file:
        while block := response.read(BLOCK):
            file.write(block)
            have += len(block)
            report(have)


def _checked(part: Path, size: int, promised: str) -> str:
    """The sha256 of a complete file; keeps an incomplete file, to continue it, and deletes a wrong one."""
    got = part.stat().st_size
    if 0 <= got < size:
        raise _Broken(f"the connection ended after {got:,} of {size:,} bytes")
    digest = _sha256(part)
    if (size >= 0 and got != size) or (promised and digest != promised):
        part.unlink()
        raise _Broken("the bytes that came are not those that the host promised")
    return digest


def _refusal(error: urllib.error.HTTPError, url: str, part: Path) -> Exception:
    if error.code == 416:  # nothing to continue: the partial file is useless
        part.unlink(missing_ok=True)
        return _Broken("the host has no more of the file")
    if error.code in AGAIN:
        pause = error.headers.get("Retry-After", "")
        return _Broken(
            f"the host answers {error.code} {error.reason}", float(pause) if pause.isdigit() else 0.0
        )
    if error.code in (404, 410):
        return DataError(f"There is no {url}.", "Check data.url and data.shards.")
    return DataError(f"The host refuses {url}: {error.code} {error.reason}.", "Check data.url.")


def _as_sha256(etag: str) -> str:
    value = etag.strip('"').lower()
    return value if re.fullmatch(r"[0-9a-f]{64}", value) else ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
