"""What a repository holds: its commits, their files and texts, and what the checkout changes; reads only.

Everything is read from git's objects (`objects`), so it does not matter what is checked out. Not covered: new
commits and refs (`repository`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoresearch.errors import UserError
from autoresearch.store.git.objects import FILE, LINK, SUBMODULE, Entry, Git, said


@dataclass(frozen=True)
class Commit:
    """A commit: hash of its tree, hashes of its parents, message."""

    tree: str
    parents: tuple[str, ...]
    message: str


class Contents(Git):
    """What the repository around a folder holds.

    Attributes:
        root: Its top folder.
    """

    def __init__(self, folder: Path) -> None:
        """Find the repository around a folder.

        Raises:
            UserError: If there is no git, no repository, or no commit in it.
        """
        self.root = folder
        try:
            top = self._run("rev-parse", "--show-toplevel")
        except FileNotFoundError:
            raise UserError("git is not installed.", "Install git and try again.") from None
        if top.returncode != 0:
            raise _no_repository(folder, said(top))
        self.root = Path(os.fsdecode(top.stdout.removesuffix(b"\n")))
        if self.resolve("HEAD") is None:
            raise UserError(
                f"The repository {self.root} has no commit yet, so there is nothing to improve.",
                "Commit the files of the task first: git add FILE... && git commit -m start",
            )

    def resolve(self, revision: str) -> str | None:
        """The full hash of the commit that a revision names, or None."""
        return self._try("rev-parse", "--verify", "-q", f"{revision}^{{commit}}")

    def message(self, commit: str) -> str:
        """The message of a commit."""
        return self._git("log", "-1", "--format=%B", commit)

    def common_ancestor(self, one: str, other: str) -> str | None:
        """The latest commit that two revisions share, or None."""
        return self._try("merge-base", one, other)

    def objects_folder(self) -> Path:
        """Where its objects lie."""
        return self.root / self._git("rev-parse", "--git-path", "objects")

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether some of these objects, given by their full hashes, are in the repository."""
        asked = "".join(f"{name}\n" for name in names)
        told = self._git("cat-file", "--batch-check", data=asked.encode()).splitlines()
        return not all(line.endswith(" missing") for line in told)

    def existing(self, commits: Iterable[str]) -> set[str]:
        """Which of these commits, given by their full hashes, are in the repository."""
        asked = "".join(f"{commit}\n" for commit in dict.fromkeys(commits))
        told = self._git("cat-file", "--batch-check", data=asked.encode()).splitlines()
        return {words[0] for words in map(str.split, told) if words[1:2] == ["commit"]}

    def matching(self, commit: str, patterns: Iterable[str]) -> list[str]:
        """Files of a commit that some paths and globs name; a plain path is given back, there or not.

        `*` and `?` do not match a slash; `**/` matches any folders, or none.
        """
        found: dict[str, None] = {}
        wanted = list(patterns)
        files = self.files(commit, ["."]) if any(map(is_glob, wanted)) else []
        for pattern in wanted:
            matches = filter(re.compile(_expression(pattern)).fullmatch, files)
            found |= dict.fromkeys(matches if is_glob(pattern) else [pattern])
        return list(found)

    def sources(self, commit: str, paths: Iterable[str]) -> dict[str, str]:
        """The text of some files at a commit, named by paths or globs: path -> text.

        Raises:
            UserError: If one of them is not there, or is not UTF-8.
        """
        asked = self.matching(commit, paths)
        found = {}
        for path, content in zip(asked, self._contents(f"{commit}:{path}" for path in asked), strict=True):
            if content is None:
                raise UserError(
                    f"Commit {commit[:10]} has no file {path}, which the task wants to edit.",
                    "Commit that file, or run from the repository that holds the task.",
                )
            try:
                found[path] = content.decode("utf-8")
            except UnicodeDecodeError as error:
                line = content[: error.start].count(b"\n") + 1
                raise UserError(
                    f"{path} at commit {commit[:10]} is not UTF-8 text: byte {error.object[error.start]:#x} "
                    f"in line {line}.",
                    "Save it as UTF-8 and commit that; a search edits UTF-8 only.",
                ) from None
        return found

    def missing(self, commit: str, paths: Iterable[str]) -> list[str]:
        """Those of some files, folders and globs that a commit does not hold."""

        def lacks(path: str) -> bool:
            if is_glob(path):
                return not self.matching(commit, [path])
            return path != "." and self._try("cat-file", "-e", f"{commit}:{path}") is None

        return [path for path in paths if lacks(path)]

    def is_modified(self, paths: Iterable[str]) -> bool:
        """Whether the user's checkout of some paths differs from HEAD."""
        return bool(self._raw("status", "--porcelain", "--", *paths))

    def files(self, commit: str, paths: Iterable[str]) -> list[str]:
        """Every file of a commit at or below some paths, in order."""
        return list(self._files(commit, paths))

    def read(self, commit: str) -> Commit:
        """What a commit says."""
        head, _, message = self._git("cat-file", "commit", commit).partition("\n\n")
        words = [line.split(" ") for line in head.split("\n")]
        return Commit(words[0][1], tuple(word[1] for word in words if word[0] == "parent"), message)

    def entries(self, commit: str, paths: Iterable[str] = (".",)) -> dict[str, Entry]:
        """Every file, link and submodule of a commit at or below some paths: path -> mode and hash."""
        return self._files(commit, paths)

    def submodules(self, commit: str) -> list[str]:
        """Where a commit has submodules."""
        return [path for path, entry in self._files(commit, ["."]).items() if entry.mode == SUBMODULE]

    def starting_with(self, commit: str, start: bytes, most: int = 1000) -> list[str]:
        """Files of a commit of at most `most` bytes that begin so."""
        files = {
            path: entry.hash for path, entry in self._files(commit, ["."]).items() if entry.kind == "blob"
        }
        asked = "".join(f"{name}\n" for name in files.values()).encode()
        told = self._git("cat-file", "--batch-check=%(objectsize)", data=asked).splitlines()
        small = [path for path, size in zip(files, told, strict=True) if size.isdigit() and int(size) <= most]
        contents = self._contents(files[path] for path in small)
        return [
            p for p, content in zip(small, contents, strict=True) if content and content.startswith(start)
        ]

    def uncommitted(self, paths: Sequence[str]) -> list[str]:
        """Files of the user's checkout below some paths that the latest commit does not hold."""
        there = self._raw("ls-files", "-z", "--cached", "--others", "--", *paths).split(b"\0")
        files = {os.fsdecode(name) for name in there if name}
        return sorted(files.difference(self._files("HEAD", paths)))

    def export(self, commit: str, paths: Iterable[str], folder: Path) -> None:
        """Write some files and folders of a commit below `folder`, as the commit has them.

        Raises:
            UserError: If one of them is not there, or a link leads out of the folder.
        """
        wanted = list(paths)
        files = self._files(commit, wanted)
        for path in wanted:
            if path not in (".", *files) and not any(name.startswith(f"{path}/") for name in files):
                raise UserError(f"Commit {commit[:10]} does not hold {path}.", "Commit it.", code=3)
        folder.mkdir(parents=True, exist_ok=True)
        kept = {path: entry for path, entry in files.items() if entry.mode != SUBMODULE}
        contents = self._contents(entry.hash for entry in kept.values())
        for (path, entry), content in zip(kept.items(), contents, strict=True):
            if content is None:
                raise UserError(
                    f"Git does not hold the content of {path} at commit {commit[:10]} (a partial clone?).",
                    "Fetch it (git fetch --refetch), or leave the file out of the repository.",
                    code=3,
                )
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == LINK:
                to = os.fsdecode(content)
                if os.path.normpath(PurePosixPath(path).parent / to).partition("/")[0] in ("", ".."):
                    raise UserError(f"{path} at commit {commit[:10]} is a link out of the repository: {to}.")
                target.symlink_to(to)
            else:
                target.write_bytes(content)
                target.chmod(0o755 if entry.mode != FILE else 0o644)

    def diff(self, old: str, new: str) -> str:
        """Unified diff between two commits, whatever the user's settings are."""
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
        return self._git("diff", *plain, old, new)


def is_glob(path: str) -> bool:
    """Whether a path is a pattern."""
    return not set(path).isdisjoint("*?[")


def _expression(glob: str) -> str:
    """The regular expression of a glob."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]/]+\])", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(part) or (part.replace("[!", "[^") if index % 2 else re.escape(part))
        for index, part in enumerate(parts)
    )


def _no_repository(folder: Path, why: str) -> UserError:
    """What to say of a folder in which git finds no repository that it may use."""
    if "dubious ownership" in why:
        place = why.partition("at '")[2].partition("'")[0] or str(folder)
        return UserError(
            f"Git does not trust the repository at {place}, because another user owns it.",
            f"If you trust it: git config --global --add safe.directory {place}",
        )
    hint = "Run this inside a clone, or in a repository that holds the files of the task."
    if not any(folder.iterdir()):
        hint += " To make one here: git init, copy the files of the task, git add -A && git commit -m start"
    return UserError(f"{folder} is not inside a git repository: {why}", hint)
