"""Talks to a server of tracks over HTTP; what it says is limited in size and checked to be JSON.

A server that cannot be reached, or asks to wait, is told apart from one that refuses. Not covered: when to
ask (`client`).
"""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from autoresearch.errors import UserError
from autoresearch.swarm.contribution import Signed
from autoresearch.text import one_line

SECONDS = 30.0
"""How long an answer may take to begin, and to go on."""

MOST_JSON, MOST_BUNDLE = 64_000_000, 2_000_000_000
"""Largest answers in bytes."""


class Unreachable(UserError):
    """The server does not answer, or asks to come back later."""


class Remote:
    """A track on a server.

    Args:
        url: Of the page of the track, such as "https://example.org/gpt".

    Raises:
        UserError: If that is no address of a track.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        names = [name for name in parts.path.split("/") if name]
        if parts.scheme not in ("http", "https") or not parts.netloc or not names:
            hint = "It looks like https://example.org/TRACK; the page of the server lists its tracks."
            raise UserError(f"{url} is no address of a track.", hint)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", names[-1]):
            raise UserError(f"{names[-1]} is no name of a track.")
        self.track = names[-1]
        self.server = "/".join([f"{parts.scheme}://{parts.netloc}", *names[:-1]])
        self.url = self.page = f"{self.server}/{self.track}"
        self._api = f"{self.server}/api/tracks/{self.track}"

    def about(self) -> dict[str, Any]:
        """The rules of the track, and where it stands."""
        found = self._json(Request(self._api))
        if not isinstance(found, dict) or not re.fullmatch(r"[0-9a-f]{40,64}", str(found.get("tip"))):
            raise UserError(f"{self._api} does not say what a track says.", "Is it another version's server?")
        return found

    def tried(self) -> list[dict[str, Any]]:
        """Every experiment of the track with its verdict."""
        return list(self._json(Request(f"{self._api}/tried")))

    def submit(self, signed: Signed) -> dict[str, Any]:
        """Send a contribution; the answer is what became of it so far.

        Raises:
            Unreachable: If it may be sent again later.
            UserError: If it cannot be taken at all.
        """
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self._api}/contributions", signed.to_json().encode(), headers)
        return dict(self._json(request, refused=True))

    def status(self, digest: str) -> dict[str, Any]:
        """What became of a contribution."""
        return dict(self._json(Request(f"{self._api}/contributions/{digest}")))

    def download(self, what: str, path: Path) -> None:
        """Write an answer into a file."""
        try:
            with (
                urlopen(Request(f"{self._api}/{what}"), timeout=SECONDS) as answer,
                path.open("wb") as stream,
            ):
                left = MOST_BUNDLE
                while part := answer.read(1 << 20):
                    left -= len(part)
                    if left < 0:
                        raise UserError(f"{self._api}/{what} is too large.")
                    stream.write(part)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _json(self, request: Request, refused: bool = False) -> Any:
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                return _read(answer.read(MOST_JSON + 1), request.full_url)
        except HTTPError as error:
            try:
                said = _read(error.read(100_000), request.full_url)
            except (UserError, OSError):
                said = {}
            said = said if isinstance(said, dict) else {}
            if refused and "contribution" in said:
                return said
            if error.code in (408, 429) or error.code >= 500:
                raise self._unreachable(said.get("error", error.reason)) from None
            reason = one_line(str(said.get("error", error.reason)), 400)
            raise UserError(f"{self.server} refuses: {reason}.", "See docs/swarm.md.") from None
        except (URLError, OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, why: object) -> Unreachable:
        said = one_line(str(getattr(why, "reason", why)), 300)
        return Unreachable(f"{self.server} cannot be used now: {said}.", "Try again later.", code=3)


def _read(body: bytes, url: str) -> Any:
    if len(body) > MOST_JSON:
        raise UserError(f"The answer of {url} is too large.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UserError(f"{url} does not answer with JSON.", "Is it a server of autoresearch?") from None
