"""The candidates in flight: the trials that the judge asks for, what it reads of them, and what it decides.

With one place there is one candidate in flight. With several there are as many as it takes to keep every
place busy, if the judge can hold them. It reads the answers to each in the order in which it asked. What came
early waits in its state, which is written to the journal with each result, so nothing of it is lost.

When a candidate is kept, the others are merged onto it as soon as they need another trial. One that conflicts
with it is withdrawn; its author may propose it anew, on top of what was kept. Not covered: which proposals
become candidates, and what follows from a verdict (`loop`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace

from autoresearch.clock import now
from autoresearch.errors import Refused
from autoresearch.judge import TrialRequest
from autoresearch.propose.tune.request import with_tuning
from autoresearch.search.checks.admission import Admission
from autoresearch.search.checks.revocation import suspect
from autoresearch.search.observers import View
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.scores import Documents, ScoreJudge
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Ended
from autoresearch.search.trials import CANDIDATE_ARMS
from autoresearch.store.files import document_losses, losses_folder
from autoresearch.store.git.commits import commit_message
from autoresearch.types import Arm, Experiment, Measurement, Outcome, State, Trial, Verdict, VerdictKind


class Judging:
    """Runs the trials that the judge asks for, and records what it decides.

    Attributes:
        judge: The judge.
    """

    judge: ScoreJudge

    def __init__(self, state: SearchState, scheduler: Scheduler, admission: Admission, view: View) -> None:
        """Prepare; `go_on` must follow.

        Args:
            state: Of the search.
            scheduler: Runs the trials.
            admission: Merges candidates onto a new incumbent.
            view: Shows what happens.
        """
        self._state = state
        self._journal = state.journal
        self._scheduler = scheduler
        self._admission = admission
        self._view = view
        self._again: deque[TrialRequest] = deque()
        self._running: dict[int, tuple[Trial, TrialRequest]] = {}

    @property
    def needless(self) -> Sequence[int]:
        """The trials under way, none of which is needed once the judge steps back."""
        return tuple(self._running)

    def go_on(self, judge: ScoreJudge) -> None:
        """Judge with this judge from now on: at the start, and after it has stepped back.

        Candidates in flight that it does not know are announced to it.
        """
        self._scheduler.cancel(trial for trial, _ in self._running.values())
        self._running.clear()
        self.judge = judge
        judge.use_places(self._scheduler.places)
        for experiment in self._state.open:
            if experiment.verdict is None:
                self.announce(experiment)
        self._again = deque(judge.unanswered)  # requested before an interruption

    # Candidates

    def commit(self, experiment: Experiment) -> Experiment:
        """Turn the proposal into a commit that stays reachable, whatever the verdict."""
        repository, number = self._state.repository, experiment.number
        candidate = self._state.candidate_of(experiment)
        message = commit_message(experiment, self._state.task.metric)
        commit = repository.commit(candidate.parent, candidate.sources, message, experiment.created)
        measured = {t.commit for t in experiment.trials if t.arm in CANDIDATE_ARMS}  # on another incumbent
        ref = self._state.ref(number)
        earlier = {f"{ref}-{old[:10]}": old for old in repository.existing(measured)} if measured else {}
        repository.update_refs({**earlier, ref: commit})
        return self._journal.committed(number, commit, candidate.diff)

    def announce(self, experiment: Experiment) -> None:
        """Tell the judge, and people, of a candidate that has a commit."""
        self._view.experiment(experiment)
        kind = experiment.proposal.category if experiment.proposal else ""
        self.judge.candidate(self._state.candidate_of(experiment).growth, kind, experiment.number)

    def _rebase(self, number: int) -> None:
        """Merge a candidate in flight onto the incumbent, or withdraw it."""
        experiment, tip = self._journal.experiment(number), self._state.incumbent
        if experiment.parent != tip.commit:  # else it was merged before an interruption
            try:
                proposal = self._admission.merged(experiment, tip.commit)
                candidate = self._admission.accept(proposal, tip.commit)
            except Refused as error:
                reason = f"withdrawn, since experiment {tip.number} was kept: {error}"
                self.end(number, Verdict(VerdictKind.DISCARD, reason=reason))
                return
            experiment = self._state.rebased(experiment, proposal, candidate)
        if experiment.state is State.PROPOSED:
            experiment = self.commit(experiment)
        self.judge.rebased(number, self._state.candidate_of(experiment).growth)

    def end(self, number: int, verdict: Verdict) -> None:
        """End a candidate in flight without a decision of the judge."""
        self.judge.withdraw(number)
        self._record({number: verdict})

    def passed(self, number: int, trials: Sequence[Trial]) -> None:
        """Let the judge keep a candidate that has passed the last check, if it still wants to.

        Args:
            number: The candidate.
            trials: Its training in the check, and the incumbent's; or none.
        """
        decided: dict[int, Verdict] = {}
        ran = [(trial.result, self._documents(trial)) for trial in trials if trial.result]
        if ran and not any(self._state.devices.name(result.provenance.device) for result, _ in ran):
            decided |= self.judge.checked(number, trials[0].seed, *ran)
        self._record(self._tuned(decided | self.judge.passed(number)))

    def _documents(self, trial: Trial) -> Documents:
        return document_losses(losses_folder(self._journal.path.parent, trial.id))

    def _record(self, verdicts: dict[int, Verdict]) -> None:
        """Record verdicts that follow from no trial, and the judge."""
        needless = self._unneeded()
        ids = [trial.id for trial in needless]
        self._journal.revoke(verdicts, self.judge.to_json(), {}, (), needless=ids)
        self._scheduler.cancel(needless)

    def _tuned(self, decided: dict[int, Verdict]) -> dict[int, Verdict]:
        """The verdicts, with what is to be said of those that belong to a search over values."""
        if not decided:
            return {}
        known, metric = self._journal.experiments(), self._state.task.metric
        return {number: with_tuning(verdict, number, known, metric) for number, verdict in decided.items()}

    # Trials

    def start(self, device: str = "") -> bool:
        """Start the next trial that the judge asks for; False: it asks for none now.

        Args:
            device: Kind of device, as the judge calls it, of which a place must be free.
        """
        known = next((want for want in self._again if want.device == device), None)
        again, want = known is not None, known
        if known is not None:
            self._again.remove(known)
        while want is None and (behind := self.judge.behind):
            # One for each start, as long as that is enough: merging all would let free places wait.
            self._rebase(behind[0])
            want = self.judge.next()
        want = want or self.judge.next()
        if want is None:
            return False
        number = want.candidate if want.arm is not Arm.INCUMBENT else 0
        number = number or max(self.judge.in_flight)  # runs of the incumbent are filed under the newest
        trial = self._scheduler.start(number, want, self._commit_for(want, number, again))
        self._running[trial.id] = trial, want
        return True

    def _commit_for(self, want: TrialRequest, number: int, again: bool) -> str:
        """What a requested trial measures; if it is run again, what it measured before."""
        if want.arm is Arm.INCUMBENT:
            return self._state.incumbent.commit
        experiment = self._journal.experiment(number)
        lost = [t.commit for t in experiment.trials if (t.arm, t.seed) == (want.arm, want.seed) and again]
        known = self._state.repository.existing(lost[-1:]) if lost else ()
        return next(iter(known), experiment.commit)

    def observe(self, ended: Ended) -> Sequence[Experiment]:
        """Show the judge a result; record it, the judge, and any verdicts in one transaction.

        Returns:
            The experiments that have a verdict now.
        """
        begun, trial = now(), ended.trial
        _, want = self._running.pop(trial.id)
        if not self._state.devices.runs_as(ended.result, want.device):
            self._moved(trial, want)
            return ()
        ended = replace(ended, result=self._state.devices.levelled(ended.result))

        def results(number: int) -> list[Measurement]:
            known = [t.result for t in self._journal.experiment(number).trials if t.arm is not Arm.INCUMBENT]
            mine = number == trial.experiment and want.arm is not Arm.INCUMBENT
            return [*(result for result in known if result), *([ended.result] * mine)]

        decided = self._tuned(self.judge.digest(want, ended.result, results, self._documents(trial)))
        needless = self._unneeded()
        self._journal.mark(trial.experiment, trial.id, "judge", begun, now())
        if want.arm is Arm.CONFIRM and ended.result.outcome is Outcome.INVALID:
            suspect(self._state, self._journal.experiment(trial.experiment))
        state, closed = self.judge.to_json(), [t.id for t in needless]
        self._view.trial(self._journal.finish_trial(trial, ended.result, state, decided, closed))
        self._scheduler.cancel(needless)
        return [self._journal.experiment(number) for number in decided]

    def _moved(self, trial: Trial, want: TrialRequest) -> None:
        """Let a trial not count that was repeated on another kind of device, as its place was lost."""
        self.judge.forget(want)
        self._journal.revoke({}, self.judge.to_json(), {}, (), needless=[trial.id])
        self._view.trial(replace(trial, finished=now()))

    def use_devices(self, devices: Collection[str]) -> None:
        """Take back what waits for a kind of device of which there is no place any more.

        Args:
            devices: The kinds that there are, as the judge calls them.
        """
        for want in [want for want in self._again if want.device not in devices]:
            self._again.remove(want)
            self.judge.forget(want)

    def _unneeded(self) -> list[Trial]:
        """The trials under way whose results do not count any more; they are forgotten."""
        found = [trial for trial, want in self._running.values() if not self.judge.needs(want)]
        for trial in found:
            del self._running[trial.id]
        self._again = deque(want for want in self._again if self.judge.needs(want))
        return found
