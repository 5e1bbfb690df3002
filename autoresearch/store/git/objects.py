"""Runs git, and reads and makes its objects, byte for byte.

No work tree, no index and no filter takes part, so sparse checkouts, attributes and line endings change
nothing. Git's own variables of the environment, which hooks and editors set, are ignored where they say on
what git works, or as whom. Not covered: what the objects are for (`git`).
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from autoresearch.errors import UserError

# No hooks, no signing, no encoding of messages: a search must not depend on its user's settings. And git
# must wait for the disk, which it does not by itself: a power cut must lose no commit that the journal names.
_SETTINGS = ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "core.fsmonitor=false"]
_SETTINGS += ["-c", "i18n.commitEncoding=UTF-8", "-c", "core.fsync=committed"]

KEPT = ("GIT_CONFIG_", "GIT_SSH", "GIT_ASKPASS", "GIT_SSL_", "GIT_PROXY_", "GIT_EXEC_PATH", "GIT_TRACE")
"""Beginnings of git's variables that say how git works."""

FILE, LINK, TREE, SUBMODULE = "100644", "120000", "040000", "160000"
"""Modes of the entries of a tree; an executable file has another."""


CONSTANT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?(?::.*)?", re.DOTALL)
"""Names that mean the same for ever: full hashes, and paths at them."""

MOST_BYTES, MOST_ENTRIES = 32_000_000, 50_000
"""How much of blobs and of lists of files is remembered."""


T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One entry of a tree: its mode, its kind ("blob", "tree" or "commit") and the hash of its object."""

    mode: str
    kind: str
    hash: str


class Git:
    """Git in one folder.

    Attributes:
        root: The folder in which its commands run.
        prefix: Words before `git`: a program that runs it under limits.
    """

    root: Path
    prefix: tuple[str, ...] = ()

    @cached_property
    def _lists(self) -> Memory[dict[str, Entry]]:
        return Memory(MOST_ENTRIES)

    @cached_property
    def _blobs(self) -> Memory[bytes]:
        return Memory(MOST_BYTES)

    def _run(
        self, *arguments: str, env: Mapping[str, str] | None = None, data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.prefix, "git", *_SETTINGS, *arguments],
            cwd=self.root,
            capture_output=True,
            input=data,
            env=_environment() | dict(env or {}),
        )

    def _raw(self, *arguments: str, env: Mapping[str, str] | None = None, data: bytes = b"") -> bytes:
        done = self._run(*arguments, env=env, data=data)
        if done.returncode != 0:
            raise UserError(
                f"git {' '.join(arguments[:3])} failed: {said(done)}",
                "Mend the repository, then run the same command again: nothing is lost.",
                code=3,
            )
        return done.stdout

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None, data: bytes = b"") -> str:
        return self._raw(*arguments, env=env, data=data).decode("utf-8", errors="replace").rstrip("\n")

    def _try(self, *arguments: str) -> str | None:
        try:
            return self._git(*arguments)
        except UserError:
            return None

    # Objects

    def _files(self, commit: str, paths: Iterable[str]) -> dict[str, Entry]:
        """Every file, link and submodule of a commit at or below some paths (".": all): path -> entry."""
        wanted = list(paths)
        below = [] if "." in wanted else wanted  # of a whole tree git is told no path
        return self._listed("-r", "-z", "--full-tree", "--", commit, *below, name=commit)

    def _listed(self, *arguments: str, name: str) -> dict[str, Entry]:
        """What `git ls-tree` says of the commit or tree of a name; remembered where that never changes."""
        found = self._lists.get("\0".join(arguments))
        if found is None:
            found = _entries(self._raw("ls-tree", *arguments))
            if CONSTANT.fullmatch(name):
                self._lists.put("\0".join(arguments), found, len(found))
        return dict(found)

    def _contents(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of blobs, in order; None for what is no blob or not there.

        The trials of a search read the same files again and again; what has such a name never changes.
        """
        asked = list(names)
        found: dict[str, bytes | None] = {name: self._blobs.get(name) for name in asked}
        unknown = [name for name, content in found.items() if content is None]
        if unknown:
            for name, content in zip(unknown, self._read_blobs(unknown), strict=True):
                found[name] = content
                if content is not None and CONSTANT.fullmatch(name):
                    self._blobs.put(name, content, len(content))
        for name in asked:
            yield found[name]

    def _read_blobs(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The same, from git."""
        asked = b"".join(os.fsencode(name) + b"\n" for name in names)
        told = io.BytesIO(self._raw("cat-file", "--batch", data=asked))
        while head := told.readline().split():
            if not head[-1].isdigit():  # "NAME missing"
                yield None
                continue
            content = told.read(int(head[-1]))
            told.read(1)
            yield content if head[-2] == b"blob" else None

    def _with_files(self, tree: str | None, files: Mapping[str, bytes]) -> str:
        """Make a tree out of another one, with some files written; gives its hash."""
        entries = self._listed("-z", "--full-tree", tree, name=tree) if tree else {}
        below: dict[str, dict[str, bytes]] = {}
        for path, content in files.items():
            name, _, rest = path.partition("/")
            if rest:
                below.setdefault(name, {})[rest] = content
                continue
            old = entries.get(name)
            mode = old.mode if old and old.kind == "blob" and old.mode != LINK else FILE
            made = self._git("hash-object", "-w", "--stdin", data=content)
            self._blobs.put(made, content, len(content))  # a trial reads it next
            entries[name] = Entry(mode, "blob", made)
        for name, inner in below.items():
            old = entries.get(name)
            if old and old.kind != "tree":
                raise UserError(f"A proposal wants to write below {name}, which is no folder of its parent.")
            entries[name] = Entry(TREE, "tree", self._with_files(old.hash if old else None, inner))
        lines = (f"{e.mode} {e.kind} {e.hash}\t".encode() + os.fsencode(name) for name, e in entries.items())
        return self._git("mktree", "-z", data=b"".join(line + b"\0" for line in lines))


class Memory(Generic[T]):
    """What was read lately, up to a size; may be used from several threads."""

    def __init__(self, most: int) -> None:
        """Remember nothing yet.

        Args:
            most: How large everything together may be; what is larger than an eighth of it is left out.
        """
        self._most, self._size = most, 0
        self._found: dict[str, tuple[T, int]] = {}
        self._lock = Lock()

    def get(self, name: str) -> T | None:
        """What is remembered under a name."""
        found = self._found.get(name)
        return found[0] if found else None

    def put(self, name: str, value: T, size: int) -> None:
        """Remember something, and forget the oldest things for it."""
        with self._lock:
            if name in self._found or size > self._most // 8:
                return
            self._found[name] = value, size
            self._size += size
            while self._size > self._most:
                self._size -= self._found.pop(next(iter(self._found)))[1]


def _environment() -> dict[str, str]:
    """The environment for git, without what a hook or an editor says about another repository or index."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(KEPT)}
    # Without optional locks git does not refresh the user's index when it is asked for the status.
    ours = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
    return {**kept, **ours, "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C"}


def _entries(listed: bytes) -> dict[str, Entry]:
    """What `git ls-tree -z` says: name -> entry."""
    found = {}
    for line in filter(None, listed.split(b"\0")):
        about, _, name = line.partition(b"\t")
        found[os.fsdecode(name)] = Entry(*about.decode().split())
    return found


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The error message of a command."""
    return done.stderr.decode("utf-8", errors="replace").strip()
