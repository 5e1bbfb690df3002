"""Checks the chain of a track in a clone, offline: signatures, hashes, and that commits hold what was signed.

Nothing that the server says is taken on trust where the clone itself shows it: the log is followed from its
first entry, each contribution is applied to its parent again, merged, and compared with the commit. What
only a training can show is measured anew by `remeasure`. Not covered: that the server logs all it receives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.edit.apply import apply
from autoresearch.edit.candidate import carry
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.chain.links import CONTRIBUTOR, Link, Published
from autoresearch.swarm.chain.signers import Signers
from autoresearch.swarm.commit import NAMESPACE as GIT
from autoresearch.swarm.commit import parse_commit
from autoresearch.swarm.contribution import NAMESPACE, Signed, tree_digest
from autoresearch.swarm.identity import fingerprint
from autoresearch.swarm.log import Entry, Kind, check


@dataclass(frozen=True)
class Checked:
    """What is known about one link.

    Attributes:
        link: As the server signed it.
        author: Who found it, as the signed contribution says.
        who: Fingerprint of the key that signed the contribution.
        received: When the server received it, Unix time in seconds.
        problems: Why it must not be believed; empty if all was found to be right.
        notes: What a reader should know besides.
    """

    link: Link
    author: str = ""
    who: str = ""
    received: float = 0.0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chain:
    """A chain that was checked.

    Attributes:
        track: Name of the track.
        about: The first entry of the log: what the track is.
        server: Fingerprint of the server's key.
        trusted: Whether the server's key was known from elsewhere.
        tip: The commit that the chain was followed to.
        links: From the start on.
        entries: Number of entries of the log.
        head: Hash of the last one; who keeps it notices a log that is rewritten later.
        problems: Those that belong to no link.
    """

    track: str
    about: Mapping[str, Any]
    server: str
    trusted: bool
    tip: str
    links: tuple[Checked, ...]
    entries: int
    head: str
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing was found that is wrong."""
        return not self.problems and not any(one.problems for one in self.links)


@dataclass
class _Log:
    """What the log says, read once."""

    about: Mapping[str, Any] = field(default_factory=dict)
    received: dict[str, Entry] = field(default_factory=dict)
    trees: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Entry] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    entries: int = 0
    head: str = ""

    def read(self, entry: Entry) -> None:
        """Take one entry in."""
        data = entry.data
        self.entries, self.head = entry.number + 1, entry.hash
        if entry.kind is Kind.TRACK:
            self.about = data
        elif entry.kind is Kind.RECEIVED:
            self.received.setdefault(data["contribution"], entry)
            self.trees.setdefault(data["tree"], data["contribution"])
            self.names.setdefault(data["author"], data["who"])
        elif entry.kind is Kind.VERDICT and data.get("state") == "kept":
            self.kept[data["commit"]] = entry
        elif entry.kind in (Kind.FLAGGED, Kind.MODERATED):
            for key in ("commit", "contribution"):
                if data.get(key):
                    self.notes.setdefault(data[key], []).append(f"{entry.kind}: {data.get('reason', '')}")


def verify_chain(
    repository: Repository,
    track: str,
    tip: str,
    *,
    server_key: str = "",
    signers: Signers | None = None,
    seen: Mapping[int, str] | None = None,
) -> Chain:
    """Check the chain of a track in a clone.

    Args:
        repository: The clone, with the published chain.
        track: Name of the track.
        tip: The commit to follow the chain to.
        server_key: The server's public key as known from elsewhere; without it, the one that the log names.
        signers: Whose keys are known; without it, every key stands for itself.
        seen: Number -> hash of log entries that were seen before.

    Raises:
        BrokenLog: If the log is not as its server wrote it; then nothing else in it counts.
        UserError: If the clone does not hold chain or commits.
    """
    published = Published(repository, track)
    first = next(published.entries(), None)
    if first is None or first.track != track:
        raise UserError(f"The published chain is not one of {track}.", "Fetch it again.")
    told = str(first.data.get("key", ""))
    log = _Log()
    for entry in check(published.entries(), server_key or told, seen):
        log.read(entry)
    commits, problems = _commits(repository, str(log.about.get("tip") or log.about.get("base")), tip)
    links: list[Checked] = []
    used: dict[str, str] = {}
    for commit in commits:
        kept = log.kept.get(commit)
        if kept is None:
            problems.append(f"commit {commit[:10]} is on the branch without having been kept")
            continue
        one = _link(repository, published, log, kept, signers or Signers())
        digest = kept.data["contribution"]
        if digest in used:
            twice = f"its contribution stands for commit {used[digest][:10]}, too"
            one = replace(one, problems=(*one.problems, twice))
        used[digest] = commit
        links.append(one)
    return Chain(
        track, log.about, fingerprint(server_key or told), bool(server_key), tip, tuple(links), log.entries,
        log.head, tuple(problems),
    )  # fmt: skip


def _commits(repository: Repository, start: str, tip: str) -> tuple[list[str], list[str]]:
    """The commits after the start up to the tip, oldest first, and what is wrong with them as a line."""
    commits, problems, commit = [], [], tip
    while commit != start:
        parents = repository.read(commit).parents
        if len(parents) != 1:
            problems.append(f"commit {commit[:10]} does not lead back to {start[:10]}, where the track began")
            break
        commits.append(commit)
        commit = parents[0]
    return commits[::-1], problems


def _link(repository: Repository, published: Published, log: _Log, kept: Entry, signers: Signers) -> Checked:
    data = kept.data
    digest, commit = data["contribution"], data["commit"]
    try:
        link = Link.from_dict(data["link"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"Entry {kept.number} of the log is no proper link: {error}.") from None
    found = Checked(link, notes=(*log.notes.get(commit, ()), *log.notes.get(digest, ())))
    problems = []
    made = repository.read(commit)
    if (link.commit, (link.parent,)) != (commit, made.parents):
        problems.append("the link is about another commit, or another parent")
    received, text = log.received.get(digest), published.contribution(digest)
    if received is None:
        return replace(found, problems=(*problems, "the log does not say that its contribution was received"))
    told = received.data
    found = replace(found, author=told["author"], who=told["who"], received=received.time)
    if received.number > kept.number:
        problems.append("it was kept before its contribution was received")
    if log.trees[told["tree"]] != digest:
        problems.append(f"contribution {log.trees[told['tree']][:10]} offered the same files before")
    named = re.findall(rf"^Proposer: {CONTRIBUTOR}(.*)$", made.message, re.MULTILINE)
    if any(name != told["author"] for name in named):
        problems.append(f"the commit says that it is from {named[0]}; {told['author']} has signed it")
    if log.names[told["author"]] != told["who"]:
        problems.append(f"the name {told['author']} belonged to another key before")
    if text is None:
        return replace(found, problems=(*problems, "its signed contribution is not there"))
    try:
        signed = Signed.from_stored(text)
        _check_signed(signed, received, kept.track, signers)
        _check_content(repository, signed, link, log.about.get("editable") or ())
    except Refused as error:
        problems.append(str(error))
    except UserError as error:
        problems.append(f"it cannot be checked here: {error}")
    return replace(found, problems=tuple(problems))


def _check_signed(signed: Signed, received: Entry, track: str, signers: Signers) -> None:
    """Check who signed what, and that it is what the server says to have received.

    Raises:
        Refused: If something is wrong.
    """
    sent, told = signed.contribution, received.data
    signed.check()
    said = {"contribution": sent.digest, "who": sent.fingerprint, "author": sent.author, "tree": sent.tree}
    if sent.track != track or any(told[name] != value for name, value in said.items()):
        raise Refused("the signed contribution is another one than the server says to have received")
    signers.check(sent.author, sent.public_key, GIT if signed.commit else NAMESPACE, received.time)


def _check_content(repository: Repository, signed: Signed, link: Link, editable: Sequence[str]) -> None:
    """Check that the commit holds what was signed, merged onto its parent, and changes nothing else.

    Raises:
        Refused: If something is wrong.
    """
    sent = signed.contribution
    base, ours, now = (repository.sources(c, editable) for c in (sent.parent, link.parent, link.commit))
    edits = edits_from_patch(sent.patch, base)
    theirs = apply(base, edits)
    if tree_digest(theirs) != sent.tree:
        raise Refused("the patch gives other files than those that were signed")
    if signed.commit:
        made = repository.commit(sent.parent, {p: t for p, t in theirs.items() if t != base[p]}, "check", 0.0)
        if repository.read(made).tree != parse_commit(signed.commit, signed.signature).tree:
            raise Refused("the patch gives another tree than that of the signed commit")
    merged = theirs if ours == base else carry(ours, base, theirs, edits, repository.merge)
    if merged != now or tree_digest(now) != link.tree:
        raise Refused("the commit holds another text than what was signed, merged onto its parent")
    before, after = (repository.entries(commit) for commit in (link.parent, link.commit))
    for path in before.keys() | after.keys():
        old, new = before.get(path), after.get(path)
        if old != new and (path not in now or old is None or new is None or old.mode != new.mode):
            raise Refused(f"the commit changes {path}, which is not editable")
