"""The folder in which a coding agent works: made for it, and read after it, whatever it has done there.

Invariant: neither what an agent leaves nor a failing disk raises anything but what a proposer may raise.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from autoresearch.errors import Refused
from autoresearch.execute.sandbox import remove_tree
from autoresearch.propose.base import ProposerError


def furnish(folder: Path, tree: Callable[[Path], None], sources: Mapping[str, str], who: str) -> None:
    """A fresh folder with the task in it, as a git repository of its own, at `folder / "task"`.

    Args:
        folder: Emptied before.
        tree: Writes the task's files.
        sources: The incumbent's: path -> text.
        who: Works there, for messages.

    Raises:
        ProposerError: If that cannot be done now: a full disk, git that fails.
    """
    place = folder / "task"
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    author = ["-c", "user.name=autoresearch", "-c", "user.email=autoresearch@localhost"]
    try:
        remove_tree(folder)
        place.mkdir(parents=True)
        tree(place)
        for path, text in sources.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(text.encode())
        for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "The current script"]):
            subprocess.run(["git", *words], cwd=place, env=env, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        reason = said.decode("utf-8", "replace").strip()[-300:]
        raise ProposerError(f"no folder can be made for {who}: {reason}", retry=True) from None


def text_of(path: Path, name: str) -> str:
    """The text of a file that the agent left.

    Raises:
        Refused: If it is gone, or no plain text.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise Refused(f"{name} is gone; it must stay a plain file")
        if path.stat().st_size > 1_000_000:
            raise Refused(f"{name} is larger than any script should be")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise Refused(f"{name} cannot be read ({error.strerror}); it must stay a plain file") from None
    except UnicodeDecodeError:
        raise Refused(f"{name} is no UTF-8 text any more") from None
