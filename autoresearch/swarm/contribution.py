"""What a stranger sends: a change, what it builds on, and what the sender claims, signed with their key.

The signature covers every field in one canonical form, with the track, the parent and the files that result.
So nobody can send another's change under their own name, or to another track, or with other claims. Claims
order the queue and are shown; they are no evidence. Not covered: whether the change may be tried (`intake`).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NoReturn

from autoresearch.errors import Refused
from autoresearch.swarm.commit import NAMESPACE as GIT
from autoresearch.swarm.commit import parse_commit
from autoresearch.swarm.identity import MAX_KEY, Identity, fingerprint, verify
from autoresearch.text import clean
from autoresearch.types import Plain

NAMESPACE = "autoresearch-contribution"

VERSION = 1
"""Of the form that is signed."""

LIMITS = {
    "track": 64, "parent": 64, "patch": 400_000, "tree": 64, "title": 200, "why": 4000, "author": 64,
    "public_key": MAX_KEY, "nonce": 64, "device": 200, "environment": 64,
}  # fmt: skip
"""Most characters of each text."""

MAX_PAIRS = 64
"""Most claimed pairs of scores."""

MAX_TIME = 1e11
"""Largest Unix time in seconds: later ones are no dates."""

MAX_BYTES = 8 * LIMITS["patch"]
"""Most bytes of a contribution with its signature, as JSON; each character may be written as an escape."""

HEX = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Evidence(Plain):
    """What the sender measured: never evidence for the judge.

    Attributes:
        pairs: Seed, score of the parent, score of the change; as measured.
        device: On what.
        environment: Digest of the sender's environment.
    """

    pairs: tuple[tuple[int, float, float], ...] = ()
    device: str = ""
    environment: str = ""


@dataclass(frozen=True)
class Contribution(Plain):
    """A change that somebody offers to a track.

    Attributes:
        track: Name of the track.
        parent: Full hash of the commit that it builds on.
        patch: Unified diff of editable files.
        tree: Digest of the editable files that result (`tree_digest`).
        title: What it is, in a line.
        why: Why it should help.
        evidence: What the sender measured.
        author: A name to be shown; it belongs to the key that used it first in a track.
        public_key: Of the sender, as `Identity.public_key`.
        time: Unix time in seconds by the sender's clock, which may be wrong.
        nonce: Random, so that no two contributions are the same.
        version: Of this form.
    """

    track: str
    parent: str
    patch: str
    tree: str
    title: str
    why: str
    evidence: Evidence
    author: str
    public_key: str
    time: float
    nonce: str
    version: int = VERSION

    @cached_property
    def canonical(self) -> bytes:
        """What is signed."""
        return canonical(self.to_dict())

    @cached_property
    def digest(self) -> str:
        """Names the contribution."""
        return sha256(self.canonical)

    @property
    def fingerprint(self) -> str:
        """Names the sender."""
        return fingerprint(self.public_key)


@dataclass(frozen=True)
class Signed(Plain):
    """A contribution with the signature of its sender.

    Attributes:
        contribution: What was sent.
        signature: In armor.
        commit: The commit that was signed instead, if it was made with git alone; see `commit`.
    """

    contribution: Contribution
    signature: str
    commit: str = ""

    def check(self) -> None:
        """Check every text and the signature.

        Raises:
            Refused: With the reason, for the sender.
        """
        sent = self.contribution
        _check_texts(sent)
        if not self.commit:
            verify(sent.canonical, self.signature, sent.public_key, NAMESPACE)
            return
        made = parse_commit(self.commit, self.signature)
        signed: dict[str, object] = {
            "track": made.track,
            "parent": made.parent,
            "title": made.title,
            "why": made.why,
        }
        signed |= {"author": made.author, "time": made.time, "nonce": made.tree, "evidence": Evidence()}
        if any(getattr(sent, name) != value for name, value in signed.items()):
            raise Refused("the contribution says something else than the commit that was signed")
        verify(self.commit.encode(), self.signature, sent.public_key, GIT)

    def to_json(self) -> str:
        """As it is sent and stored."""
        return canonical(self.to_dict()).decode()

    @classmethod
    def from_json(cls, body: bytes | str) -> Signed:
        """Read what was sent, and check all of it.

        Raises:
            Refused: If it is malformed, too large, or not signed by its sender.
        """
        found = cls.from_stored(body)
        if found.commit:  # it signs the tree of a commit, which only a bundle shows
            raise Refused("a signed commit is sent as a bundle")
        found.check()
        return found

    @classmethod
    def from_stored(cls, body: bytes | str) -> Signed:
        """Read what was checked before.

        Raises:
            Refused: If it is malformed.
        """
        if len(body) > MAX_BYTES:
            raise Refused(f"a contribution has at most {MAX_BYTES:,} bytes")
        return cls.from_plain(strict_json(body))

    @classmethod
    def from_plain(cls, data: Any) -> Signed:
        """From what JSON holds; every field of the contribution must be there."""
        try:
            if not isinstance(data, dict):
                raise ValueError("it is no object")
            found = cls.from_dict(data)
            if canonical(found.to_dict()) != canonical({"commit": "", **data}):
                raise ValueError("a field is missing, or of another type")
        except (ValueError, TypeError, RecursionError) as error:
            raise Refused(f"the contribution is malformed: {clean(str(error))[:300]}") from None
        return found


def sign(identity: Identity, **fields: Any) -> Signed:
    """Make a contribution and sign it.

    Args:
        identity: The sender's key.
        fields: Of `Contribution`, but for the key and the nonce.

    Raises:
        Refused: If a field is not as it should be.
    """
    fields = {"nonce": secrets.token_hex(16), **fields, "public_key": identity.public_key}
    evidence = fields["evidence"].to_dict()  # read as receivers do: 5 becomes 5.0
    sent = Contribution.from_dict({**fields, "evidence": evidence})
    _check_texts(sent)
    return Signed(sent, identity.sign(sent.canonical, NAMESPACE))


def tree_digest(sources: Mapping[str, str]) -> str:
    """Digest of some files: path -> text."""
    return sha256(canonical({path: sha256(text.encode()) for path, text in sources.items()}))


def canonical(data: object) -> bytes:
    """JSON that is the same for the same values: sorted, ASCII, without blanks.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def strict_json(body: bytes | str) -> Any:
    """Read JSON, but not what readers understand differently: a key twice, or numbers that are none.

    Raises:
        Refused: If it is malformed.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands there twice")
        return found

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        text = body if isinstance(body, str) else body.decode("utf-8")
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(f"this is not proper JSON: {clean(str(error))[:200]}") from None


def _check_texts(sent: Contribution) -> None:
    """Refuse texts that are too long, or hold what a reader does not see."""
    texts = {**asdict(sent), **asdict(sent.evidence)}
    for name, most in LIMITS.items():
        text = texts[name]
        if len(text) > most:
            raise Refused(f"{name} has {len(text):,} characters; at most {most:,} are allowed")
        if name != "patch" and text != clean(text):
            raise Refused(f"{name} holds control characters, or others that cannot be seen")
    if sent.version != VERSION:
        raise Refused(f"the contribution has the form {sent.version}; this version reads {VERSION}")
    for name in ("track", "nonce"):
        if not NAME.fullmatch(texts[name]):
            raise Refused(f"{name} must be of letters, digits, dots, dashes and underscores")
    if not HEX.fullmatch(sent.parent) or not re.fullmatch(r"[0-9a-f]{64}", sent.tree):
        raise Refused("parent and tree must be full hashes in lower case")
    for name in ("title", "author"):
        if texts[name] != " ".join(texts[name].split()) or not texts[name]:
            raise Refused(f"{name} must be one line of text")
    if unicodedata.normalize("NFKC", sent.author) != sent.author:
        raise Refused("the name of the author has letters that are another way to write others (NFKC)")
    if not 0 <= sent.time <= MAX_TIME:
        raise Refused("the time is none of this age")
    if len(sent.evidence.pairs) > MAX_PAIRS:
        raise Refused(f"at most {MAX_PAIRS} pairs of scores may be claimed")
    if any(not 0 <= seed < 2**63 for seed, _, _ in sent.evidence.pairs):
        raise Refused("a seed must be a number from 0 to 2**63 - 1")
    if re.search("[\ud800-\udfff]", sent.patch):
        raise Refused("the patch is no text: it holds half of a character")
    if not sent.patch.strip():
        raise Refused("the patch is empty")
