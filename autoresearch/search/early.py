"""Head starts: where a place would stand idle, the screening of the next candidate begins before its turn.

A judge decides in a serial order, and seldom wants as many trials of one candidate as there are places. Most
candidates are discarded; the first trial of the next is then the same, whenever it begins: the same program
with the same seed. Owns what was begun so, until its turn comes, or shows that it was in vain. Invariants:
no decision is another one for it; what was in vain has no result, like a trial whose runner died, and what
is lost with the process is trained again. Not covered: which want comes next (`Judge.upcoming`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoresearch.edit.apply import apply
from autoresearch.errors import Refused
from autoresearch.judge import Judge, TrialRequest
from autoresearch.search.admission import Gate
from autoresearch.search.state import SearchState
from autoresearch.search.trials import Trials
from autoresearch.store.journal import Journal
from autoresearch.types import Arm, Experiment, Measurement, Trial


@dataclass
class HeadStart:
    """A trial that nobody has asked for yet.

    Attributes:
        draft: Number of the draft it trains.
        sources: The candidate's editable files.
        trial: As the journal has it; its commit is the incumbent that it is meant to replace.
        result: What came of it; None while it runs.
    """

    draft: int
    sources: Mapping[str, str]
    trial: Trial
    result: Measurement | None = None


class Early:
    """The trials that were begun before their turn. For the thread of the search alone."""

    def __init__(self, trials: Trials, journal: Journal, past: SearchState, gate: Gate) -> None:
        """Prepare.

        Args:
            trials: Begins and stops them.
            journal: Where they are written down, and where drafts wait.
            past: What the incumbent is.
            gate: What drafts must pass.
        """
        self._trials = trials
        self._journal = journal
        self._past = past
        self._gate = gate
        self._begun: list[HeadStart] = []

    @property
    def any(self) -> bool:
        """Whether a trial waits for its turn."""
        return bool(self._begun)

    def begin(self, judge: Judge, last: int) -> Trial | None:
        """Begin the screening of the next draft at a free place; None if there is nothing to begin.

        Args:
            judge: Knows with which seed, if the current candidate is discarded.
            last: The number of the last experiment that there will be.
        """
        ahead, drafts = len(self._begun), self._journal.drafts()
        number, parent = self._past.tried + 1 + ahead, self._past.incumbent.commit
        if number > last or [draft.id for draft in drafts[:ahead]] != [begun.draft for begun in self._begun]:
            return None
        wants = judge.upcoming(ahead + 1) if len(drafts) > ahead else []
        if len(wants) <= ahead:
            return None
        draft = drafts[ahead]
        try:
            proposal = self._gate.rebase(draft, parent)
            self._gate.check(proposal, parent)
        except Refused:
            return None  # it is said when its turn comes
        sources = apply(self._past.sources(parent), proposal.edits)
        trial = self._trials.begin(number, Arm.SCREEN, wants[ahead].seed, parent, sources=sources)
        self._begun.append(HeadStart(draft.id, sources, trial))
        return trial

    def ended(self, trial: Trial, result: Measurement) -> bool:
        """Take note of the end of a trial, if it is one of these."""
        found = next((start for start in self._begun if start.trial.id == trial.id), None)
        if found is not None:
            found.result = result
        return found is not None

    def take(self, experiment: Experiment, want: TrialRequest) -> tuple[Trial, Measurement | None] | None:
        """The trial that the judge wants, if it was begun; its result, if it has ended.

        All are given up if it was something else that was begun first: the order is another one now.

        Args:
            experiment: Whose turn it is; its candidate is committed.
            want: What the judge wants.
        """
        if want.arm != "screen" or want.thorough or not self._begun:
            return None
        first = self._begun[0]
        begun = first.trial.experiment, first.trial.seed, first.trial.commit, dict(first.sources)
        if begun != (experiment.number, want.seed, experiment.parent, self._past.sources(experiment.commit)):
            self.give_up()
            return None
        del self._begun[0]
        return self._journal.adopt_trial(first.trial, experiment.commit), first.result

    def give_up(self) -> None:
        """Stop them all: their turn will not come."""
        self._trials.dismiss([start.trial.id for start in self._begun])
        for start in self._begun:
            self._journal.give_up_trial(start.trial)
        self._begun = []
