"""Reads a file `allowed_signers` of OpenSSH and git: whose key it is, and when it was valid.

Two things count here that git leaves open: a name must belong to the key that signed, and a key must have
been valid when the server received what it signed, whatever date the signer wrote. Not covered: certificates
(`cert-authority`), and patterns with `!`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from autoresearch.errors import Refused, UserError
from autoresearch.swarm.identity import canonical_key


@dataclass(frozen=True)
class Signer:
    """A line of the file.

    Attributes:
        principals: Names and addresses, which may hold `*` and `?`.
        key: The public key.
        namespaces: For which its signatures count; empty: all.
        after: Unix time in seconds from which on it is valid.
        before: Until when.
    """

    principals: tuple[str, ...]
    key: str
    namespaces: tuple[str, ...] = ()
    after: float = float("-inf")
    before: float = float("inf")

    def names(self, person: str) -> bool:
        """Whether the line is about somebody of this name or address."""
        return any(fnmatchcase(person, pattern) for pattern in self.principals)


class Signers:
    """The lines of a file.

    Args:
        lines: Of the file.
    """

    def __init__(self, lines: tuple[Signer, ...] = ()) -> None:
        self.lines = lines

    @classmethod
    def read(cls, path: Path) -> Signers:
        """Read a file.

        Raises:
            UserError: If it cannot be read.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}.", "See ssh-keygen(1).") from None
        lines = (line.strip() for line in text.splitlines())
        return cls(tuple(_line(path, line) for line in lines if line and not line.startswith("#")))

    def check(self, author: str, key: str, namespace: str, received: float) -> None:
        """Check that a signature counts.

        Args:
            author: Who the signer says to be: a name, or `name <address>`.
            key: That signed.
            namespace: Of the signature.
            received: When the server received it, Unix time in seconds.

        Raises:
            Refused: If the key is another's, or was not valid then. Who is not in the file may have any key.
        """
        found = re.fullmatch(r"(.*?) *<(.*)>", author)
        people = [part for part in (found.groups() if found else (author,)) if part]
        address = people[-1:]
        about = [line for line in self.lines if line.key == key]
        others = [line for line in self.lines if any(line.names(person) for person in people)]
        if about and not any(line.names(person) for line in about for person in address):
            raise Refused(f"the key belongs to {', '.join(about[0].principals)}, and not to {author}")
        if others and not about:
            raise Refused(f"{author} signs with another key")
        if about and not any(_counts(line, namespace, received) for line in about):
            raise Refused("the key was not valid, or not for this, when the signature was received")


def _counts(line: Signer, namespace: str, received: float) -> bool:
    spaces = not line.namespaces or any(fnmatchcase(namespace, space) for space in line.namespaces)
    return spaces and line.after <= received <= line.before


LINE = re.compile(r'(\S+)\s+(?:((?:[^\s"]|"[^"]*")+)\s+)?((?:ssh|ecdsa)-\S+\s+\S+)(?:\s.*)?')
"""Names, options if there are some, and the key."""

OPTION = re.compile(r'([a-z-]+)(?:=(?:"([^"]*)"|([^",]*)))?(?:,|$)')


def _line(path: Path, line: str) -> Signer:
    try:
        found = LINE.fullmatch(line)
        if found is None:
            raise ValueError("it has no key")
        options = {name: quoted or plain for name, quoted, plain in OPTION.findall(found[2] or "")}
        if "!" in found[1]:
            raise ValueError("names that do not count (!) are not supported")
        if unknown := options.keys() - {"namespaces", "valid-after", "valid-before"}:
            raise ValueError(f"{', '.join(sorted(unknown))} is not supported")
        return Signer(
            tuple(found[1].strip('"').split(",")),
            canonical_key(found[3]),
            tuple(filter(None, options.get("namespaces", "").split(","))),
            _time(options["valid-after"]) if "valid-after" in options else float("-inf"),
            _time(options["valid-before"]) if "valid-before" in options else float("inf"),
        )
    except (ValueError, UserError) as error:
        raise UserError(f"{path}, {line[:80]}: {error}.", "See ssh-keygen(1).") from None


def _time(text: str) -> float:
    """Unix time of YYYYMMDD[HHMM[SS]][Z]; without Z by the clock of this machine, as OpenSSH reads it."""
    digits = text.removesuffix("Z")
    form = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    if form is None:
        raise ValueError(f"{text} is no time")
    found = datetime.strptime(digits, form)
    return (found.replace(tzinfo=UTC) if text.endswith("Z") else found.astimezone()).timestamp()
