"""A hash of a folder, by which frozen code is compared before and after a trial.

In a sandbox the tree is mounted read-only, so a difference shows that the sandbox failed. With `sandbox=none`
the comparison is the only protection.
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
