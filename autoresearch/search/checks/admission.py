"""Checks a proposal before its trials, and ends the search after too many equal failures.

Invariants: an accepted candidate obeys the rules, was not tried before, and (if its author can repair it)
passes a tryout of seconds. A program that crashed once, and has no score, may be tried once more, since the
machine may be to blame. If the incumbent has moved since a proposal was made, the proposal is merged onto the
new one by git's three-way merge, or refused; nothing is guessed. A candidate's output is passed on as data.
The same failure several times in a row ends the search early, whether tryouts fail (then no more money goes
into proposals) or experiments do.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from autoresearch.edit.candidate import carried_edits
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import TrialSpec
from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.propose.tune.request import remade
from autoresearch.report.totals import cause, signature
from autoresearch.search.state import SearchState
from autoresearch.search.trials import program_seed
from autoresearch.store.inbox import Inbox
from autoresearch.text import held_secret, one_line, quoted
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
"""Characters of a failed tryout's output that a proposer sees."""

FAILURES = (VerdictKind.CRASH, VerdictKind.INVALID)
"""Verdicts that end the search if they come several times in a row for the same cause."""


class Streak:
    """Counts failures with the same cause in a row; a repeated candidate counts once."""

    def __init__(self, limit: int | None) -> None:
        """Prepare.

        Args:
            limit: Number of failures that is too many; None: any number is allowed.
        """
        self._limit = limit
        self._cause: Hashable = None
        self.failed: list[Hashable] = []

    def success(self) -> None:
        """Start counting again, because something else happened."""
        self._cause, self.failed = None, []

    def failure(self, cause: Hashable, what: Hashable) -> bool:
        """Count a failure; returns whether there are too many."""
        if cause != self._cause:
            self._cause, self.failed = cause, []
        if what not in self.failed:
            self.failed.append(what)
        return self._limit is not None and len(self.failed) >= self._limit


class FailureAlarm:
    """Ends the search when experiments keep failing alike. Counts only the present run of the search."""

    def __init__(self, limit: int | None) -> None:
        self._streak = Streak(limit)

    def note(self, experiment: Experiment) -> None:
        """Count a recorded experiment.

        Raises:
            UserError: If there are too many failures.
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
            state: State of the search.
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
        """Make the candidate of a proposal, if the proposal is acceptable.

        Args:
            proposal: The proposal.
            parent: The incumbent its edits apply to.
            tryout: Whether the candidate must also pass a tryout of seconds.
            waiting: Fingerprints of waiting candidates, and the number that each will have.

        Raises:
            Refused: With the reason, for the author of the proposal.
            UserError: If tryouts keep failing alike.
        """
        candidate = self._candidate(proposal, parent)
        if proposal.diagnostic and not self._state.diagnoses_left:
            raise Refused("no diagnosis is left in this search; propose an experiment")
        number = (waiting or {}).get(candidate.fingerprint)
        number = self._state.tried_as(candidate.fingerprint) if number is None else number
        if number is not None and not self._may_repeat(number, candidate.fingerprint):
            what = f"experiment {number}" if number else "the baseline"
            raise Refused(f"the candidate is the same program as {what}, which was tried already")
        if why := self._state.elsewhere.get(candidate.fingerprint):
            raise Refused(f"the candidate need not be tried: {why}")
        if tryout:
            with self._lock:
                if self._passed != (parent, candidate.fingerprint):
                    self._try(candidate)
                    self._passed = parent, candidate.fingerprint
        return candidate

    def _may_repeat(self, number: int, fingerprint: str) -> bool:
        """Whether a program may be tried again: its only experiment crashed without a score, or was held."""
        if number in Inbox(self._state.journal.path.parent).released():
            return self._state.journal.experiment(number).verdict is not None
        if number == 0 or number > self._state.tried:
            return False
        known = self._state.journal.fingerprints(-1)
        crashed = self._state.journal.experiment(number)
        alone = sum(other == fingerprint for other in known.values()) == 1
        failed = crashed.verdict is not None and crashed.verdict.kind is VerdictKind.CRASH
        return alone and failed and not crashed.scores

    def _candidate(self, proposal: Proposal, parent: str) -> Candidate:
        """The candidate, measured and found to obey the rules; whatever else goes wrong refuses it."""
        before = self._state.sources(parent)
        _refuse_secrets(proposal, before)
        try:
            candidate = self._state.candidate(parent, proposal.edits)
            self._state.task.validate(before, candidate.sources)
        except (Refused, UserError):
            raise
        except Exception as error:  # one odd edit must not end the search, now and at each restart
            reason = f"{type(error).__name__}: {one_line(str(error))}"
            raise Refused(f"the program that it makes cannot be read or measured ({reason})") from None
        return candidate

    def adopt(self, draft: Draft, parent: str) -> Experiment:
        """Make a draft the next experiment.

        Args:
            draft: A proposal that was made ahead.
            parent: The incumbent of now.

        Raises:
            Refused: If it no longer fits the incumbent, or is no longer acceptable.
        """
        proposal = self.rebase(draft, parent)
        fingerprint = self.accept(proposal, parent).fingerprint
        return self._state.journal.adopt(draft, proposal, parent, fingerprint)

    def waiting(self, parent: str) -> dict[str, int]:
        """Fingerprints of the drafts as applied to an incumbent, if they fit it, and the number of each."""
        found: dict[str, int] = {}
        for number, draft in self._state.drafts():
            with contextlib.suppress(Refused):
                edits = self.rebase(draft, parent).edits
                found[self._state.candidate(parent, edits).fingerprint] = number
        return found

    def rebase(self, draft: Draft, parent: str) -> Proposal:
        """The draft's proposal, with edits that apply to the incumbent of now.

        Raises:
            Refused: If changes that were kept since conflict with it.
        """
        proposal = draft.proposal
        if draft.parent == parent:
            return proposal
        if proposal.params:
            raise Refused("it was a point near another incumbent")  # no tuner chose the merged point
        if proposal.tuning:
            known, ours = self._state.journal.experiments(), self._state.sources(parent)
            with contextlib.suppress(Refused):
                return remade(proposal, known, ours, self._state.column)
        return self._carried(proposal, draft.parent, parent)

    def merged(self, experiment: Experiment, parent: str) -> Proposal:
        """The proposal of a candidate in flight, with edits that apply to the incumbent of now.

        It is no point of a tuner any more: no tuner chose the merged one.

        Raises:
            Refused: If changes that were kept since conflict with it.
        """
        assert experiment.proposal, "the baseline is no candidate"
        if (tuning := experiment.proposal.tuning) and any(
            e.kept and e.proposal and e.proposal.tuning and e.proposal.tuning.name == tuning.name
            for e in self._state.journal.experiments()
        ):  # the judge adds gains up, and those of alternatives do not
            raise Refused(f"another point of its {tuning.kind} was kept")
        return replace(self._carried(experiment.proposal, experiment.parent, parent), params={})

    def _carried(self, proposal: Proposal, before: str, parent: str) -> Proposal:
        ours, base = self._state.sources(parent), self._state.sources(before)
        edits = carried_edits(ours, base, proposal.edits, self._state.repository.merge)
        return replace(proposal, edits=edits)

    def _try(self, candidate: Candidate) -> None:
        """Refuse a candidate that fails at once."""
        name, files = self._state.config.name, candidate.sources
        seed = program_seed(self._state.journal.seed_secret(), candidate.fingerprint)
        spec = TrialSpec(name, 0, candidate.parent, seed=seed, files=files, fidelity=Fidelity.TRYOUT)
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
        late = classify(result.reason) == TIMEOUT
        said = result.reason if late else f"{result.reason}\n{result.log[-LOG_CHARACTERS:]}".strip()
        raise Refused(f"the candidate fails within seconds. What came of it:\n{quoted(said)}")


def _refuse_secrets(proposal: Proposal, before: Mapping[str, str]) -> None:
    """Refuse a proposal that holds a secret of this process, which would stand in commits and reports.

    An endpoint may echo the key that it was sent. What the sources hold already is no news.
    """
    prose = (proposal.hypothesis, proposal.mechanism, proposal.risk, proposal.instruction)
    words = (*prose, *map(str, proposal.params.values()))
    edits = "\n".join(text for edit in proposal.edits for text in (edit.path, edit.search, edit.replace))
    name = held_secret("\n".join((*words, edits)), known="\n".join(before.values()))
    if name:
        raise Refused(f"the proposal holds the value of the environment variable {name}, which is secret")
