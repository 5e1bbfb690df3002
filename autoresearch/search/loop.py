"""The loop of a search: trains the baseline, then proposes, commits, judges and records, repeatedly.

This module owns the order of the steps: each is written to the journal before it is taken. A search that was
killed at any instant continues where the journal ends: with the experiments that are open. The loop starts
all trials that can start, then waits for one event, for ever: a trial has ended, or a proposal is there. Not
covered: the first trials (`baseline`), those of candidates (`judging`), what follows from a verdict
(`conclusion`), and proposals made ahead (`lookahead`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoresearch.clock import now
from autoresearch.config import Config
from autoresearch.errors import Refused, UserError
from autoresearch.execute.base import Executor
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.search.baseline import train_baseline
from autoresearch.search.checks.admission import Admission, FailureAlarm
from autoresearch.search.checks.revocation import revoke_claimed, settle
from autoresearch.search.conclusion import Conclusion
from autoresearch.search.devices import compare_devices
from autoresearch.search.diagnosis import diagnose
from autoresearch.search.judging import Judging
from autoresearch.search.lookahead import Answered, Lookahead
from autoresearch.search.observers import EmptyInbox, Inbox, Mirror, View
from autoresearch.search.recovery import recover
from autoresearch.search.scheduler import Scheduler, Stopped
from autoresearch.search.state import SearchState
from autoresearch.search.steps import Ended, Job, Steps
from autoresearch.search.trials import TrialRules
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.store.lock import other_runners
from autoresearch.store.searches import STOPPED
from autoresearch.tasks.base import Task
from autoresearch.types import Arm, Outcome, State, in_order

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
        self.job: Job | None = None
        self._limit: int | None = None
        self._told = False
        self._exhausted_at = -1
        self._neighbours: dict[int, str] = {}
        self._look_again = 0.0
        self._refused: set[str] = set()

    @property
    def folder(self) -> Path:
        """The folder of everything that it writes."""
        return self.journal.path.parent

    def run(self, until: int | None = None) -> bool:
        """Search until the experiments, the time or the proposer run out, or a person stops it.

        Args:
            until: Pause when so many experiments were tried; a later call goes on.

        Returns:
            Whether it ended by itself.

        Raises:
            UserError: If the machine fails, or the starting script does not train.
        """
        if self._limit is None:
            self.deadline = now() + 60 * self.config.minutes if self.config.minutes else float("inf")
        self._limit = min(self.config.experiments, until or self.config.experiments)
        told, end = self.scheduler.events, self.deadline
        self.lookahead = Lookahead(self.proposer, self.state, self.admission, self.inbox, told, end)
        self.judging = Judging(self.state, self.scheduler, self.admission, self.view)
        self.conclusion = Conclusion(
            self.state, self.scheduler, self.judging, self.proposer, self.view, self.mirror
        )
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
        pauses = by_itself and self._limit < self.config.experiments and self.state.tried >= self._limit
        self.journal.set(STOPPED, "" if by_itself and not pauses else "yes")
        self.journal.update(finished=now())
        self.mirror.sync(self.journal)
        return by_itself

    def _search(self) -> None:
        self.journal.update(finished=None)
        recover(self.state, self.view)
        for experiment in self.state.open:
            if experiment.state is State.PROPOSED:
                self.judging.commit(experiment)
        revoke_claimed(self.state)
        settle(self.state)
        self.mirror.sync(self.journal)
        self._tell_of_neighbours()
        self.judging.go_on(train_baseline(self.state, self.scheduler, self.rules, self.view))
        self.mirror.sync(self.journal)
        self._look_ahead()
        if 0 < self.config.experiments <= self.state.tried and not self.state.open:
            done = f"{self.config.name} has tried its {self.config.experiments} experiments already."
            self.view.message(f"{done} For more of them: experiments={2 * self.config.experiments}")
        while True:
            self._conclude()
            self._compare_devices()
            if self.job is None and (not self.state.open or self.scheduler.places > 1):
                self._begin(self.conclusion.check_kept())
            if not self.scheduler.busy:
                self.scheduler.checkpoint()  # also after the last experiment, before the search ends
            self._tell_of_neighbours()
            self._start()
            if any(e.verdict and not e.kept for e in self.state.open):
                continue  # one was withdrawn
            if not (self.state.open or self.job or self.scheduler.busy) and self._is_over():
                break
            self._wait()

    # The steps

    def _conclude(self) -> None:
        """Record verdicts. A keep is checked first.

        A judge that can waits with it, and other trials go on; else nothing begins meanwhile.
        """
        while self.job is None and (held := self.judging.judge.held):
            self._begin(self.conclusion.check_held(self.journal.experiment(held[0])))
        for number in [e.number for e in in_order(self.state.open) if e.verdict is not None]:
            experiment = self.journal.experiment(number)
            if self.conclusion.must_check(experiment):
                if self.job is not None:
                    continue  # one after the other
                self._begin(self.conclusion.check(experiment))
                if self.job is not None:
                    continue
                experiment = self.journal.experiment(number)
            if experiment.state is State.JUDGED:
                self.alarm.note(self.conclusion.record(experiment))

    def _begin(self, steps: Steps[None]) -> None:
        """Begin trainings that the judge has not asked for; they may be over before any is started."""
        job = Job(steps)
        self.job = None if job.over else job

    def _start(self) -> None:
        """Start all trials that can start now."""
        judge, kinds = self.judging.judge, self.state.devices
        while (free := self.scheduler.free_devices) and self.scheduler.may_start():
            job = self.job
            if job is not None and job.start is not None and self.scheduler.room_on(job.device):
                job.begin()
                continue
            if any(e.kept for e in self.state.open):
                return
            usable = dict.fromkeys(kinds.name(device) for device in free if kinds.is_known(device))
            if not any(self._start_on(device) for device in usable if judge.use_device(device)):
                return

    def _start_on(self, device: str) -> bool:
        """Start a trial on a kind of device, or announce a candidate; whether there was anything to do.

        Args:
            device: As the judge calls it; it was told.
        """
        if self.judging.judge.wants_candidate and self._announce():
            return True
        return self.judging.start(device)

    def _compare_devices(self) -> None:
        """Train the starting script on a further kind of device, if there is one.

        Raises:
            UserError: If it trains on none.
        """
        if self.job is not None:
            return
        places, devices, start = self.executor.places, self.state.devices, self.scheduler.start_unrecorded
        steady = self.task.deterministic
        self._begin(compare_devices(devices, places, start, self.view, steady=steady))
        if places and all(place.device in devices.unfit for place in places):
            raise UserError(
                f"The starting script trains on no device that there is: {places[0].device}: "
                f"{devices.unfit[places[0].device]}",
                f"Try it: {self.task.by_hand}.",
                code=3,
            )
        if self.job is None:
            names = {devices.name(place.device) for place in places if devices.is_known(place.device)}
            self.judging.use_devices(names)
            for device in sorted(names - self._refused):
                if not self.judging.judge.use_device(device):
                    self._refused.add(device)
                    said = "cannot compare within kinds of devices, so there are no trials on"
                    self.view.message(f"The judge {said} {device}.", warning=True)

    def _wait(self) -> None:
        """Wait for an event, and act on it."""
        match self.scheduler.next():
            case Ended() as ended if self.job is not None and ended.trial is self.job.trial:
                self.view.trial(replace(ended.trial, finished=now()))
                self.job.ended(ended)
                self.job = None if self.job.over else self.job
            case Ended() as ended:
                invalid = ended.result.outcome is Outcome.INVALID and ended.trial.arm is Arm.INCUMBENT
                if not (invalid and self.conclusion.revoked(ended)):
                    self.judging.observe(ended)
                else:
                    self._give_up_job()  # it rests on what is void now
            case Answered() as answered:
                self.lookahead.answered(answered)
                self._look_ahead()  # the answer may have been refused

    def _give_up_job(self) -> None:
        if self.job is not None:
            trials = [self.job.trial] if self.job.trial else []
            self.journal.cancelled([trial.id for trial in trials])
            self.scheduler.cancel(trials)
            self.job.close()
            self.job = None

    # Candidates

    @property
    def _in_time(self) -> bool:
        return now() <= self.deadline

    def _is_over(self) -> bool:
        """Whether nothing more will be tried; nothing is under way.

        Raises:
            Stopped: If the time is over.
        """
        if self.state.tried >= (self._limit or 0):
            return True
        if not self._in_time:
            raise Stopped(f"The {self.config.minutes:g} minutes are over.", by_itself=True)
        return False

    def _announce(self) -> bool:
        """Announce one more candidate to the judge, if there is a draft that still fits; else ask for one."""
        if self.state.tried >= (self._limit or 0) or not self._in_time:
            return False
        if not self.state.open and not self._told:
            self._told = True
            self.view.proposing(self.state.tried + 1, self.proposer.name)
        for draft in self.journal.drafts():
            if draft.proposal.diagnostic:
                if self.job is None:
                    self._begin(diagnose(self.state, self.admission, self.scheduler, self.view, draft))
                    if self.job is not None:
                        return True  # its training is started first
                continue
            try:
                experiment = self.admission.adopt(draft, self.state.incumbent.commit)
            except Refused as error:
                said = f"Dropped a queued proposal ({draft.proposal.hypothesis}): {error}"
                self.view.message(said, warning=True)
                self.journal.drop(draft, str(error))
                continue
            self._told = False
            self.judging.announce(self.judging.commit(experiment))
            self.mirror.sync(self.journal)
            self._look_ahead()
            return True
        self._ask()
        return False

    def _look_ahead(self) -> None:
        """Ask for proposals ahead of their turn while candidates are in flight."""
        if self.judging.judge.in_flight:
            self.lookahead.ask_ahead(self.scheduler.places)

    def _ask(self) -> None:
        """Ask for a proposal, unless a question is under way.

        Raises:
            ProposerError: If there will be none, and nothing is in flight whose verdict might change that.
        """
        open = self.state.open
        decided = self.state.tried - len(open)
        under_way = bool(open or self.job)
        if self.lookahead.busy or (under_way and decided == self._exhausted_at):
            return
        try:
            self.lookahead.collect()
        except ProposerError:
            if not under_way:
                raise
            self._exhausted_at = decided
        else:
            self.lookahead.ask()
            if self.proposer.questions > 1:
                self.lookahead.ask_ahead(self.scheduler.places)  # every place waits

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
