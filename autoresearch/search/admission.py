"""The gate that every proposal passes before it may cost a training slot.

Invariants: what passes obeys the rules, was not tried before, and (where its author can mend what is refused)
gets through a trial of seconds. A proposal made for an incumbent that has moved since is merged onto the new
one, by git's three-way merge, or refused: never guessed. What a candidate printed is handed on as data. One
trial of seconds at a time, whoever asks; if they keep failing alike, the host is to blame, and no more is
paid for proposals.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from autoresearch.edit.apply import apply
from autoresearch.edit.candidate import as_written, carry
from autoresearch.edit.python import fingerprint
from autoresearch.edit.rules import check
from autoresearch.errors import Refused, UserError
from autoresearch.execute.local import Export
from autoresearch.execute.sandbox import remove_tree
from autoresearch.report.summary import signature
from autoresearch.search.state import SearchState
from autoresearch.store.git import Repository
from autoresearch.text import quoted
from autoresearch.types import Draft, Edit, Measurement, Outcome, Proposal

LOG_CHARACTERS = 2000
"""What a proposer is shown of the output of a candidate that failed at once."""


class Gate:
    """Accepts or refuses proposals. May be used from several threads."""

    def __init__(
        self,
        past: SearchState,
        repository: Repository,
        folder: Path,
        export: Export,
        smoke: Callable[..., Measurement],
        alarm: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            past: What was tried.
            repository: To merge with.
            folder: For trees of candidates to be tried in seconds.
            export: Writes the tree of a candidate to a folder.
            smoke: `Runner.smoke`.
            alarm: So many trials of seconds in a row that fail alike end the search; None: never.
        """
        self._past = past
        self._repository = repository
        self._folder = folder
        self._export = export
        self._smoke = smoke
        self._alarm = alarm
        self._lock = threading.Lock()
        self._passed = ""
        self._cause = ""
        self._alike: set[str] = set()

    def check(
        self,
        proposal: Proposal,
        parent: str,
        *,
        smoke: bool = False,
        waiting: Mapping[str, int] | None = None,
    ) -> str:
        """Accept a proposal made for a commit; gives the fingerprint of the candidate.

        Args:
            proposal: What is proposed.
            parent: The incumbent its edits apply to.
            smoke: Whether the candidate must also get through a trial of seconds.
            waiting: Fingerprints of candidates whose turn is still to come, and the number each will have.

        Raises:
            Refused: With the reason, for the author of the proposal.
            UserError: If candidates keep failing alike within seconds.
        """
        sources = self._past.sources(parent)
        new = apply(sources, proposal.edits)
        check(sources, new, self._past.editable)
        mark = fingerprint(new)
        number = {**self._past.seen(), **(waiting or {})}.get(mark)
        if number is not None:
            what = f"experiment {number}" if number else "the baseline"
            raise Refused(f"the candidate is the same program as {what}, which was tried already")
        if smoke:
            with self._lock:
                if self._passed != f"{parent} {mark}":
                    self._try(parent, new, mark)
                    self._passed = f"{parent} {mark}"
        return mark

    def waiting(self, parent: str) -> dict[str, int]:
        """Fingerprints of what drafts will be on an incumbent, if they fit it, and the number of each."""
        found: dict[str, int] = {}
        for number, draft in self._past.waiting():
            with contextlib.suppress(Refused):
                edits = self.rebase(draft, parent).edits
                found[fingerprint(apply(self._past.sources(parent), edits))] = number
        return found

    def rebase(self, draft: Draft, parent: str) -> Proposal:
        """The draft's proposal with edits that apply to another incumbent than it was made for.

        Raises:
            Refused: If what was kept since is in its way.
        """
        proposal = draft.proposal
        if draft.parent == parent:
            return proposal
        if proposal.params:
            raise Refused("it was a point near another incumbent")  # merged, it would be a point nobody chose
        base, ours = self._past.sources(draft.parent), self._past.sources(parent)
        theirs = apply(base, proposal.edits)
        carried = carry(ours, base, theirs, proposal.edits, self._repository.merge)
        if carried == as_written(ours, proposal.edits):
            return proposal
        edits = tuple(Edit(path, "", text) for path, text in carried.items() if text != ours[path])
        return replace(proposal, edits=edits)

    def _try(self, parent: str, new: dict[str, str], mark: str) -> None:
        """Refuse what fails at once."""
        try:
            self._export(parent, self._folder / "code", new)
            (self._folder / "scratch").mkdir()
            result = self._smoke(code=self._folder / "code", scratch=self._folder / "scratch")
        finally:
            remove_tree(self._folder)
        if result.outcome is Outcome.OK:
            self._cause, self._alike = "", set()
            return
        self._count(result.reason, mark)
        said = f"{result.reason}\n{result.log[-LOG_CHARACTERS:]}".strip()
        raise Refused(f"the candidate fails within seconds. What came of it:\n{quoted(said)}")

    def _count(self, reason: str, mark: str) -> None:
        """Take note of a trial of seconds that failed; of a program that comes again, once."""
        cause = signature(reason)
        self._alike = self._alike | {mark} if cause == self._cause else {mark}
        self._cause = cause
        if self._alarm is not None and len(self._alike) >= self._alarm:
            raise UserError(
                f"The last {len(self._alike)} candidates failed alike within seconds: {reason}",
                "If the machine is to blame, mend it; the same command goes on. alarm=null switches it off.",
                code=3,
            )
