"""The loop: propose, apply, train, score, judge, record.

Owns the order of the steps and nothing else: each step lives in a room of its own, and each is written to
the journal before it is acted on. A search killed at any instant goes on where the journal ends: `run`
first finishes what was begun, then asks for more. Decisions are serial; the trials of one decision, and the
proposal for the next experiment, run beside each other (`workers`, `ahead`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty

from autoresearch.config import Config
from autoresearch.edit.apply import apply
from autoresearch.edit.python import net_lines
from autoresearch.errors import Refused, UserError
from autoresearch.execute.local import Answered, Events, Finished, Runner, Said, Sign
from autoresearch.judge import Judge, Observation, TrialRequest, create_judge
from autoresearch.propose.base import Proposer, ProposerError
from autoresearch.search.admission import Gate
from autoresearch.search.alarm import Alarm
from autoresearch.search.early import Early
from autoresearch.search.interfaces import Inbox, Mirror, NoInbox, View
from autoresearch.search.lookahead import Ahead
from autoresearch.search.recovery import recover
from autoresearch.search.state import SearchState
from autoresearch.search.trials import Trials
from autoresearch.store.commits import commit_message
from autoresearch.store.files import sampling_error
from autoresearch.store.git import Repository, Worktree
from autoresearch.store.journal import Journal
from autoresearch.tasks import create_task
from autoresearch.types import (
    Arm,
    Experiment,
    Measurement,
    Outcome,
    Proposal,
    State,
    Trial,
    Verdict,
    VerdictKind,
)

STOPPED = "Stopped, as asked; the same command goes on."


ATTENTION = 1.0
"""Seconds between two looks at the inbox while a proposer is waited for."""


class Stopped(Exception):
    """Ends the search at the next boundary of a step; the message says why.

    Attributes:
        by_itself: Whether it was to end then, and nobody asked for it.
    """

    def __init__(self, why: str = STOPPED, by_itself: bool = False) -> None:
        super().__init__(why)
        self.by_itself = by_itself


@dataclass(frozen=True)
class Extra:
    """A training that the judge has not asked for.

    Attributes:
        trial: What to train.
        splits: What to score it on.
        keep: Folder for the losses of each document.
    """

    trial: Trial
    splits: Sequence[str]
    keep: Path


@dataclass
class Search:
    """One search and all it works with; `runners` names the places where trials can run."""

    config: Config
    repository: Repository
    worktree: Worktree
    journal: Journal
    folder: Path
    runners: Mapping[str, Runner]
    proposer: Proposer
    mirror: Mirror
    view: View
    inbox: Inbox = field(default_factory=NoInbox)

    def __post_init__(self) -> None:
        self.events: Events = Events()
        self.task = create_task(self.config)
        self.past = SearchState(self.journal, self.repository, self.task.editable)
        self.trials = Trials(self.config, self.journal, self.folder, self.runners, self._export, self.events)
        place = self.folder / "trials" / "smoke"
        alarm = self.config.alarm
        self.gate = Gate(self.past, self.repository, place, self._export, self.runner.smoke, alarm)
        self.early = Early(self.trials, self.journal, self.past, self.gate)

    @property
    def runner(self) -> Runner:
        """What trains at the first place."""
        return next(iter(self.runners.values()))

    def run(self) -> bool:
        """Search until the experiments, the time or the proposer run out, or a person stops it.

        Returns:
            Whether it ended by itself.

        Raises:
            UserError: If the host fails, or the starting script does not train.
        """
        self.ahead = Ahead(self.proposer, self.journal, self.events)
        self.alarm = Alarm(self.config.alarm)
        self.deadline = time.time() + 60 * self.config.minutes if self.config.minutes else float("inf")
        by_itself = True
        try:
            self._search()
        except Stopped as stopped:
            self.view.message(str(stopped))
            by_itself = stopped.by_itself
        except ProposerError as error:
            self.view.message(f"No further proposal: {error}", warning=True)
        finally:
            self.ahead.close()
            self.close()
        self.early.give_up()
        self.journal.update(finished=time.time())
        self.mirror.sync(self.journal)
        return by_itself

    def close(self) -> None:
        """Stop whatever runs. Nothing is lost: what had begun is begun again by the next run."""
        self.trials.close()

    def train(self, asked: Iterable[Extra]) -> Iterator[tuple[Trial, Measurement]]:
        """Trainings after the search, for instance for a claim, beside each other where there is room.

        Args:
            asked: What to train; the next one is asked for when it can begin at once.

        Yields:
            Each with its result, in the order in which they end.

        Raises:
            Stopped: If a person stops it; those under way have ended by then.
        """

        def begun() -> Iterator[Trial]:
            for extra in asked:
                self.trials.start(extra.trial, extra.splits, extra.keep)
                yield extra.trial

        for trial, result in self._beside(begun()):
            self.view.trial(replace(trial, finished=time.time(), result=result))
            yield trial, result

    def _search(self) -> None:
        recover(self.journal, self.repository, self.folder, self.past, self.view)
        self.mirror.sync(self.journal)  # a new store takes a while; the baseline gives it the time
        self.judge = self._baseline()
        while (experiment := self.past.unfinished) or self.past.tried < self.config.experiments:
            self._step()
            if experiment is None:
                experiment = self._propose()
            if experiment.state is State.PROPOSED:
                experiment = self._commit(experiment)
            if experiment.state is State.COMMITTED:
                self._look_ahead()
                experiment = self._judge(experiment)
            self._record(experiment)
            self.alarm.note(experiment)

    # The steps, in order

    def _baseline(self) -> Judge:
        """Train the starting script with several seeds: the first incumbent, and the noise."""
        commit = self.journal.info().base_commit
        seeds = [1000 * self.config.seed + i for i in range(self.config.baselines)]
        scores = {t.seed: t.score for t in self.journal.experiment(0).trials if t.score is not None}
        missing = [seed for seed in seeds if seed not in scores]
        for trial, result in self._beside(
            self.trials.begin(0, Arm.BASELINE, seed, commit) for seed in missing
        ):
            self.view.trial(self.journal.finish_trial(trial, result))
            if result.score is not None:
                scores[trial.seed] = result.score
            else:
                raise UserError(
                    f"The starting script does not get through a trial: {result.reason}",
                    f"Try it: {self.task.by_hand}. It ended with:\n{result.log[-2000:]}",
                    code=3,
                )
        self.trials.limit_time()
        if state := self.journal.judge_state():
            return Judge.from_json(state)
        trained = {t.seed: t.id for t in self.journal.experiment(0).trials if t.score is not None}
        tau = sampling_error(self.folder, [trained[seed] for seed in seeds])  # in order, whatever was lost
        judge = create_judge(baseline=[(seed, scores[seed]) for seed in seeds], tau=tau, **self.config.judge)
        self.journal.set("judge", judge.to_json())
        self.mirror.sync(self.journal)
        return judge

    def _propose(self) -> Experiment:
        """The next experiment: a draft that was made ahead and still fits, or one that is made now."""
        self.view.proposing(self.past.tried + 1, self.proposer.name)
        while True:
            self._look_at_the_clock()
            for draft in self.journal.drafts():
                parent = self.past.incumbent.commit
                try:
                    proposal = self.gate.rebase(draft, parent)
                    fingerprint = self.gate.check(proposal, parent)
                except Refused as error:
                    reason = f"Gave up a proposal made ahead ({draft.proposal.hypothesis}): {error}"
                    self.view.message(reason, warning=True)
                    self.journal.drop(draft, str(error))
                else:
                    return self.journal.adopt(draft, proposal, parent, fingerprint)
            self._step()
            self.ahead.collect()
            if not self.ahead.busy:
                self._ask()
            while self.ahead.busy:
                self._ended(ATTENTION)  # a trial that was dismissed may end meanwhile: its place is free then
                self._step()  # a proposer may be out of reach for hours; a person is listened to meanwhile
                self._look_at_the_clock()

    def _commit(self, experiment: Experiment) -> Experiment:
        """Turn the proposal into a commit that stays reachable, whatever becomes of it."""
        assert experiment.proposal
        sources = apply(self.past.sources(experiment.parent), experiment.proposal.edits)
        message = commit_message(experiment, self.journal.info().metric)
        commit = self.worktree.commit(experiment.parent, sources, message, experiment.created)
        diff = self.repository.diff(experiment.parent, commit)
        self.repository.update_refs({self._ref(experiment.number): commit})
        return self.journal.committed(experiment.number, commit, diff)

    def _look_ahead(self) -> None:
        """Have the next proposals thought of while this experiment is trained, one for each idle place."""
        drafts, places = len(self.journal.drafts()), len(self.runners)
        wanted = max(self.config.lookahead, places - 1) if self.config.lookahead else 0
        if self.proposer.instant and places == 1:
            wanted = 0  # it would know less, and nothing would be gained
        in_time = self.past.tried + drafts < self.config.experiments and time.time() < self.deadline
        if drafts < wanted and in_time and not self.ahead.busy:
            self._ask()

    def _judge(self, experiment: Experiment) -> Experiment:
        """Train as often as the judge wants, on as many places as are free, until it decides."""
        self.view.experiment(experiment)
        self.mirror.sync(self.journal)  # now, so that the commit can name its MLflow run
        before, after = self.past.sources(experiment.parent), self.past.sources(experiment.commit)
        self.judge.candidate(complexity=net_lines(before, after))
        again = deque(self.judge.unanswered)  # asked for before an interruption
        open_wants: dict[int, TrialRequest] = {}
        while experiment.verdict is None:
            ended = self._begin_wanted(experiment, again, open_wants) or self._ended()
            if ended is not None:
                trial, result = ended
                experiment = self._observe(trial, open_wants.pop(trial.id), result, open_wants)
            else:
                self._look_ahead()  # the last question may have led to nothing: what is known now is told
        self.trials.dismiss(open_wants)
        return experiment

    def _begin_wanted(
        self, experiment: Experiment, again: deque[TrialRequest], open_wants: dict[int, TrialRequest]
    ) -> tuple[Trial, Measurement] | None:
        """Begin what the judge wants where there is room, and else what it will probably want next.

        Args:
            experiment: The candidate's.
            again: What the judge wants, but nobody has begun.
            open_wants: What it wants of the trials under way, by their numbers.

        Returns:
            The first wanted trial that was begun early, and has ended already, with its result.
        """
        while self.trials.room or self.early.any:
            if not self._may_begin(bool(open_wants)):
                if not open_wants:
                    raise Stopped  # only now: what was under way has been written down
                return None
            want = again.popleft() if again else self.judge.next()
            if want is None:
                break
            begun = self.early.take(experiment, want)
            if begun is None and not self.trials.room:
                again.appendleft(want)
                return None
            commit = self.past.incumbent.commit if want.arm == "incumbent" else experiment.commit
            trial, result = begun or (
                self.trials.begin(experiment.number, want.arm, want.seed, commit, want.thorough),
                None,
            )
            open_wants[trial.id] = want
            if result is not None:
                return trial, result
            self.view.trial(trial)
        while self.trials.room and self.inbox.wished == "run" and time.time() < self.deadline:
            if (started := self.early.begin(self.judge, self.config.experiments)) is None:
                break
            self.view.trial(started)
        return None

    def _observe(
        self, trial: Trial, want: TrialRequest, result: Measurement, others: Mapping[int, TrialRequest]
    ) -> Experiment:
        """Show the judge a result; write it, the judge, and the verdict if there is one, all at once."""
        begun, failures = time.time(), self.judge.failed
        verdict = self.judge.observe(want, Observation.of(result))
        if verdict is not None:
            for other in others.values():
                self.judge.observe(other, Observation.failed())  # it does not count any more
            if self.judge.failed > failures:
                tried = self.journal.experiment(trial.experiment).trials
                verdict = _explain(verdict, [*(t.result for t in tried if t.arm != "incumbent"), result])
        self.journal.mark(trial.experiment, trial.id, "judge", begun, time.time())
        self.view.trial(self.journal.finish_trial(trial, result, self.judge.to_json(), verdict))
        return self.journal.experiment(trial.experiment)

    def _record(self, experiment: Experiment) -> None:
        """Tell the verdict in the commit, and move the branch if the candidate is kept."""
        begun = time.time()
        message = commit_message(experiment, self.journal.info().metric)
        final = self.worktree.reword(experiment.commit, experiment.parent, message, experiment.created)
        experiment = self.journal.recorded(experiment.number, final)
        refs = [self._ref(experiment.number)]
        if experiment.kept:
            self.early.give_up()  # they were to replace another incumbent
            refs.append(f"refs/heads/{self.journal.info().branch}")
        self.repository.update_refs(dict.fromkeys(refs, final))
        score, noise = self.past.standing()
        self.journal.mark(experiment.number, None, "record", begun, time.time())
        self.view.verdict(experiment, score, noise)
        self.proposer.tell(experiment)
        self.mirror.sync(self.journal)

    # What the steps need

    def _step(self) -> None:
        """A boundary between steps: here a person may pause the search, or stop it."""
        if not self.inbox.wait(self.view):
            raise Stopped

    def _may_begin(self, busy: bool) -> bool:
        """Whether a trial may begin. While others are under way, a pause lets them end, and be noted."""
        return self.inbox.wished == "run" if busy else self.inbox.wait(self.view)

    def _look_at_the_clock(self) -> None:
        """Stop asking for candidates when the time is over."""
        if time.time() > self.deadline:
            raise Stopped(f"The {self.config.minutes:g} minutes are over.", by_itself=True)

    def _ask(self) -> None:
        """Begin to ask for a proposal that builds on the incumbent of now."""
        config, parent, ahead = self.config, self.past.incumbent.commit, not self.proposer.instant
        context = self.past.context(config.name, config.seed, config.brief_path, (), self.task)
        waiting = self.gate.waiting(parent)

        def check(proposal: Proposal) -> None:
            # A point in a search space is tried at once; people's patches are programs like any other.
            self.gate.check(proposal, parent, smoke=ahead or not proposal.params, waiting=waiting)

        self.ahead.ask(lambda: replace(context, notes=self.inbox.notes()), check, parent)

    def _beside(self, begun: Iterator[Trial]) -> Iterator[tuple[Trial, Measurement]]:
        """Trials beside each other: each step of `begun` starts one; they come in the order of their ends."""
        running, more = 0, True
        while more or running:
            while more and self.trials.room and self._may_begin(running > 0):
                trial = next(begun, None)
                more = trial is not None
                if trial is not None:
                    self.view.trial(trial)
                    running += 1
            if running:
                running -= 1
                yield self._finished()
            elif more:
                raise Stopped  # only now: what was under way has been written down

    def _finished(self) -> tuple[Trial, Measurement]:
        """The next trial that ends, and is waited for."""
        while (ended := self._ended()) is None:
            pass
        return ended

    def _ended(self, seconds: float | None = None) -> tuple[Trial, Measurement] | None:
        """What happens next (within some seconds), if it is the end of a trial that is waited for."""
        event = self._hear(seconds)
        if not isinstance(event, Finished) or (result := self.trials.ended(event)) is None:
            return None
        return None if self.early.ended(event.trial, result) else (event.trial, result)

    def _hear(self, seconds: float | None = None) -> Finished | Answered | None:
        """What a worker or the proposer has come to; shows what they say meanwhile.

        Args:
            seconds: Give up when nobody has said a word for this long; None: never.
        """
        while True:
            try:
                event = self.events.get(timeout=seconds)
            except Empty:
                return None
            match event:
                case Sign():
                    self.view.progress(event.trial, event.progress)
                case Said():
                    self.view.message(event.text, warning=event.warning)
                case Answered():
                    self.ahead.answered()
                    return event
                case Finished():
                    return event

    def _export(self, commit: str, folder: Path, sources: Mapping[str, str]) -> None:
        """Write the tree of a commit to a folder, with these files in the place of its own."""
        self.repository.export(commit, self.task.frozen, folder)
        for path, text in sources.items():
            (folder / path).write_bytes(text.encode("utf-8"))

    def _ref(self, number: int) -> str:
        return f"refs/autoresearch/{self.config.name}/{number:04d}"


def _explain(verdict: Verdict, results: list[Measurement | None]) -> Verdict:
    """What a judge can only call a discard has a better name: that of the trial which failed first."""
    failed = next((r for r in results if r is not None and r.outcome is not Outcome.OK), None)
    return (
        replace(verdict, kind=VerdictKind(failed.outcome.value), reason=failed.reason) if failed else verdict
    )
