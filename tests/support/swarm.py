"""Identities, contributions and a log for tests of the room swarm."""

import sqlite3
from pathlib import Path
from typing import Any

from autoresearch.store.connection import connect
from autoresearch.swarm.contribution import Evidence, Signed, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.log import SCHEMA

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
