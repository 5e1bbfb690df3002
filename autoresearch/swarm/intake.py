"""Turns what strangers send into text that may be tried, or refuses it with a reason.

A patch becomes new texts of editable files, and of nothing else. Nobody reads them as a program here: the
task's rules apply when the verifier turns to them, as to every proposal. A bundle of git objects is measured
before git sees it, so that nothing in it can expand; git then checks it in a quarantine, under limits, and
what comes out is the text of editable files. No object of a stranger enters the repository, no file is
written where the sender says, and nothing that was sent runs.
Not covered: who may send how much (`queue`), and what was sent before (`store`).
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.edit.candidate import diff
from autoresearch.edit.patch import patched
from autoresearch.errors import Refused, UserError
from autoresearch.store.git.objects import FILE, Git
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.commit import SignedCommit, read_commit, signer
from autoresearch.swarm.contribution import Contribution, Evidence, Signed, tree_digest
from autoresearch.text import one_line

MAX_BUNDLE, MAX_HEADER = 2_000_000, 2_000
"""Most bytes of a bundle, and of the lines before its objects."""

MAX_OBJECTS, MAX_OBJECT, MAX_UNPACKED = 1000, 2_000_000, 16_000_000
"""Most objects of a bundle, and most bytes of one and of all of them, unpacked."""

LIMITS = 'ulimit -t 10; ulimit -v 1000000; ulimit -f 65536; exec "$@"'
"""For git on a stranger's objects: seconds of processor time, kB of memory, blocks of a file it writes."""

OFFSET_DELTA, NAMED_DELTA = 6, 7
"""Kinds of objects in a pack that are stored as differences."""


def take(signed: Signed, sources: Mapping[str, str]) -> dict[str, str]:
    """The editable files that a contribution gives; this takes a few milliseconds, whatever was sent.

    Args:
        signed: A contribution whose signature was checked.
        sources: The editable files at its parent: path -> text.

    Raises:
        Refused: With the reason, for the sender.
    """
    sent = signed.contribution
    after = patched(sent.patch, sources)
    if tree_digest(after) != sent.tree:
        raise Refused("the patch gives other files than those whose digest was signed as `tree`")
    return after


def from_bundle(bundle: bytes, repository: Repository, editable: Sequence[str]) -> Signed:
    """Read the contribution in a bundle that holds one signed commit on top of a commit of the track.

    Args:
        bundle: What was sent, as `git bundle create FILE HEAD ^PARENT` writes it.
        repository: That of the track; it stays as it is.
        editable: Paths and globs of the task.

    Returns:
        The contribution, checked; its patch is what the commit changes.

    Raises:
        Refused: With the reason, for the sender.
    """
    if len(bundle) > MAX_BUNDLE:
        raise Refused(f"the bundle has more than {MAX_BUNDLE:,} bytes")
    header = read_header(bundle)
    if repository.resolve(header.parent) != header.parent:
        raise Refused(f"the bundle builds on {header.parent[:10]}, which this track does not have")
    pack = bundle[header.size :]
    bases = measure(pack)
    folder = Path(tempfile.mkdtemp(prefix="autoresearch-"))
    try:
        quarantine = Quarantine(folder, repository)
        if bases and repository.has_any(bases - quarantine.objects(header.parent)):
            raise Refused("the bundle is made against other objects of the track than those of its parent")
        quarantine.unpack(pack)
        commit = read_commit(quarantine.commit(header.tip))
        if commit.parent != header.parent:
            raise Refused("the bundle must hold one commit, made on top of the commit that it builds on")
        before = repository.sources(header.parent, editable)
        after = before | quarantine.changed(header.parent, header.tip, before)
    except UserError as error:
        raise Refused(f"git refuses the objects: {_without(str(error), folder, repository.root)}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return contribution_of(commit, diff(before, after), tree_digest(after))


def contribution_of(commit: SignedCommit, patch: str, tree: str) -> Signed:
    """The contribution that a signed commit is, checked.

    Raises:
        Refused: If the commit is not signed as it should be.
    """
    key = signer(commit.signature)
    fields = (commit.track, commit.parent, patch, tree, commit.title, commit.why, Evidence(), commit.author)
    sent = Contribution(*fields, public_key=key, time=commit.time, nonce=commit.tree)
    signed = Signed(sent, commit.signature, commit.text)
    signed.check()
    return signed


@dataclass(frozen=True)
class Header:
    """What a bundle says before its objects: what it builds on, its only commit, and its own length."""

    parent: str
    tip: str
    size: int


def read_header(bundle: bytes) -> Header:
    """Read the lines before the objects of a bundle.

    Raises:
        Refused: If it is no bundle of one commit on top of one other.
    """
    end = bundle.find(b"\n\n", 0, MAX_HEADER)
    lines = bundle[: max(end, 0)].decode("utf-8", errors="replace").split("\n")
    form = re.fullmatch(
        r"# v[23] git bundle\n(?:@object-format=sha1\n)?-([0-9a-f]{40})(?: [^\n]*)?\n([0-9a-f]{40}) [^\n]*",
        "\n".join(lines),
    )
    if form is None:
        raise Refused(
            "this is no bundle of one branch on top of one commit: git bundle create FILE HEAD ^PARENT"
        )
    return Header(form[1], form[2], end + 2)


def measure(pack: bytes) -> set[str]:
    """Look through a pack without making its objects, and refuse one that would expand too far.

    Returns:
        Names of objects outside of the pack that differences in it are made against.

    Raises:
        Refused: If it is malformed, or has too many or too large objects.
    """
    if len(pack) < 32 or pack[:4] != b"PACK" or struct.unpack(">I", pack[4:8])[0] not in (2, 3):
        raise Refused("the bundle holds no pack of git objects")
    (count,) = struct.unpack(">I", pack[8:12])
    if count > MAX_OBJECTS:
        raise Refused(f"the bundle has {count:,} objects; at most {MAX_OBJECTS:,} are allowed")
    at, total, bases = 12, 0, set()
    try:
        for _ in range(count):
            kind, size, at = _entry(pack, at)
            if kind == NAMED_DELTA:
                bases.add(pack[at : at + 20].hex())
                at += 20
            elif kind == OFFSET_DELTA:
                _, at = _number(pack, at)
            content, at = _inflate(pack, at, size)
            if kind in (OFFSET_DELTA, NAMED_DELTA):
                _, start = _number(content, 0)
                made, _ = _number(content, start)
                size = max(size, made)
            total += size
            if size > MAX_OBJECT or total > MAX_UNPACKED:
                raise Refused("the bundle has objects that are too large when they are unpacked")
    except (IndexError, zlib.error):
        raise Refused("the pack of the bundle is damaged or cut off") from None
    if at != len(pack) - 20:
        raise Refused("the pack of the bundle is damaged or cut off")
    return bases


def _entry(pack: bytes, at: int) -> tuple[int, int, int]:
    """Kind and size of the object at a place, and where its content begins."""
    byte = pack[at]
    kind, size, shift = (byte >> 4) & 7, byte & 15, 4
    while byte & 128:
        at += 1
        byte = pack[at]
        size |= (byte & 127) << shift
        shift += 7
        if size > MAX_OBJECT:
            break
    if kind in (0, 5) or size > MAX_OBJECT:
        raise Refused("the bundle has an object of an unknown kind, or one that is too large")
    return kind, size, at + 1


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, lowest bits first, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if not byte & 128:
            return value, at
        if shift > 63:
            raise IndexError


def _inflate(pack: bytes, at: int, size: int) -> tuple[bytes, int]:
    """The inflated content at a place, which must have this size, and where it ends."""
    machine, made = zlib.decompressobj(), b""
    while not machine.eof:
        piece = machine.unconsumed_tail or pack[at : at + 65536]
        if not piece:
            raise IndexError
        if not machine.unconsumed_tail:
            at += len(piece)
        made += machine.decompress(piece, size + 1 - len(made))
        if len(made) > size:
            raise Refused("the bundle has an object that is larger than it says")
    if len(made) != size:
        raise Refused("the bundle has an object that is smaller than it says")
    return made, at - len(machine.unused_data)


class Quarantine(Git):
    """A repository for a stranger's objects, which sees those of the track and is thrown away.

    Args:
        folder: An empty folder.
        repository: That of the track.
    """

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.root = folder
        alone = [f"GIT_DIR={folder}", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"]
        self.prefix = ("env", *alone, "sh", "-c", LIMITS, "sh")
        (folder / "refs").mkdir()  # with HEAD and objects it is a repository, without hooks and settings
        (folder / "HEAD").write_text("ref: refs/heads/main\n")
        (folder / "objects" / "info").mkdir(parents=True)
        (folder / "objects" / "info" / "alternates").write_text(f"{repository.objects_folder()}\n")
        self._known: set[str] = set()

    def objects(self, commit: str) -> set[str]:
        """The names of a commit and of everything in its tree."""
        listed = self._git("ls-tree", "-r", "-t", "--format=%(objectname)", "--full-tree", commit)
        tree = self._git("rev-parse", f"{commit}^{{tree}}")
        return {commit, tree, *listed.splitlines()}

    def unpack(self, pack: bytes) -> None:
        """Check and store the objects of a pack.

        Raises:
            UserError: If git refuses one.
        """
        options = ("--stdin", "--fix-thin", "--strict", f"--max-input-size={MAX_BUNDLE}")
        name = self._git("-c", "pack.threads=1", "index-pack", *options, data=pack).split()[-1]
        index = (self.root / "objects" / "pack" / f"pack-{name}.idx").read_bytes()
        self._known = {line.split()[1] for line in self._git("show-index", data=index).splitlines()}

    def commit(self, name: str) -> bytes:
        """The content of a commit that was sent.

        Raises:
            Refused: If it was not sent.
            UserError: If it is no commit.
        """
        if name not in self._known:
            raise Refused("the bundle does not hold the commit that it names")
        return self._raw("cat-file", "commit", name)

    def changed(self, parent: str, tip: str, editable: Mapping[str, str]) -> dict[str, str]:
        """The new texts of the files that differ between two commits.

        Args:
            parent: A commit of the track.
            tip: The commit that was sent.
            editable: Files that may differ.

        Raises:
            Refused: If anything else differs than the content of these files.
        """
        command = ("diff-tree", "-r", "-z", "--no-renames", "--no-commit-id", parent, tip)
        parts = self._raw(*command).decode("utf-8", errors="backslashreplace").split("\0")[:-1]
        found: dict[str, str] = {}
        for about, path in zip(parts[::2], parts[1::2], strict=True):
            _, mode, _, blob, how = about.split()
            if path not in editable:
                only = ", ".join(editable)
                raise Refused(f"the commit changes {one_line(path)}; only {only} may be edited")
            if how != "M" or mode != FILE:
                raise Refused(f"the commit does more to {path} than to change its text (mode {mode}, {how})")
            if blob not in self._known:
                raise Refused(f"the bundle does not hold the new content of {path}")
            found[path] = blob
        if not found:
            raise Refused("the commit changes nothing")
        try:
            texts = [(content or b"").decode("utf-8") for content in self._contents(found.values())]
        except UnicodeDecodeError:
            raise Refused("a file of the commit is not UTF-8 text") from None
        return dict(zip(found, texts, strict=True))


def _without(text: str, *folders: Path) -> str:
    """A message without the names of folders of this machine."""
    for folder in folders:
        text = text.replace(str(folder), "...")
    return one_line(text)
