"""What need not be trained again: what the track has decided already, and what this contributor has.

A change counts as tried if it gives the same program on the present tip. What was kept is in the tip; what
came back to be made anew is left out. A server that calls everything tried gains only idle contributors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from autoresearch.edit.apply import apply
from autoresearch.edit.candidate import carry
from autoresearch.edit.patch import edits_from_patch
from autoresearch.errors import Refused, UserError
from autoresearch.search.loop import Search
from autoresearch.store.connection import JOURNAL
from autoresearch.store.journal import Journal
from autoresearch.swarm.contribution import Signed
from autoresearch.swarm.join.outbox import Joined
from autoresearch.text import one_line

MOST = 500
"""Changes of the track that are looked at, the latest."""


@dataclass(frozen=True)
class Tried:
    """A change that was tried.

    Attributes:
        parent: The commit that it changed.
        patch: Unified diff.
        said: What came of it.
    """

    parent: str
    patch: str
    said: str


def tried_before(joined: Joined, search: Search) -> dict[str, str]:
    """What was tried already: fingerprint of the program that it gives on the tip -> what came of it.

    Raises:
        Unreachable: If the server does not answer.
    """
    found: dict[str, str] = {}
    state, repository = search.state, search.repository
    tip = state.sources(state.incumbent.commit)
    for one in (*_of_track(joined), *_own(joined, search.config.name)):
        try:
            base = state.sources(one.parent)
            edits = edits_from_patch(one.patch, base)
            after = carry(tip, base, apply(base, edits), edits, repository.merge)
            found[search.task.fingerprint(after)] = one.said
        except (Refused, UserError, ValueError, SyntaxError):
            continue  # it does not fit the tip, so it is another change there
    return found


def _of_track(joined: Joined) -> Iterator[Tried]:
    """What the verifier has decided and not kept."""
    for row in joined.remote.tried()[-MOST:]:
        verdict = one_line(str(row.get("verdict")), 40)
        if verdict != "keep":
            said = f"the track has tried it: {verdict}, {one_line(str(row.get('reason')), 300)}"
            yield Tried(str(row.get("parent")), str(row.get("diff")), said)


def _own(joined: Joined, name: str) -> Iterator[Tried]:
    """What the rounds before this one have decided, and what was submitted."""
    for path in sorted(joined.runs.glob(f"*/{JOURNAL}")):
        if path.parent.name != name:
            with Journal(path) as journal:
                for e in journal.decided():
                    if e.proposal is not None and e.verdict is not None and not e.kept:
                        said = f"the round {path.parent.name} has tried it: {e.verdict.kind}"
                        yield Tried(e.parent, e.diff, said)
    for path in joined.outbox:
        note = json.loads(path.read_text(encoding="utf-8"))
        state = (note.get("row") or {}).get("state", "waiting")
        if state not in ("returned", "kept"):
            sent = Signed.from_plain(note["signed"]).contribution
            yield Tried(sent.parent, sent.patch, f"it was submitted, and is {one_line(str(state), 40)}")
