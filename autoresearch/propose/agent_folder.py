"""Makes the folder in which a coding agent works, and reads it afterwards.

Invariants: neither the agent's files nor a failing disk can raise an exception that a proposer may not raise.
The agent's text is data: it becomes fields of a proposal or is dropped, and links in it are not followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from autoresearch.errors import Refused
from autoresearch.propose.base import ProposerError
from autoresearch.store.files import remove_tree
from autoresearch.types import Edit

NUMBERS = ("expected_effect", "confidence", "idea", "points")
FIELDS = (*NUMBERS, "mechanism", "category", "risk", "instruction", "difference", "tune", "diagnose")


def make_folder(
    folder: Path, export: Callable[[Path], None], sources: Mapping[str, str], agent: str
) -> dict[str, str]:
    """A fresh folder with the task in it, as a git repository of its own, at `folder / "task"`.

    Args:
        folder: Emptied before.
        export: Writes the task's files into a folder.
        sources: The incumbent's files: path -> text.
        agent: Who works there, for messages.

    Returns:
        Path -> hash of every other file of the task.

    Raises:
        ProposerError: If that fails now, because the disk is full or git fails.
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
        export(place)
        found = [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if path.is_file()]
        frozen = {name: _hash(place / name) for name in found if name not in sources}
        for path, text in sources.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(text.encode())
        for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "The current script"]):
            subprocess.run(["git", *words], cwd=place, env=env, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        reason = said.decode("utf-8", "replace").strip()[-300:]
        raise ProposerError(f"no folder can be made for {agent}: {reason}", retry=True) from None
    return frozen


def changed_files(place: Path, frozen: Mapping[str, str]) -> list[str]:
    """Files of the task that an agent has changed or removed; new files count for nothing.

    Args:
        place: The task's folder.
        frozen: From `make_folder`.
    """
    return [name for name, known in frozen.items() if _hash(place / name) != known]


def _hash(path: Path) -> str:
    """Hash of a plain file; empty if it is none."""
    try:
        return "" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def read_text(path: Path, name: str) -> str:
    """The text of a file that the agent left.

    Raises:
        Refused: If it is missing, or not plain text.
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


def read_hypothesis(text: str, edits: tuple[Edit, ...]) -> dict[str, object]:
    """A hypothesis in words, as the fields that `llm.answer.parse` takes.

    The first line is the hypothesis; a later line that begins with the name of a field and a colon gives that
    field; all others belong to the mechanism, or to the field before them.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = re.sub(r"^[#*\s]*(hypothesis\W+)?", "", lines[0], flags=re.IGNORECASE) if lines else ""
    found: dict[str, object] = {}
    name = "mechanism"
    for line in lines[1:]:
        match = re.match(r"[-*#\s]*([a-z][a-z_ ]*?)[*\s]*:[*\s]*(.*)", line, flags=re.IGNORECASE)
        key = match[1].lower().replace(" ", "_") if match else ""
        if match and key in FIELDS:
            name, line = key, match[2]
        found[name] = f"{found.get(name, '')} {line}".strip()
    for key in found.keys() & set(NUMBERS):
        found[key] = _number(str(found[key]))
    kind = str(found.get("category", "")).lower().strip(" .`*")
    return {
        **found,
        "hypothesis": first.strip(" *`"),
        "category": kind,
        "edits": [{"path": e.path, "search": e.search, "replace": e.replace} for e in edits],
    }


def _number(text: str) -> float | None:
    """The first number in a text."""
    found = re.search(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?", text, flags=re.IGNORECASE)
    return float(found[0]) if found else None
