"""What a proposal must pass before it may cost a training slot, and when failures end the search.

Invariants: an accepted candidate obeys the rules, was not tried before, and (where its author can mend what
is refused) gets through a tryout of seconds. A proposal made for an incumbent that has moved since is merged
onto the new one, by git's three-way merge, or refused: never guessed. What a candidate printed is handed on
as data. The same failure several times in a row is no research: it ends the search early, whether tryouts
fail (no more is paid for proposals then) or experiments do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from autoresearch.edit.candidate import carried_edits
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.report.summary import cause, signature
from autoresearch.search.state import SearchState
from autoresearch.text import quoted
from autoresearch.types import (
    Candidate,
    Draft,
    Experiment,
    Fidelity,
    Measurement,
    Outcome,
    Proposal,
    VerdictKind,
)

LOG_CHARACTERS = 2000
"""What a proposer is shown of the output of a candidate that failed in its tryout."""

FAILURES = (VerdictKind.CRASH, VerdictKind.INVALID)
"""Verdicts that end the search if they come several times in a row for the same cause."""


class Streak:
    """Failures with the same cause, one after the other; a failing thing that comes again counts once."""

    def __init__(self, limit: int | None) -> None:
        """Prepare.

        Args:
            limit: So many are too many; None: any number is allowed.
        """
        self._limit = limit
        self._cause: Hashable = None
        self.failed: list[Hashable] = []

    def success(self) -> None:
        """Something else happened: the next failure is the first."""
        self._cause, self.failed = None, []

    def failure(self, cause: Hashable, what: Hashable) -> bool:
        """Count a failure; gives whether it is one too many."""
        if cause != self._cause:
            self._cause, self.failed = cause, []
        if what not in self.failed:
            self.failed.append(what)
        return self._limit is not None and len(self.failed) >= self._limit


class FailureAlarm:
    """Ends the search when experiments keep failing alike. Counts what happened since it was last started."""

    def __init__(self, limit: int | None) -> None:
        self._streak = Streak(limit)

    def note(self, experiment: Experiment) -> None:
        """Take note of a recorded experiment.

        Raises:
            UserError: If it is one too many.
        """
        verdict = experiment.verdict
        if verdict is None or verdict.kind not in FAILURES:
            self._streak.success()
            return
        reason = cause(experiment)
        if self._streak.failure((verdict.kind, signature(reason)), experiment.number):
            alike = self._streak.failed
            raise UserError(
                f"The last {len(alike)} experiments ({alike[0]} to {alike[-1]}) failed alike: {reason}",
                f"See what happened: autoresearch show {alike[-1]}. If the machine is to blame, mend it; the "
                "same command goes on. alarm=null switches this off.",
                code=3,
            )


class Admission:
    """Accepts or refuses proposals. May be used from several threads."""

    def __init__(self, state: SearchState, tryout: Callable[[TrialSpec], Measurement]) -> None:
        """Prepare.

        Args:
            state: What was tried.
            tryout: `Executor.tryout`.
        """
        self._state = state
        self._tryout = tryout
        self._streak = Streak(state.config.alarm)
        self._lock = threading.Lock()
        self._passed: tuple[str, str] = "", ""

    def accept(
        self,
        proposal: Proposal,
        parent: str,
        *,
        tryout: bool = False,
        waiting: Mapping[str, int] | None = None,
    ) -> Candidate:
        """Make the candidate of a proposal, if it may be trained.

        Args:
            proposal: What is proposed.
            parent: The incumbent its edits apply to.
            tryout: Whether the candidate must also get through a tryout of seconds.
            waiting: Fingerprints of candidates whose turn is still to come, and the number each will have.

        Raises:
            Refused: With the reason, for the author of the proposal.
            UserError: If tryouts keep failing alike.
        """
        candidate = self._state.candidate(parent, proposal.edits)
        self._state.task.validate(self._state.sources(parent), candidate.sources)
        number = {**self._state.seen(), **(waiting or {})}.get(candidate.fingerprint)
        if number is not None:
            what = f"experiment {number}" if number else "the baseline"
            raise Refused(f"the candidate is the same program as {what}, which was tried already")
        if tryout:
            with self._lock:
                if self._passed != (parent, candidate.fingerprint):
                    self._try(candidate)
                    self._passed = parent, candidate.fingerprint
        return candidate

    def adopt(self, draft: Draft, parent: str) -> Experiment:
        """Make a draft the next experiment.

        Args:
            draft: A proposal that was made ahead.
            parent: The incumbent of now.

        Raises:
            Refused: If it does not fit the incumbent any more, or is no longer acceptable.
        """
        proposal = self.rebase(draft, parent)
        fingerprint = self.accept(proposal, parent).fingerprint
        return self._state.journal.adopt(draft, proposal, parent, fingerprint)

    def waiting(self, parent: str) -> dict[str, int]:
        """Fingerprints of what drafts will be on an incumbent, if they fit it, and the number of each."""
        found: dict[str, int] = {}
        for number, draft in self._state.drafts():
            with contextlib.suppress(Refused):
                edits = self.rebase(draft, parent).edits
                found[self._state.candidate(parent, edits).fingerprint] = number
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
        ours, base = self._state.sources(parent), self._state.sources(draft.parent)
        return replace(
            proposal, edits=carried_edits(ours, base, proposal.edits, self._state.repository.merge)
        )

    def _try(self, candidate: Candidate) -> None:
        """Refuse a candidate that fails at once."""
        name, files = self._state.config.name, candidate.sources
        spec = TrialSpec(name, 0, candidate.parent, seed=0, files=files, fidelity=Fidelity.TRYOUT)
        result = self._tryout(spec)
        if result.outcome is Outcome.OK:
            self._streak.success()
            return
        if self._streak.failure(signature(result.reason), candidate.fingerprint):
            count = len(self._streak.failed)
            raise UserError(
                f"The last {count} candidates failed alike within seconds: {result.reason}",
                "If the machine is to blame, mend it; the same command goes on. alarm=null switches it off.",
                code=3,
            )
        said = f"{result.reason}\n{result.log[-LOG_CHARACTERS:]}".strip()
        raise Refused(f"the candidate fails within seconds. What came of it:\n{quoted(said)}")
