"""The gate that every proposal passes before it may cost a training slot.

Invariants: what passes obeys the rules, was not tried before, and (where its author can mend what is refused)
gets through a trial of seconds. A proposal made for an incumbent that has moved since is merged onto the new
one, by git's three-way merge, or refused: never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autoresearch.edit.apply import apply
from autoresearch.edit.carry import as_written, carry
from autoresearch.edit.rules import check, fingerprint
from autoresearch.past import Past
from autoresearch.record.git import Repository
from autoresearch.run.sandbox import remove_tree
from autoresearch.types import Draft, Edit, Outcome, Proposal, Refused, TrialResult

LOG_CHARACTERS = 2000
"""What a proposer is shown of the output of a candidate that failed at once."""


class Gate:
    """Accepts or refuses proposals. May be used from several threads."""

    def __init__(
        self,
        past: Past,
        repository: Repository,
        folder: Path,
        export: Callable[[str, Path], None],
        smoke: Callable[..., TrialResult],
    ) -> None:
        """Prepare.

        Args:
            past: What was tried.
            repository: To merge with.
            folder: For trees of candidates to be tried in seconds.
            export: Writes the tree of a commit to a folder.
            smoke: `Runner.smoke`.
        """
        self._past = past
        self._repository = repository
        self._folder = folder
        self._export = export
        self._smoke = smoke
        self._passed = ""

    def check(self, proposal: Proposal, parent: str, *, smoke: bool = False) -> str:
        """Accept a proposal made for a commit; gives the fingerprint of the candidate.

        Args:
            proposal: What is proposed.
            parent: The incumbent its edits apply to.
            smoke: Whether the candidate must also get through a trial of seconds.

        Raises:
            Refused: With the reason, for the author of the proposal.
        """
        sources = self._past.sources(parent)
        new = apply(sources, proposal.edits)
        check(sources, new, self._past.editable, self._past.seen())
        mark = fingerprint(new)
        if smoke and self._passed != f"{parent} {mark}":
            self._try(parent, new)
            self._passed = f"{parent} {mark}"
        return mark

    def rebase(self, draft: Draft, parent: str) -> Proposal:
        """The draft's proposal with edits that apply to another incumbent than it was made for.

        Raises:
            Refused: If what was kept since is in its way.
        """
        proposal = draft.proposal
        if draft.parent == parent:
            return proposal
        base, ours = self._past.sources(draft.parent), self._past.sources(parent)
        theirs = apply(base, proposal.edits)
        carried = carry(ours, base, theirs, proposal.edits, self._repository.merge)
        if carried == as_written(ours, proposal.edits):
            return proposal
        edits = tuple(Edit(path, "", text) for path, text in carried.items() if text != ours[path])
        return replace(proposal, edits=edits)

    def _try(self, parent: str, new: dict[str, str]) -> None:
        """Refuse what fails at once."""
        try:
            self._export(parent, self._folder / "code")
            for path, text in new.items():
                (self._folder / "code" / path).write_bytes(text.encode("utf-8"))
            (self._folder / "scratch").mkdir()
            result = self._smoke(code=self._folder / "code", scratch=self._folder / "scratch")
        finally:
            remove_tree(self._folder)
        if result.outcome is not Outcome.OK:
            log = f"\nThe end of what it printed:\n{result.log[-LOG_CHARACTERS:]}" if result.log else ""
            raise Refused(f"the candidate fails within seconds: {result.reason}{log}")
