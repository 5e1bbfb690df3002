"""Git: each candidate is a commit, what is kept is a branch, and the user's checkout is not touched.

Commits are made without a work tree (`objects`), under an identity of their own. Each candidate stays
reachable under `refs/autoresearch/<name>/`. A commit depends on nothing but its content, message and given
date, so making it again after a crash gives the same hash. Not covered: reading (`contents`), pushing, and
merging into the user's branches.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from autoresearch.errors import UserError
from autoresearch.store.git.contents import Contents
from autoresearch.store.git.objects import said

AUTHOR = "autoresearch"
EMAIL = "autoresearch@localhost"

START = "refs/autoresearch-start"
"""Where a bundle is put before a new repository has a branch."""

HARMLESS = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate")
"""Faults of objects that old versions of git made."""

CHECKED = (
    "-c",
    "fetch.fsckObjects=true",
    *(x for name in HARMLESS for x in ("-c", f"fetch.fsck.{name}=ignore")),
)
"""Settings under which git checks every object that it is given."""

NOTES = "refs/notes/autoresearch"
"""What was found out about kept changes later: `git log --notes=autoresearch` shows it."""


class Repository(Contents):
    """The user's repository. Nothing here touches what is checked out."""

    # Commits

    def commit(self, parent: str, sources: Mapping[str, str], message: str, when: float) -> str:
        """Commit changed files on top of a parent; no branch is moved.

        Args:
            parent: The commit to build on.
            sources: Path -> new text.
            message: The commit message.
            when: Unix time in seconds, of author and committer.

        Returns:
            The hash of the commit.

        Raises:
            UserError: If a path leads out of the repository, or through what is not a folder.
        """
        for path in sources:
            if not path or not {"", ".", "..", ".git"}.isdisjoint(path.lower().split("/")):
                raise UserError(f"A proposal wants to write {path}, outside its repository.")
        files = {path: text.encode("utf-8") for path, text in sources.items()}
        return self._commit_tree(self._with_files(parent, files), parent, message, when)

    def reword(self, commit: str, parent: str, message: str, when: float) -> str:
        """Make a commit with the tree of another commit and a new message."""
        return self._commit_tree(f"{commit}^{{tree}}", parent, message, when)

    def merge(self, ours: str, base: str, theirs: str) -> str | None:
        """Three-way merge of a text; None if both sides have changed the same lines."""
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as name:
            paths = [Path(name, side) for side in ("ours", "base", "theirs")]
            for path, text in zip(paths, (ours, base, theirs), strict=True):
                path.write_bytes(text.encode("utf-8"))
            done = self._run("merge-file", "-p", "-q", *map(str, paths))
        if done.returncode < 0 or done.returncode > 127:
            raise UserError(f"git merge-file failed: {said(done)}", code=3)
        return done.stdout.decode("utf-8") if done.returncode == 0 else None

    def pack(self, commits: Iterable[str], base: str) -> int:
        """Put the objects that some commits have more than another one into one file; gives their number.

        Only objects that lie in files of their own are packed, and only those files are removed, after the
        pack is on the disk. What is killed in between is there twice. Nothing else of the repository changes.

        Args:
            commits: Their full hashes.
            base: What it reaches is somebody else's, and stays as it is.
        """
        objects = self.objects_folder()
        wanted = "".join(f"{line}\n" for line in (*commits, f"^{base}"))
        on_disk = ("-c", "core.fsync=committed,pack-metadata", "-c", "pack.threads=1")
        made = self._git(
            *on_disk, "pack-objects", "--quiet", "--unpacked", "--non-empty", "--delta-base-offset",
            str(objects / "pack" / "pack"), data=wanted.encode(),
        )  # fmt: skip
        if not made:
            return 0
        index = (objects / "pack" / f"pack-{made}.idx").read_bytes()
        folder = os.open(objects / "pack", os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut could undo the new names, and not the removals
        finally:
            os.close(folder)
        packed = [line.split()[1] for line in self._git("show-index", data=index).splitlines()]
        for name in packed:
            (objects / name[:2] / name[2:]).unlink(missing_ok=True)
        return len(packed)

    # Refs

    def valid_ref(self, ref: str) -> bool:
        """Whether git can have a ref of that name."""
        return self._try("check-ref-format", ref) is not None

    def update_refs(
        self,
        refs: Mapping[str, str | None],
        expected: Mapping[str, str | None] | None = None,
        message: str = "autoresearch",
    ) -> None:
        """Point refs at commits, or remove them: all of them, or none.

        Args:
            refs: Ref -> commit, None to remove it.
            expected: Ref -> the commit that it must be at before, None if it must not exist.
            message: What the reflog says.

        Raises:
            UserError: If git cannot, or a ref is not where it is expected; nothing has changed then.
        """
        known = expected or {}
        lines = [
            f"update {ref} {commit}" + (f" {known[ref] or '0' * len(commit)}" if ref in known else "")
            if commit
            else f"delete {ref} {known.get(ref) or ''}".rstrip()
            for ref, commit in refs.items()
        ]
        if lines:
            text = "".join(f"{line}\n" for line in lines)
            self._git("update-ref", "-m", message, "--stdin", data=text.encode())

    def note(self, commit: str, text: str) -> None:
        """Leave a note on a commit, in place of an earlier one; the commit stays as it is."""
        self._git("notes", f"--ref={NOTES}", "add", "-f", "-F", "-", commit, data=text.encode())

    def refs(self, prefix: str) -> dict[str, str]:
        """Ref -> commit, of every ref below a prefix, or of the one of that name."""
        listed = self._git("for-each-ref", "--format=%(objectname) %(refname)", prefix)
        return {ref: commit for commit, ref in (line.split(" ", 1) for line in listed.splitlines())}

    def holders(self, commit: str) -> set[str]:
        """The refs from which a commit can be reached, HEAD among them."""
        found = set(self._git("for-each-ref", "--contains", commit, "--format=%(refname)").splitlines())
        return found | (
            {"HEAD"} if self._try("merge-base", "--is-ancestor", commit, "HEAD") is not None else set()
        )

    def branch(self, name: str) -> tuple[str | None, str]:
        """The commit of a branch, None if there is no such branch; and where it is checked out, or ""."""
        form = "--format=%(objectname) %(refname) %(worktreepath)"
        for line in self._git("for-each-ref", form, f"refs/heads/{name}").splitlines():
            commit, ref, place = line.split(" ", 2)
            if ref == f"refs/heads/{name}":
                return commit, place
        return None, ""

    def unlock(self, refs: Iterable[str]) -> None:
        """Remove the lock files that a killed git left on refs which only the search writes."""
        common = self.root / self._git("rev-parse", "--git-common-dir")
        for ref in refs:
            (common / f"{ref}.lock").unlink(missing_ok=True)

    def bundle(self, path: Path, refs: Iterable[str]) -> None:
        """Write some refs with all of their history into a file that `fetch` reads elsewhere."""
        names = "".join(f"{ref}\n" for ref in refs)
        self._git("bundle", "create", "--quiet", str(path), "--stdin", data=names.encode())

    def fetch(self, bundle: Path, refs: Mapping[str, str]) -> None:
        """Take refs over from a file that `bundle` wrote: name there -> name here; none is overwritten.

        Raises:
            UserError: If the file is damaged or lacks one of them, or an object in it is malformed.
        """
        wanted = "".join(f"{there}:{here}\n" for there, here in refs.items())
        command = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no")
        self._git(*CHECKED, *command, "--stdin", str(bundle), data=wanted.encode())

    @classmethod
    def create(cls, folder: Path, bundle: Path, ref: str, commit: str) -> Repository:
        """A new repository whose branch `main` is at a commit of a bundle, and checked out.

        Args:
            folder: Where; made if it is missing.
            bundle: A file that `bundle` wrote.
            ref: A ref in it from which the commit can be reached.
            commit: The full hash.

        Raises:
            UserError: If the bundle does not hold the commit.
        """
        folder.mkdir(parents=True, exist_ok=True)
        made = cls.__new__(cls)
        made.root = folder
        made._git("init", "--quiet", "--initial-branch=main")
        made.fetch(bundle, {ref: START})
        made._git("update-ref", "refs/heads/main", commit)
        made._git("update-ref", "-d", START)
        made._git("reset", "--quiet", "--hard")
        return cls(folder)

    @classmethod
    def begin(cls, folder: Path) -> Repository:
        """Make a repository of a folder, with all its files as they are in the only commit.

        The same files give the same commit.
        """
        made = cls.__new__(cls)
        made.root = folder
        made._git("init", "--quiet", "--initial-branch=main")
        (folder / ".git" / "info").mkdir(exist_ok=True)
        (folder / ".git" / "info" / "attributes").write_text("* -text -filter -ident\n")
        made._git("add", "--all", "--force", ".")
        commit = made._commit_tree(made._git("write-tree"), "", "The files of the starting commit", 0.0)
        made._git("update-ref", "refs/heads/main", commit)
        return cls(folder)

    def prune_worktrees(self, below: Path) -> None:
        """Remove git's entries of worktrees below a folder that are gone; earlier versions made some."""
        for line in self._raw("worktree", "list", "--porcelain", "-z").split(b"\0"):
            path = Path(os.fsdecode(line.removeprefix(b"worktree ")))
            if line.startswith(b"worktree ") and path.is_relative_to(below.resolve()) and not path.exists():
                self._try("worktree", "remove", "--force", "--force", str(path))

    def _commit_tree(self, tree: str, parent: str, message: str, when: float) -> str:
        date = f"@{int(when)} +0000"  # the @: small numbers are seconds too
        env = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", AUTHOR), ("EMAIL", EMAIL), ("DATE", date))
        }
        onto = ("-p", parent) if parent else ()
        return self._git("commit-tree", tree, *onto, "-F", "-", env=env, data=message.encode())
