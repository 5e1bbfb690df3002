"""Identities, contributions and a log for tests of the room swarm."""

import hashlib
import os
import sqlite3
import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.store.connection import connect
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.check import Chain, verify_chain
from autoresearch.swarm.chain.links import SEGMENT, Digests, Link, publish, published
from autoresearch.swarm.contribution import Evidence, Signed, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.log import SCHEMA, Entry, Kind, append, entries

SOURCES = {"train.py": "WIDTH = 1\nDEPTH = 2\n"}

PATCH = """\
--- a/train.py
+++ b/train.py
@@ -1,2 +1,2 @@
-WIDTH = 1
+WIDTH = 3
 DEPTH = 2
"""
RESULT = {"train.py": "WIDTH = 3\nDEPTH = 2\n"}


def identity(folder: Path, name: str) -> Identity:
    """A key of its own for each name, made without a process."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = folder / name
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        path.chmod(0o600)
    return Identity(path)


def contribution(identity: Identity, **fields: Any) -> Signed:
    """A proper contribution; fields replace its own."""
    usual = {
        "track": "tiny",
        "parent": "a" * 40,
        "patch": PATCH,
        "tree": tree_digest(RESULT),
        "title": "Three times the width",
        "why": "It is narrow.",
        "evidence": Evidence(((1, 0.5, 0.4), (2, 0.51, 0.42)), "cpu", "b" * 64),
        "author": "Ada",
        "time": 1000.0,
    }
    return sign(identity, **{**usual, **fields})


def log_file(path: Path) -> sqlite3.Connection:
    """A file with an empty log."""
    db = connect(path)
    db.executescript(SCHEMA)
    return db


def git(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    """What git says, without the newline at the end."""
    names = {
        f"GIT_{role}_{field}": "x@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for field in ("NAME", "EMAIL")
    }
    env = {**os.environ, **names, "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}
    done = subprocess.run(["git", *arguments], cwd=folder, input=data, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip(b"\n")


def track_repository(root: Path, sources: Mapping[str, str] = SOURCES) -> str:
    """Make the repository of a track; gives its only commit."""
    (root / "pkg").mkdir(parents=True)
    for path, text in sources.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    (root / "pkg" / "frozen.py").write_text("SCORE = 0\n")
    (root / "run.sh").write_text("echo\n")
    (root / "run.sh").chmod(0o755)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return git(root, "rev-parse", "HEAD").decode()


@dataclass
class Stranger:
    """Somebody who makes any git object, proper or not.

    Attributes:
        key: Signs.
        start: The commit of the track, as (mode, name, hash) of the entries of its tree.
        objects: What was made: hash -> (kind, content).
    """

    key: Identity
    start: Sequence[tuple[str, bytes, str]]
    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, key: Identity) -> "Stranger":
        """Somebody who has a clone of the repository."""
        lines = [line.partition(b"\t") for line in git(root, "ls-tree", "-z", "HEAD").split(b"\0") if line]
        found = [(*about.decode().split()[::2], name) for about, _, name in lines]
        return cls(key, [(mode.lstrip("0"), name, blob) for mode, blob, name in found])

    def add(self, kind: str, content: bytes) -> str:
        """Make an object, whatever is in it."""
        name = hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()
        self.objects[name] = kind, content
        return name

    def tree(self, entries: Sequence[tuple[str, bytes, str]]) -> str:
        """A tree of (mode, name, hash), in this order."""
        lines = (b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(blob)) for mode, name, blob in entries)
        return self.add("tree", b"".join(lines))

    def change(self, changes: Mapping[bytes, tuple[str, str] | None]) -> str:
        """The tree of the start with entries of its top changed: name -> (mode, hash), None to remove it."""
        found = [entry for entry in self.start if entry[1] not in changes]
        found += [(entry[0], name, entry[1]) for name, entry in changes.items() if entry]
        return self.tree(sorted(found, key=lambda entry: entry[1] + b"/" * (entry[0] == "40000")))

    def commit(self, tree: str, parent: str, signed: bool = True, **fields: str) -> str:
        """A signed commit."""
        said = {"author": "Ada <ada@example.org>", "time": "1000", "extra": ""}
        said |= {"message": "Wider\n\nIt is narrow.\n\nTrack: tiny\n", **fields}
        head = f"tree {tree}\nparent {parent}\nauthor {said['author']} {said['time']} +0000\n"
        head += f"committer {said['author']} {said['time']} +0000{said['extra']}"
        text = f"{head}\n\n{said['message']}"
        signature = self.key.sign(text.encode(), "git").strip().replace("\n", "\n ")
        return self.add(
            "commit", (f"{head}\ngpgsig {signature}\n\n{said['message']}" if signed else text).encode()
        )

    def bundle(self, parent: str, tip: str, pack: bytes | None = None) -> bytes:
        """A bundle of all objects that were made."""
        kinds = {"commit": 1, "tree": 2, "blob": 3}
        made = pack_of([(kinds[kind], content, b"") for kind, content in self.objects.values()])
        return f"# v2 git bundle\n-{parent} start\n{tip} refs/heads/mine\n\n".encode() + (pack or made)


def pack_of(objects: Sequence[tuple[int, bytes, bytes]], count: int | None = None) -> bytes:
    """A pack of (kind, content, what stands before it)."""
    made = b"PACK" + struct.pack(">II", 2, len(objects) if count is None else count)
    for kind, content, before in objects:
        size, head = len(content), bytearray()
        byte = (kind << 4) | (size & 15)
        size >>= 4
        while size:
            head.append(byte | 128)
            byte, size = size & 127, size >> 7
        head.append(byte)
        made += bytes(head) + before + zlib.compress(content)
    return made + hashlib.sha1(made).digest()


@dataclass
class Track:
    """A track whose server keeps what it is told to keep, without measuring anything."""

    root: Path
    sources: Mapping[str, str] = field(default_factory=lambda: SOURCES)
    name: str = "tiny"
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.start = track_repository(self.root, self.sources)
        self.repository = Repository(self.root)
        self.server = identity(self.root, "server")
        self.db = log_file(self.root / "tracks.db")
        self.kept: dict[str, str] = {}
        self.clock = 1000.0
        about = {"base": self.start, "key": self.server.public_key, "editable": list(self.sources)}
        self.log(Kind.TRACK, {**about, "settings": list(self.settings)})

    @property
    def tip(self) -> str:
        """The commit that was kept last."""
        return list(self.kept)[-1] if self.kept else self.start

    def log(self, kind: Kind, payload: Mapping[str, Any]) -> Entry:
        """Write an entry."""
        self.clock += 1
        self.db.execute("BEGIN IMMEDIATE")
        entry = append(self.db, self.server, self.name, kind, payload, self.clock)
        self.db.execute("COMMIT")
        return entry

    def receive(self, signed: Signed, **changed: Any) -> None:
        """Log that a contribution was received."""
        sent = signed.contribution
        told = {"contribution": sent.digest, "tree": sent.tree, "parent": sent.parent}
        self.log(
            Kind.RECEIVED,
            told | {"who": sent.fingerprint, "author": sent.author, "title": sent.title} | changed,
        )

    def keep(
        self, signed: Signed, sources: Mapping[str, str], message: str = "kept\n", **changed: Any
    ) -> str:
        """Commit these sources, and log that the contribution was kept so."""
        parent = self.tip
        commit = self.repository.commit(parent, sources, message, self.clock)
        pairs = ((0, 0.5, 0.4), (1, 0.52, 0.41))
        of = Digests("1" * 64, "2" * 64, "3" * 64, "4" * 64)
        texts = self.repository.sources(commit, self.sources)
        link = Link(commit, parent, tree_digest(texts), "loss", pairs, 0.1, (0.05, 0.15), of)
        told = {"contribution": signed.contribution.digest, "state": "kept", "commit": commit}
        self.log(Kind.VERDICT, told | {"reason": "beyond the noise", "link": link.to_dict()})
        self.kept[commit] = signed.to_json()
        return commit

    def publish(self) -> str | None:
        """Bring the published chain up to date."""
        first = published(self.repository, self.name) // SEGMENT * SEGMENT
        bodies = {Signed.from_stored(text).contribution.digest: text for text in self.kept.values()}
        return publish(self.repository, self.name, entries(self.db, self.name, first), bodies)

    def chain(self, **options: Any) -> Chain:
        """Publish, then check in a clone."""
        self.publish()
        return verify_chain(
            self.repository, self.name, self.tip, server_key=self.server.public_key, **options
        )
