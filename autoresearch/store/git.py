"""Git: each candidate is a commit, what is kept is a branch, and the user's checkout is not touched.

Commits are made in a worktree of the search's own (`runs/<name>/worktree`, which has its own index), under an
identity of its own, without the user's hooks or signing. Each candidate stays reachable under
`refs/autoresearch/<name>/`. A commit depends on nothing but its content, message and given date, so making it
again after a crash gives the same hash. Not covered: pushing, and merging into the user's branches.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from autoresearch.errors import UserError

AUTHOR = "autoresearch"
EMAIL = "autoresearch@localhost"
# No hooks, no signing, no conversion of line ends: a search must not depend on its user's settings. And git
# must wait for the disk, which it does not by itself: a power cut must lose no commit that the journal names.
_SETTINGS = ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false"]
_SETTINGS += ["-c", "core.autocrlf=false", "-c", "core.fsync=committed"]


class Repository:
    """The user's repository. Nothing here touches what is checked out.

    Attributes:
        root: Its top folder.
    """

    def __init__(self, folder: Path) -> None:
        """Find the repository around a folder.

        Raises:
            UserError: If there is no git, no repository, or no commit in it.
        """
        try:
            top = subprocess.run(
                ["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True
            )
        except FileNotFoundError:
            raise UserError("git is not installed.", "Install git and try again.") from None
        if top.returncode != 0:
            raise UserError(
                f"{folder} is not inside a git repository: {top.stderr.strip()}",
                "Run this inside a clone, or make one here: git init && git add -A && git commit -m start",
            )
        self.root = Path(top.stdout.strip())
        if self._try("rev-parse", "--verify", "-q", "HEAD^{commit}") is None:
            raise UserError(
                f"The repository {self.root} has no commit yet, so there is nothing to improve.",
                "Commit the training script first: git add -A && git commit -m start",
            )

    def resolve(self, revision: str) -> str | None:
        """The full hash of the commit that a revision names, or None."""
        return self._try("rev-parse", "--verify", "-q", f"{revision}^{{commit}}")

    def existing(self, commits: Iterable[str]) -> set[str]:
        """Which of these commits, given by their full hashes, are in the repository."""
        asked = "".join(f"{commit}\n" for commit in dict.fromkeys(commits))
        told = [line.split() for line in self._git("cat-file", "--batch-check", text=asked).splitlines()]
        return {words[0] for words in told if words[1:2] == ["commit"]}

    def sources(self, commit: str, paths: Iterable[str]) -> dict[str, str]:
        """The text of some files at a commit: path -> text.

        Raises:
            UserError: If one of them is not there.
        """
        found = {}
        for path in paths:
            blob = subprocess.run(["git", "show", f"{commit}:{path}"], cwd=self.root, capture_output=True)
            if blob.returncode != 0:
                raise UserError(
                    f"Commit {commit[:10]} has no file {path}, which the task wants to edit.",
                    "Commit that file, or run from the repository that holds the task.",
                )
            found[path] = blob.stdout.decode("utf-8")
        return found

    def missing(self, commit: str, paths: Iterable[str]) -> list[str]:
        """Those of some files and folders that a commit does not hold."""
        return [path for path in paths if self._try("cat-file", "-e", f"{commit}:{path}") is None]

    def is_modified(self, paths: Iterable[str]) -> bool:
        """Whether the user's checkout of some paths differs from HEAD."""
        return bool(self._git("status", "--porcelain", "--", *paths))

    def export(self, commit: str, paths: Iterable[str], folder: Path) -> None:
        """Write some files and folders of a commit below `folder`."""
        archive = self._raw("archive", "--format=tar", commit, "--", *paths)
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")

    def diff(self, old: str, new: str) -> str:
        """Unified diff between two commits, without color or external tools."""
        return self._git("diff", "--no-color", "--no-ext-diff", old, new)

    def update_refs(self, refs: Mapping[str, str]) -> None:
        """Point refs at commits: all of them, or none."""
        lines = [f"update {ref} {commit}\n" for ref, commit in refs.items()]
        if lines:
            self._git("update-ref", "-m", "autoresearch", "--stdin", text="".join(lines))

    def refs(self, prefix: str) -> dict[str, str]:
        """Ref -> commit, of every ref below a prefix, or of the one of that name."""
        listed = self._git("for-each-ref", "--format=%(objectname) %(refname)", prefix)
        return {ref: commit for commit, ref in (line.split(" ", 1) for line in listed.splitlines())}

    def unlock(self, refs: Iterable[str]) -> None:
        """Remove the lock files that a killed git left on refs which only the search writes."""
        common = self._common
        for ref in refs:
            (common / f"{ref}.lock").unlink(missing_ok=True)

    def merge(self, ours: str, base: str, theirs: str) -> str | None:
        """Three-way merge of a text; None if both sides have changed the same lines."""
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
            paths = [Path(name, side) for side in ("ours", "base", "theirs")]
            for path, text in zip(paths, (ours, base, theirs), strict=True):
                path.write_bytes(text.encode("utf-8"))
            done = subprocess.run(
                ["git", *_SETTINGS, "merge-file", "-p", "-q", *map(str, paths)],
                cwd=self.root,
                capture_output=True,
            )
        if done.returncode < 0 or done.returncode > 127:
            raise UserError(f"git merge-file failed: {done.stderr.decode(errors='replace').strip()}", code=3)
        return done.stdout.decode("utf-8") if done.returncode == 0 else None

    def worktree(self, folder: Path, commit: str) -> Worktree:
        """The search's worktree at `folder`, made if it is missing; an unusable one is replaced."""
        if not self._owns(folder):
            shutil.rmtree(folder, ignore_errors=True)
            # Twice: there may be an entry of a worktree that is gone, and that a killed git has left locked.
            force = ("--force", "--force")
            self._git("worktree", "add", "--quiet", *force, "--detach", str(folder), commit)
        return Worktree(self, folder)

    def prune_worktrees(self, below: Path) -> None:
        """Remove git's entries of worktrees below a folder that are gone; others may only be out of reach."""
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            path = Path(line.removeprefix("worktree "))
            if line.startswith("worktree ") and path.is_relative_to(below.resolve()) and not path.exists():
                Worktree(self, path).remove()

    @property
    def _common(self) -> Path:
        """The folder of git that all worktrees share."""
        return (self.root / self._git("rev-parse", "--git-common-dir")).resolve()

    def _owns(self, folder: Path) -> bool:
        """Whether a usable worktree of this repository is there; a copied one belongs to another."""
        if not (folder / ".git").exists():
            return False
        told = self._try("-C", str(folder), "rev-parse", "--git-common-dir", "HEAD")
        return told is not None and (folder / told.splitlines()[0]).resolve() == self._common

    def _raw(self, *arguments: str, env: Mapping[str, str] | None = None, text: str = "") -> bytes:
        command = ["git", *_SETTINGS, *arguments]
        done = subprocess.run(
            command,
            cwd=self.root,
            capture_output=True,
            input=text.encode(),
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(env or {})},
        )
        if done.returncode != 0:
            raise UserError(
                f"git {' '.join(arguments[:3])} failed: {done.stderr.decode(errors='replace').strip()}",
                "Mend the repository, then run the same command again: nothing is lost.",
                code=3,
            )
        return done.stdout

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None, text: str = "") -> str:
        return self._raw(*arguments, env=env, text=text).decode("utf-8", errors="replace").rstrip("\n")

    def _try(self, *arguments: str) -> str | None:
        try:
            return self._git(*arguments)
        except UserError:
            return None


class Worktree:
    """A worktree of the search's own, with its own index, to make commits in."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.repository = repository
        self.folder = folder

    def commit(self, parent: str, sources: Mapping[str, str], message: str, when: float) -> str:
        """Commit changed files on top of a parent; no branch is moved.

        Args:
            parent: The commit to build on.
            sources: Path -> new text.
            message: The commit message.
            when: Unix time in seconds, of author and committer.

        Returns:
            The hash of the commit.
        """
        git = self._git
        if not (self.folder / ".git").exists():  # somebody removed it; it holds nothing that could be lost
            self.repository.worktree(self.folder, parent)
        # The file `.git` points to the folder with the index and the HEAD of this worktree.
        pointer = (self.folder / ".git").read_text(encoding="utf-8").removeprefix("gitdir: ").strip()
        for name in ("index.lock", "HEAD.lock"):  # left by a killed run: no other process uses this worktree
            (self.folder / pointer / name).unlink(missing_ok=True)
        git("checkout", "--quiet", "--force", "--detach", parent)  # only what is added below is committed
        for path, text in sources.items():
            target = self.folder / path
            if not target.resolve().is_relative_to(self.folder.resolve()):
                raise UserError(f"A proposal wants to write {path}, outside its worktree.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("utf-8"))
        git("add", "--", *sources)
        return self._commit_tree(git("write-tree"), parent, message, when)

    def reword(self, commit: str, parent: str, message: str, when: float) -> str:
        """Make a commit with the tree of another commit and a new message."""
        return self._commit_tree(f"{commit}^{{tree}}", parent, message, when)

    def _commit_tree(self, tree: str, parent: str, message: str, when: float) -> str:
        date = f"@{int(when)} +0000"  # the @: small numbers are seconds too
        env = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", AUTHOR), ("EMAIL", EMAIL), ("DATE", date))
        }
        return self.repository._git("commit-tree", tree, "-p", parent, "-F", "-", env=env, text=message)

    def remove(self) -> None:
        """Remove the worktree; the commits stay."""
        self.repository._try("worktree", "remove", "--force", "--force", str(self.folder))

    def _git(self, *arguments: str, env: Mapping[str, str] | None = None, text: str = "") -> str:
        return self.repository._git("-C", str(self.folder), *arguments, env=env, text=text)
