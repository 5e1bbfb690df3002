"""What follows from a verdict: a last check before a keep, the record of it in git, and second thoughts.

A keep stands only if its gain is there on text that no program has seen (`unseen`). What was kept is run
again now and then (`reproduction`), and when something else of its author was invalid; it is taken back if it
turns out to be invalid, too (`revocation`). The trainings for this are steps that the loop runs beside those
that the judge asks for.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.judge import TrialRequest
from autoresearch.propose.base import Proposer
from autoresearch.search.checks.guards import HELD, is_released, sentence, weigh_guards
from autoresearch.search.checks.reproduction import Reproduction
from autoresearch.search.checks.revocation import revoke, settle, stored_judge, suspect, veto
from autoresearch.search.checks.unseen import Found, check_unseen
from autoresearch.search.judging import Judging
from autoresearch.search.observers import Mirror, View
from autoresearch.search.scheduler import Scheduler
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Ended, Steps
from autoresearch.store.git.commits import commit_message, move_branch, pack
from autoresearch.store.records.notes import RECHECKS, read_rechecks
from autoresearch.text import one_line
from autoresearch.types import Arm, Experiment, GuardGain, Measurement, Outcome, Verdict, VerdictKind

PACK_EVERY = 500
"""Experiments after which their objects are packed: before git itself would think of collecting garbage."""


class Conclusion:
    """Acts on verdicts."""

    def __init__(
        self,
        state: SearchState,
        scheduler: Scheduler,
        judging: Judging,
        proposer: Proposer,
        view: View,
        mirror: Mirror,
    ) -> None:
        """Prepare.

        Args:
            state: Of the search.
            scheduler: Starts the trainings.
            judging: Goes on with the judge as it was, when a keep is taken back.
            proposer: Is told of verdicts.
            view: Shows them.
            mirror: Shows the journal elsewhere.
        """
        self._state = state
        self._journal = state.journal
        self._scheduler = scheduler
        self._judging = judging
        self._proposer = proposer
        self._view = view
        self._mirror = mirror
        self._checked = self._packed = 0
        self._reproduction = Reproduction(state, scheduler)

    def must_check(self, experiment: Experiment) -> bool:
        """Whether a verdict must not be recorded yet: a keep that was not checked on unseen text."""
        return experiment.kept and experiment.number != self._checked

    def check(self, experiment: Experiment) -> Steps[None]:
        """Let a keep stand only if no guard forbids it, and its gain is there on unseen text."""
        number = experiment.number
        gains = yield from weigh_guards(self._state, self._scheduler, experiment)
        if said := sentence(gains, self._state.guards()):
            self._view.message(f"Experiment {number}: {said}.", warning=True)
        if said and self._state.config.guards.action != "flag" and not is_released(self._state, experiment):
            self._forbid(experiment, said, gains)
            return
        experiment = self._noted(experiment, said, gains)
        verdict = experiment.verdict
        assert verdict is not None
        found = yield from check_unseen(self._state, self._scheduler, self._view, experiment)
        self._checked = number
        if self._incumbent_revoked(found):
            return
        if found.outcome is Outcome.OK:
            self._noted(experiment, found.reason, gains)
            return
        self._veto(experiment, replace(self._refused(experiment, found, verdict.trials), guards=gains))

    def check_held(self, experiment: Experiment) -> Steps[None]:
        """The same look at unseen text before the judge keeps a candidate that it holds.

        Others go on meanwhile. The judge counts the trainings. If it keeps the candidate then, `check`
        follows, and finds what this has shown.
        """
        number = experiment.number
        found = yield from check_unseen(self._state, self._scheduler, self._view, experiment)
        moved = self._journal.experiment(number).commit != experiment.commit
        if moved or number not in self._judging.judge.in_flight:
            return  # it has failed meanwhile, or was merged onto another incumbent
        if self._incumbent_revoked(found):
            return
        if found.outcome is Outcome.OK:
            self._judging.passed(number, found.trials)
            return
        self._judging.end(number, self._refused(experiment, found, len(experiment.own)))

    def _incumbent_revoked(self, found: Found) -> bool:
        """Take back the incumbent if its training for unseen text was invalid; False if nothing was."""
        if found.failed is None or found.outcome is not Outcome.OK:
            return False
        trial, result = found.failed
        return result.outcome is Outcome.INVALID and self.revoked(Ended(trial, result), recorded=False)

    def _refused(self, experiment: Experiment, found: Found, trials: int) -> Verdict:
        """The verdict on a candidate that unseen text speaks against; an invalid one is suspected."""
        kind = VerdictKind.DISCARD if found.outcome is Outcome.PRUNE else VerdictKind(found.outcome)
        if kind is VerdictKind.INVALID:
            suspect(self._state, experiment)
        return Verdict(kind, reason=found.reason, trials=trials)

    def _noted(self, experiment: Experiment, said: str, gains: tuple[GuardGain, ...]) -> Experiment:
        """Add to the verdict of a keep what a check has shown."""
        verdict = experiment.verdict
        assert verdict is not None
        reason = verdict.reason if said in verdict.reason else f"{verdict.reason}; {said}"
        if (reason, gains) == (verdict.reason, verdict.guards):
            return experiment
        return self._journal.judged(experiment.number, replace(verdict, reason=reason, guards=gains))

    def _forbid(self, experiment: Experiment, said: str, gains: tuple[GuardGain, ...]) -> None:
        """Do not keep what loses on a guard; what is held waits for a person."""
        number, verdict = experiment.number, experiment.verdict
        assert verdict is not None
        hold = self._state.config.guards.action == "hold"
        reason = f"{HELD}: {said}; to have it: autoresearch guards release {number}" if hold else said
        self._checked = number
        kind = VerdictKind.DISCARD
        self._veto(experiment, replace(verdict, kind=kind, reason=reason, guards=gains, levels=None))

    def _veto(self, experiment: Experiment, void: Verdict) -> None:
        veto(self._state, experiment.number, void, self._judging.needless)
        self._judging.go_on(stored_judge(self._state))

    def record(self, experiment: Experiment) -> Experiment:
        """Write the verdict into the commit, and move the branch if the candidate is kept."""
        begun, repository, task = now(), self._state.repository, self._state.task
        message = commit_message(experiment, task.metric, self._journal.info().trust)
        final = repository.reword(experiment.commit, experiment.parent, message, experiment.created)
        experiment = self._journal.recorded(experiment.number, final)
        repository.update_refs({self._state.ref(experiment.number): final})
        if experiment.kept and "checked out" in (told := move_branch(self._journal, repository)):
            self._view.message(told, warning=True)
        try:
            self._proposer.tell(experiment)
        except Exception as error:  # it can read the verdict in the history
            what = one_line(f"{type(error).__name__}: {error}", 300)
            self._view.message(f"{self._proposer.name} did not take the verdict ({what}).", warning=True)
        if self._state.tried - self._packed >= PACK_EVERY:
            self._pack()
        score, noise = self._state.standing()
        self._journal.mark(experiment.number, None, "record", begun, now())
        self._view.verdict(experiment, score, noise, self._state.ask_needed())
        self._mirror.sync(self._journal)
        return experiment

    def _pack(self) -> None:
        """Put the latest objects in git into one file: each experiment leaves five files."""
        first, self._packed = max(1, self._packed - PACK_EVERY), self._state.tried
        try:  # some of the experiments before were under way the last time
            pack(self._journal, self._state.repository, range(first, self._packed + 1))
        except (UserError, OSError) as error:  # they stay as they are
            self._view.message(f"Git did not pack the candidates ({error}).", warning=True)

    def check_kept(self) -> Steps[None]:
        """Run kept changes again whose author is suspected, and now and then the incumbent on an old seed."""
        while numbers := read_rechecks(self._journal):
            kept = self._journal.experiment(numbers[0])
            if kept.kept:
                want = TrialRequest(Arm.INCUMBENT, kept.trials[-1].seed)
                ended = yield partial(self._scheduler.start, kept.number, want, kept.commit)
                if ended.result.outcome is not Outcome.INVALID or not self.revoked(ended):
                    self._view.trial(self._journal.finish_trial(ended.trial, ended.result))
            left = [number for number in read_rechecks(self._journal) if number != kept.number]
            self._journal.set(RECHECKS, json.dumps(left))
        tip = self._state.incumbent
        if reason := (yield from self._reproduction.check()):
            trial = replace(tip.trials[-1], commit=tip.commit)
            self.revoked(Ended(trial, Measurement(Outcome.INVALID, reason=reason)), recorded=False)

    def revoked(self, ended: Ended, *, recorded: bool = True) -> bool:
        """Take back the kept change whose re-run was invalid; False if it is the starting script.

        Args:
            ended: The re-run.
            recorded: Whether it is a trial of the journal.
        """
        found = (e for e in self._journal.experiments() if e.kept and e.commit == ended.trial.commit)
        invalid = next(found, None)
        if invalid is None:
            return False
        reason, known = ended.result.reason, (ended.trial, ended.result) if recorded else None
        revoke(self._state, invalid.number, reason, known, self._judging.needless)
        where = settle(self._state)
        self._judging.go_on(stored_judge(self._state))
        self._view.message(
            f"Experiment {invalid.number} was kept, and is invalid: {reason}. {where}", warning=True
        )
        self._mirror.sync(self._journal)
        return True
