"""Submits one change that a person made: a patch, or what a commit changes, onto the tip of the track."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.clock import now
from autoresearch.edit.apply import apply
from autoresearch.edit.candidate import carry, diff
from autoresearch.edit.patch import edits_from_patch, read_patch
from autoresearch.errors import Refused, UserError
from autoresearch.store.git.repository import Repository
from autoresearch.swarm.contribution import Evidence, sign, tree_digest
from autoresearch.swarm.identity import Identity
from autoresearch.swarm.join.outbox import fetch_tip
from autoresearch.swarm.join.remote import Remote
from autoresearch.text import clean, one_line


def by_hand(
    root: Path, remote: Remote, identity: Identity, author: str, change: str, message: str
) -> dict[str, Any]:
    """Submit one change: a patch of the tip, or what a commit changes; says what became of it so far.

    Args:
        root: A folder in a clone of the track.
        remote: The server.
        identity: Of the contributor.
        author: The contributor's name.
        change: A file with a patch, or a commit.
        message: What it changes, then why; of a commit, by default, its own message.

    Raises:
        UserError: If it is neither, or does not fit the tip.
    """
    repository, about = Repository(root), remote.about()
    parent, editable = str(about["tip"]), [str(path) for path in about["editable"]]
    if repository.resolve(parent) is None:
        fetch_tip(repository, remote, parent)
    path, tip = Path(change), repository.sources(parent, editable)
    try:
        if path.is_file():
            after: Mapping[str, str] = _with_patch(repository, read_patch(path), tip, editable)
        elif commit := repository.resolve(change):
            base, theirs = (repository.sources(name, editable) for name in (f"{commit}^", commit))
            after = carry(tip, base, theirs, (), repository.merge)
            message = message or repository.message(commit)
        else:
            raise UserError(f"{change} is neither a file nor a commit.", "Give a patch that git diff made.")
    except Refused as error:
        raise UserError(
            f"The change does not fit the tip {parent[:10]}: {error}", "Make it anew on it."
        ) from None
    title, _, why = (message.strip() or path.stem).partition("\n")
    signed = sign(
        identity,
        track=remote.track,
        parent=parent,
        patch=diff(tip, after),
        tree=tree_digest(after),
        title=one_line(title, 160),
        why=clean(why.strip())[:4000],
        evidence=Evidence(),
        author=author,
        time=now(),
    )
    return remote.submit(signed)


def _with_patch(
    repository: Repository, patch: str, tip: Mapping[str, str], editable: Sequence[str]
) -> Mapping[str, str]:
    """The tip with a patch of it, or of what is checked out, which may be an older tip."""
    try:
        return apply(tip, edits_from_patch(patch, tip))
    except Refused as error:
        base = repository.sources("HEAD", editable)
        if base == tip:
            raise
        try:
            edits = edits_from_patch(patch, base)
        except Refused:
            raise error from None
        return carry(tip, base, apply(base, edits), edits, repository.merge)
