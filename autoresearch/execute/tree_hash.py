"""Frozen code: what a trial runs on is what was committed, before and after.

In a sandbox the tree is mounted read-only, so this can only notice that a wall has fallen; with
`sandbox=none` it is the wall.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(folder: Path) -> str:
    """A hash of every file, link and folder name below a folder, and of what is in them."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        if path.is_symlink():
            total.update(str(path.readlink()).encode())
        elif path.is_file():
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
