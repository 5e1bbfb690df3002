"""A contribution made with git alone: one commit on top of the tip, signed with an SSH key (`git commit -S`).

What is signed is the commit itself, so every field of the contribution is read from it. Two things that git
does not look at count here: the name of the author belongs to the key that signed, not to whom the commit
names, and the dates in it, which its maker chooses, decide nothing. The last lines of the message name the
track (`Track: NAME`), so that a commit cannot be sent to another one. Not covered: the files (`intake`).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass

from autoresearch.errors import Refused

NAMESPACE = "git"

MAX_COMMIT = 16_000
"""Most bytes of a commit without its signature."""

HEAD = re.compile(
    r"tree (?P<tree>[0-9a-f]{40})\nparent (?P<parent>[0-9a-f]{40})\n"
    r"author (?P<name>[^<>\n]*) <(?P<email>[^<>\n]*)> (?P<time>\d{1,11}) [+-]\d{4}\n"
    r"committer [^\n]*"
)
SIGNATURE = re.compile(r"\ngpgsig (?P<signature>[^\n]*(?:\n [^\n]*)*)")
TRACK = re.compile(r"^Track: (?P<track>\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class SignedCommit:
    """A commit as its author signed it.

    Attributes:
        text: The commit without the signature: what was signed.
        signature: In armor.
        tree: Hash of its whole tree.
        parent: Full hash of the only parent.
        author: Name and address of the author, as the commit says.
        time: Unix time in seconds, as the commit says.
        track: The track that it is meant for.
        title: The first line of the message.
        why: The rest, without the line of the track.
    """

    text: str
    signature: str
    tree: str
    parent: str
    author: str
    time: float
    track: str
    title: str
    why: str


def read_commit(raw: bytes) -> SignedCommit:
    """Read a signed commit as git stores it.

    Raises:
        Refused: If it has not one parent and one SSH signature, or does not say for which track it is.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("the commit is not in UTF-8") from None
    head, _, message = text.partition("\n\n")
    found = SIGNATURE.search(head)
    if found is None:
        raise Refused("the commit is not signed: git -c gpg.format=ssh -c user.signingkey=KEY commit -S")
    signature = found["signature"].replace("\n ", "\n") + "\n"
    return parse_commit(f"{head[: found.start()]}{head[found.end() :]}\n\n{message}", signature)


def parse_commit(text: str, signature: str) -> SignedCommit:
    """Read what was signed; see `read_commit`."""
    if len(text) > MAX_COMMIT:
        raise Refused(f"the commit has more than {MAX_COMMIT:,} characters")
    head, _, message = text.partition("\n\n")
    fields = HEAD.fullmatch(head)
    if fields is None:
        raise Refused("the commit must have one parent, an author, a committer, and no other headers")
    tracks = TRACK.findall(message)
    if len(tracks) != 1:
        raise Refused("the message of the commit must say once for which track it is: Track: NAME")
    title, _, body = TRACK.sub("", message).strip().partition("\n")
    author = f"{fields['name']} <{fields['email']}>"
    return SignedCommit(
        text, signature, fields["tree"], fields["parent"], author, float(fields["time"]), tracks[0],
        " ".join(title.split()), body.strip(),
    )  # fmt: skip


def signer(signature: str) -> str:
    """The public key that is named in a signature; whether it made it is to be checked.

    Raises:
        Refused: If the signature is malformed.
    """
    try:
        raw = base64.b64decode("".join(signature.split("\n")[1:-2]), validate=True)
        (size,) = struct.unpack(">I", raw[10:14])
        key = raw[14 : 14 + size]
        (length,) = struct.unpack(">I", key[:4])
        return f"{key[4 : 4 + length].decode('ascii')} {base64.b64encode(key).decode()}"
    except (struct.error, ValueError, binascii.Error):
        raise Refused("the signature is malformed, or not one of SSH") from None
