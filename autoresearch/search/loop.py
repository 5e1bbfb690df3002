"""The loop of a search: trains the baseline, then proposes, commits, judges and records, repeatedly.

This module owns the order of the steps: each is written to the journal before it is taken. A search that was
killed at any instant continues where the journal ends: `run` first finishes the open experiment, then asks
for more. Decisions are serial; the trials of one decision, and the proposal for the next experiment, run at
the same time (`scheduler`, `lookahead`).
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from autoresearch.clock import now
from autoresearch.config import Config
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Executor
from autoresearch.judge import TrialRequest
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.propose.tune.request import with_tuning
from autoresearch.search.admission import Admission, FailureAlarm
from autoresearch.search.create import earlier_judge
from autoresearch.search.diagnosis import diagnose
from autoresearch.search.lookahead import Answered, Lookahead
from autoresearch.search.observers import EmptyInbox, Inbox, Mirror, View
from autoresearch.search.recovery import recover
from autoresearch.search.reproduction import check_reproduction
from autoresearch.search.revocation import revoke, revoke_claimed, settle, stored_judge, suspect, veto
from autoresearch.search.scheduler import Ended, Scheduler, Stopped
from autoresearch.search.scores import ScoreJudge
from autoresearch.search.state import SearchState
from autoresearch.search.trials import TrialRules
from autoresearch.search.unseen import check_unseen
from autoresearch.store.commits import commit_message, move_branch
from autoresearch.store.files import document_losses, losses_folder
from autoresearch.store.git import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import other_runners
from autoresearch.store.notes import RECHECKS, read_rechecks
from autoresearch.store.searches import STOPPED
from autoresearch.tasks.base import Task
from autoresearch.text import one_line
from autoresearch.types import Arm, Experiment, Measurement, Outcome, State, Verdict, VerdictKind

NEIGHBOUR_SECONDS = 60.0
"""Seconds between two looks for other searches on this machine."""


@dataclass
class Search:
    """One search and its parts.

    Attributes:
        config: Its configuration.
        task: The task that it improves.
        repository: The repository of its commits.
        journal: Its journal, in the folder of the search.
        executor: Runs its trials; may serve other searches too.
        proposer: Suggests changes.
        mirror: Shows the journal elsewhere.
        view: Shows a person what happens.
        inbox: Messages of people.
    """

    config: Config
    task: Task
    repository: Repository
    journal: Journal
    executor: Executor
    proposer: Proposer
    mirror: Mirror
    view: View
    inbox: Inbox = field(default_factory=EmptyInbox)

    def __post_init__(self) -> None:
        self.state = SearchState(self.config, self.journal, self.repository, self.task)
        self.rules = TrialRules(self.state)
        self.scheduler = Scheduler(self.state, self.rules, self.executor, self.view, self.inbox)
        self.admission = Admission(self.state, self.executor.tryout)
        self._neighbours: dict[int, str] = {}
        self._look_again = 0.0

    @property
    def folder(self) -> Path:
        """The folder of everything that it writes."""
        return self.journal.path.parent

    def run(self) -> bool:
        """Search until the experiments, the time or the proposer run out, or a person stops it.

        Returns:
            Whether it ended by itself.

        Raises:
            UserError: If the machine fails, or the starting script does not train.
        """
        self.deadline = now() + 60 * self.config.minutes if self.config.minutes else float("inf")
        told, until = self.scheduler.events, self.deadline
        self.lookahead = Lookahead(self.proposer, self.state, self.admission, self.inbox, told, until)
        self.alarm = FailureAlarm(self.config.alarm)
        by_itself = True
        try:
            self._search()
        except Stopped as stopped:
            self.view.message(str(stopped))
            by_itself = stopped.by_itself
        except ProposerError as error:
            self.view.message(f"No further proposal: {error}", warning=True)
            by_itself = error.exhausted
        finally:
            self.lookahead.close()
            self.scheduler.close()
        self.journal.set(STOPPED, "" if by_itself else "yes")
        self.journal.update(finished=now())
        self.mirror.sync(self.journal)
        return by_itself

    def _search(self) -> None:
        self.journal.update(finished=None)
        recover(self.state, self.view)
        revoke_claimed(self.state)
        settle(self.state)
        self.mirror.sync(self.journal)
        self._tell_of_neighbours()
        self.judge = self._baseline()
        if 0 < self.config.experiments <= self.state.tried and not self.state.unfinished:
            done = f"{self.config.name} has tried its {self.config.experiments} experiments already."
            self.view.message(f"{done} For more of them: experiments={2 * self.config.experiments}")
        while True:
            if (experiment := self.state.unfinished) is None:
                self._recheck()
                self._repeat()
            self.scheduler.checkpoint()  # also after the last experiment, before the search ends
            if experiment is None and self.state.tried >= self.config.experiments:
                break
            self._tell_of_neighbours()
            if experiment is None:
                experiment = self._propose()
            if experiment.state is State.PROPOSED:
                experiment = self._commit(experiment)
            if experiment.state is State.COMMITTED:
                experiment = self._judge(experiment)
            if experiment.kept:
                experiment = self._check_unseen(experiment)
            if experiment.state is State.JUDGED:
                self._record(experiment)
            self.alarm.note(experiment)

    # The steps, in order

    def _baseline(self) -> ScoreJudge:
        """Train the starting script with several seeds: the first incumbent, and the noise."""
        commit = self.journal.info().base_commit
        seeds = [1000 * self.config.seed + i for i in range(self.config.baselines)]
        scores = {t.seed: t.score for t in self.journal.experiment(0).trials if t.score is not None}
        missing = [seed for seed in seeds if seed not in scores]
        starts = (self.scheduler.start(0, TrialRequest(Arm.BASELINE, seed), commit) for seed in missing)
        for ended in self.scheduler.run_all(starts):
            self.view.trial(self.journal.finish_trial(ended.trial, ended.result))
            if ended.result.score is None:
                raise UserError(
                    f"The starting script does not get through a trial: {ended.result.reason}",
                    f"Try it: {self.task.by_hand}. It ended with:\n{ended.result.log[-2000:]}",
                    code=3,
                )
            scores[ended.trial.seed] = ended.result.score
        self.rules.limit_time()
        if state := self.journal.judge_state():
            return ScoreJudge.from_json(state, self.task.metric)
        trained = {t.seed: t.id for t in self.journal.experiment(0).trials if t.score is not None}
        runs = {seed: scores[seed] for seed in seeds}  # in order, whatever was lost
        documents = {seed: document_losses(losses_folder(self.folder, trained[seed])) for seed in seeds}
        judge = ScoreJudge.create(self.task.metric, runs, self.config.judge, documents)
        name, state = earlier_judge(self.journal)
        if state and judge.learn_from(state):
            self.view.message(f"What the search {name} found of the noise is the prior of this one.")
        self.journal.set("judge", judge.to_json())
        self.mirror.sync(self.journal)
        return judge

    def _propose(self) -> Experiment:
        """The next experiment: from a draft that still fits, or from a new proposal."""
        self.view.proposing(self.state.tried + 1, self.proposer.name)
        while True:
            self._look_at_the_clock()
            for draft in self.journal.drafts():
                if draft.proposal.diagnostic:
                    diagnose(self.state, self.admission, self.scheduler, self.view, draft)
                    continue
                try:
                    return self.admission.adopt(draft, self.state.incumbent.commit)
                except Refused as error:
                    self.view.message(
                        f"Dropped a queued proposal ({draft.proposal.hypothesis}): {error}", warning=True
                    )
                    self.journal.drop(draft, str(error))
            self.scheduler.checkpoint()
            self.lookahead.collect()
            if not self.lookahead.busy:
                self.lookahead.ask()
            while self.lookahead.busy:
                if isinstance(event := self.scheduler.next(), Answered):
                    self.lookahead.answered(event)
                self.scheduler.checkpoint()  # a proposer may be unreachable for hours
                self._look_at_the_clock()

    def _commit(self, experiment: Experiment) -> Experiment:
        """Turn the proposal into a commit that stays reachable, whatever the verdict."""
        candidate = self.state.candidate_of(experiment)
        message, when = commit_message(experiment, self.task.metric), experiment.created
        commit = self.repository.commit(candidate.parent, candidate.sources, message, when)
        self.repository.update_refs({self._ref(experiment.number): commit})
        return self.journal.committed(experiment.number, commit, candidate.diff)

    def _judge(self, experiment: Experiment) -> Experiment:
        """Run the trials that the judge asks for, on all free places, until it decides."""
        self.view.experiment(experiment)
        self.mirror.sync(self.journal)
        kind = experiment.proposal.category if experiment.proposal else ""
        self.judge.candidate(self.state.candidate_of(experiment).growth, kind)
        self.lookahead.ask_ahead(len(self.executor.places))
        again = deque(self.judge.unanswered)  # requested before an interruption
        running: dict[int, TrialRequest] = {}
        while experiment.verdict is None:
            self._start_wanted(experiment, again, running)
            match self.scheduler.next():
                case Ended() as ended:
                    experiment = self._observe(ended, running.pop(ended.trial.id), running)
                case Answered() as answered:
                    self.lookahead.answered(answered)
                    # The answer may have been refused: ask again, with the latest context.
                    self.lookahead.ask_ahead(len(self.executor.places))
        self.scheduler.cancel(running)
        return experiment

    def _start_wanted(
        self, experiment: Experiment, again: deque[TrialRequest], running: dict[int, TrialRequest]
    ) -> None:
        """Start the trials that the judge asks for, while places are free.

        Args:
            experiment: Number of the candidate's experiment.
            again: Requests whose trials an interruption ended.
            running: Requests of the trials under way, by trial number.
        """
        while self.scheduler.room and self.scheduler.may_start():
            want = again.popleft() if again else self.judge.next()
            if want is None:
                return
            commit = self.state.incumbent.commit if want.arm is Arm.INCUMBENT else experiment.commit
            running[self.scheduler.start(experiment.number, want, commit).id] = want

    def _observe(self, ended: Ended, want: TrialRequest, others: Mapping[int, TrialRequest]) -> Experiment:
        """Show the judge a result; record it, the judge, and any verdict in one transaction."""
        begun, trial = now(), ended.trial
        if ended.result.outcome is Outcome.INVALID and want.arm is Arm.INCUMBENT and self._revoked(ended):
            return self.journal.experiment(trial.experiment)
        tried = self.journal.experiment(trial.experiment).trials
        earlier = [t.result for t in tried if t.result and t.arm is not Arm.INCUMBENT]
        documents = document_losses(losses_folder(self.folder, trial.id))
        verdict = self.judge.observe(want, ended.result, others.values(), earlier, documents)
        verdict = with_tuning(verdict, trial.experiment, self.journal.experiments(), self.task.metric)
        self.journal.mark(trial.experiment, trial.id, "judge", begun, now())
        if want.arm is Arm.CONFIRM and ended.result.outcome is Outcome.INVALID:
            suspect(self.state, self.journal.experiment(trial.experiment))
        self.view.trial(self.journal.finish_trial(trial, ended.result, self.judge.to_json(), verdict))
        return self.journal.experiment(trial.experiment)

    def _check_unseen(self, experiment: Experiment) -> Experiment:
        """Let a keep stand only if its gain is there on text that no program has seen."""
        verdict, found = experiment.verdict, check_unseen(self.state, self.scheduler, experiment)
        assert verdict is not None
        if found.failed and found.outcome is Outcome.OK and found.failed[1].outcome is Outcome.INVALID:
            trial, result = found.failed
            if self._revoked(Ended(trial, result), recorded=False):
                return self.journal.experiment(experiment.number)
        if found.outcome is Outcome.OK:
            if found.reason in verdict.reason:
                return experiment
            reason = f"{verdict.reason}; {found.reason}"
            return self.journal.judged(experiment.number, replace(verdict, reason=reason))
        kind = VerdictKind.DISCARD if found.outcome is Outcome.PRUNE else VerdictKind(found.outcome)
        if kind is VerdictKind.INVALID:
            suspect(self.state, experiment)
        veto(self.state, experiment.number, Verdict(kind, reason=found.reason, trials=verdict.trials))
        self.judge = stored_judge(self.state)
        return self.journal.experiment(experiment.number)

    def _recheck(self) -> None:
        """Run kept changes again whose author has had something else that was invalid."""
        while numbers := read_rechecks(self.journal):
            kept = self.journal.experiment(numbers[0])
            if kept.kept:
                want = TrialRequest(Arm.INCUMBENT, kept.trials[-1].seed)
                ended = self.scheduler.run_one(partial(self.scheduler.start, kept.number, want, kept.commit))
                if ended.result.outcome is not Outcome.INVALID or not self._revoked(ended):
                    self.view.trial(self.journal.finish_trial(ended.trial, ended.result))
            left = [number for number in read_rechecks(self.journal) if number != kept.number]
            self.journal.set(RECHECKS, json.dumps(left))

    def _repeat(self) -> None:
        """Run the incumbent again on an old seed, now and then, and take it back if its score is another."""
        if reason := check_reproduction(self.state, self.scheduler):
            tip = self.state.incumbent
            trial = replace(tip.trials[-1], commit=tip.commit)
            self._revoked(Ended(trial, Measurement(Outcome.INVALID, reason=reason)), recorded=False)

    def _revoked(self, ended: Ended, *, recorded: bool = True) -> bool:
        """Take back the kept change whose re-run was invalid; False if it is the starting script.

        Args:
            ended: The re-run.
            recorded: Whether it is a trial of the journal.
        """
        found = (e for e in self.journal.experiments() if e.kept and e.commit == ended.trial.commit)
        invalid = next(found, None)
        if invalid is None:
            return False
        reason = ended.result.reason
        revoke(self.state, invalid.number, reason, (ended.trial, ended.result) if recorded else None)
        where = settle(self.state)
        self.judge = stored_judge(self.state)
        self.view.message(
            f"Experiment {invalid.number} was kept, and is invalid: {reason}. {where}", warning=True
        )
        self.mirror.sync(self.journal)
        return True

    def _record(self, experiment: Experiment) -> None:
        """Write the verdict into the commit, and move the branch if the candidate is kept."""
        begun = now()
        message = commit_message(experiment, self.task.metric, self.journal.info().trust)
        final = self.repository.reword(experiment.commit, experiment.parent, message, experiment.created)
        experiment = self.journal.recorded(experiment.number, final)
        self.repository.update_refs({self._ref(experiment.number): final})
        if experiment.kept and "checked out" in (told := move_branch(self.journal, self.repository)):
            self.view.message(told, warning=True)
        try:
            self.proposer.tell(experiment)
        except Exception as error:  # it can read the verdict in the history
            what = one_line(f"{type(error).__name__}: {error}", 300)
            self.view.message(f"{self.proposer.name} did not take the verdict ({what}).", warning=True)
        score, noise = self.state.standing()
        self.journal.mark(experiment.number, None, "record", begun, now())
        self.view.verdict(experiment, score, noise)
        self.mirror.sync(self.journal)

    def _look_at_the_clock(self) -> None:
        """Stop asking for candidates when the time is over."""
        if now() > self.deadline:
            raise Stopped(f"The {self.config.minutes:g} minutes are over.", by_itself=True)

    def _tell_of_neighbours(self) -> None:
        """Tell once of each other search on this machine, however late it began; looks once a minute."""
        if time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + NEIGHBOUR_SECONDS
        others = other_runners()
        for pid, runner in others.items():
            if pid not in self._neighbours:
                self.view.message(
                    f"Another search runs on this machine: {runner}. Both become slower; limits on time "
                    "allow for it. To leave it room, use fewer places: executor.workers, executor.devices.",
                    warning=True,
                )
        self._neighbours = others

    def _ref(self, number: int) -> str:
        return f"refs/autoresearch/{self.config.name}/{number:04d}"
