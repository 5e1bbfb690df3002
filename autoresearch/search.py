"""The loop: propose, apply, train, score, judge, record.

Owns the order of the steps and nothing else: each step lives in a room of its own, and each is written to
the journal before it is acted on. A search killed at any instant goes on where the journal ends: `run`
first finishes what was begun, then asks for more. Decisions are serial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from autoresearch.config import Config
from autoresearch.edit.apply import apply
from autoresearch.edit.rules import check, fingerprint, net_lines
from autoresearch.errors import UserError
from autoresearch.judge import Judge, create_judge
from autoresearch.judge.guards import breached
from autoresearch.judge.prune import Pruner
from autoresearch.record.git import Repository, Worktree
from autoresearch.record.journal import Journal
from autoresearch.record.losses import keep_losses, losses_folder, sampling_error
from autoresearch.record.message import commit_message
from autoresearch.record.standing import standing
from autoresearch.run.frozen import digest
from autoresearch.run.sandbox import remove_tree
from autoresearch.types import (
    Context,
    Experiment,
    Outcome,
    Progress,
    Proposal,
    Proposer,
    ProposerError,
    Refused,
    State,
    Trial,
    TrialResult,
    Verdict,
    VerdictKind,
    View,
)

PATIENCE = (5, 15, 60, 300)
"""Seconds to wait before asking a proposer again that is out of reach; the last one repeats."""


class Runner(Protocol):
    """Trains and scores one candidate; see `autoresearch.run`."""

    max_seconds: float

    def run(
        self,
        *,
        code: Path,
        seed: int,
        scratch: Path,
        progress: Callable[[Progress], None],
        should_prune: Callable[[Progress], bool] | None = None,
        splits: Sequence[str] = ("validation",),
    ) -> TrialResult:
        """Train and score the candidate in `code`. Never raises for what the candidate does.

        The first split gives the score; `SPLIT.npy` in `scratch` holds nats and bytes of each document.
        """


class Mirror(Protocol):
    """Shows the journal elsewhere; see `autoresearch.record.mlflow`. Never raises."""

    def run_id(self, journal: Journal, number: int) -> str | None:
        """Where the experiment is, or will be, shown; None if that cannot be known now."""

    def sync(self, journal: Journal) -> None:
        """Show all that changed."""


@dataclass
class Search:
    """One search and all it works with."""

    config: Config
    repository: Repository
    worktree: Worktree
    journal: Journal
    folder: Path
    runner: Runner
    proposer: Proposer
    mirror: Mirror
    view: View

    def run(self) -> None:
        """Search until the experiments, the time or the proposer run out.

        Raises:
            UserError: If the host fails, or the starting script does not train.
        """
        self._recover()
        self.mirror.sync(self.journal)  # a new store takes a while; the baseline gives it the time
        self.judge = self._baseline()
        deadline = time.time() + 60 * self.config.minutes if self.config.minutes else float("inf")
        while (experiment := self._unfinished()) or self._tried() < self.config.experiments:
            if experiment is None:
                if time.time() > deadline:
                    self.view.message(f"The {self.config.minutes:g} minutes are over.")
                    break
                try:
                    experiment = self._propose()
                except ProposerError as error:
                    self.view.message(f"No further proposal: {error}", warning=True)
                    break
            if experiment.state is State.PROPOSED:
                experiment = self._commit(experiment)
            if experiment.state is State.COMMITTED:
                experiment = self._judge(experiment)
            self._record(experiment)
        self.journal.update(finished=time.time())
        self.mirror.sync(self.journal)

    # The steps, in order

    def _recover(self) -> None:
        """Finish what an earlier run of this search was killed in, and make git agree with the journal."""
        self.journal.update(finished=None)
        lost = self.journal.abandon_open_trials()
        if lost:
            self.view.message(f"Going on after an interruption: {lost} unfinished trial will run again.")
        remove_tree(self.folder / "trials")
        for experiment in self.journal.experiments()[1:]:
            if experiment.commit:
                self.repository.update_ref(self._ref(experiment.number), experiment.commit)
        self.repository.update_ref(f"refs/heads/{self.journal.info().branch}", self._incumbent())

    def _baseline(self) -> Judge:
        """Train the starting script with several seeds: the first incumbent, and the noise."""
        info = self.journal.info()
        while (done := len(self.journal.experiment(0).scores)) < self.config.baselines:
            seed = 1000 * self.config.seed + done
            trial = self.journal.start_trial(0, "baseline", seed, info.base_commit)
            result = self.train(trial)
            self.view.trial(self.journal.finish_trial(trial, result))
            if result.outcome is not Outcome.OK:
                raise UserError(
                    f"The starting script does not get through a trial: {result.reason}",
                    f"Try it: python -m {self.config.task.train}. It ended with:\n{result.log[-2000:]}",
                    code=3,
                )
        self._limit_time()
        if state := self.journal.judge_state():
            return Judge.from_json(state)
        scores = [(t.seed, t.score) for t in self.journal.experiment(0).trials if t.score is not None]
        tau = sampling_error(self.folder, [t.id for t in self.journal.experiment(0).trials if t.score])
        judge = create_judge(baseline=scores, tau=tau, **self.config.judge)
        self.journal.set("judge", judge.to_json())
        self.mirror.sync(self.journal)
        return judge

    def _propose(self) -> Experiment:
        """Ask for a proposal, for as long as asking again may help, and write it down."""
        self.view.proposing(self._tried() + 1, self.proposer.name)
        for attempt in range(10**6):
            try:
                proposal = self.proposer.propose(self._context(), self._check)
                self._check(proposal)
                return self.journal.add(proposal, self._incumbent())
            except ProposerError as error:
                if not error.retry:
                    raise
                pause = PATIENCE[min(attempt, len(PATIENCE) - 1)]
                self.view.message(f"{error}; asking again in {pause} s.", warning=True)
                time.sleep(pause)
            except Refused as error:
                self.view.message(f"Refused a proposal of {self.proposer.name}: {error}", warning=True)
                if attempt >= 20:
                    raise ProposerError(
                        f"20 proposals in a row were refused, the last because {error}"
                    ) from None
        raise AssertionError("unreachable")

    def _commit(self, experiment: Experiment) -> Experiment:
        """Turn the proposal into a commit that stays reachable, whatever becomes of it."""
        assert experiment.proposal
        sources = apply(self._sources(experiment.parent), experiment.proposal.edits)
        commit = self.worktree.commit(
            experiment.parent, sources, commit_message(experiment), experiment.created
        )
        diff = self.repository.diff(experiment.parent, commit)
        self.repository.update_ref(self._ref(experiment.number), commit)
        return self.journal.committed(experiment.number, commit, diff)

    def _judge(self, experiment: Experiment) -> Experiment:
        """Train as often as the judge wants, until it decides."""
        self.view.experiment(experiment)
        self.mirror.sync(self.journal)  # now, so that the commit can name its MLflow run
        incumbent = self._incumbent()
        grown = net_lines(self._sources(experiment.parent), self._sources(experiment.commit))
        self.judge.candidate(complexity=grown)
        while experiment.verdict is None:
            want = self.judge.next()
            assert want is not None, "a serial search answers every want before it asks again"
            commit = incumbent if want.arm == "incumbent" else experiment.commit
            trial = self.journal.start_trial(experiment.number, want.arm, want.seed, commit)
            result = self.train(trial)
            verdict = self.judge.observe(want, result.score)
            if verdict and want.arm != "incumbent":
                verdict = _explain(verdict, result)
            self.view.trial(self.journal.finish_trial(trial, result, self.judge.to_json(), verdict))
            experiment = self.journal.experiment(experiment.number)
        return experiment

    def _record(self, experiment: Experiment) -> None:
        """Tell the verdict in the commit, and move the branch if the candidate is kept."""
        message = commit_message(experiment, self.mirror.run_id(self.journal, experiment.number))
        final = self.worktree.reword(experiment.commit, experiment.parent, message, experiment.created)
        experiment = self.journal.recorded(experiment.number, final)
        self.repository.update_ref(self._ref(experiment.number), final)
        if experiment.kept:
            self.repository.update_ref(f"refs/heads/{self.journal.info().branch}", final)
        score, noise = self._standing()
        self.view.verdict(experiment, score, noise)
        self.mirror.sync(self.journal)

    # What the steps need

    def train(
        self, trial: Trial, splits: Sequence[str] = ("validation",), keep: Path | None = None
    ) -> TrialResult:
        """One training and scoring, in a folder of its own that is gone afterwards.

        Args:
            trial: What to train.
            splits: What to score it on.
            keep: Folder for the losses of each document; by default that of the trial.
        """
        self.view.trial(trial)
        place = self.folder / "trials" / str(trial.id)
        self.repository.export(trial.commit, [self.config.task.package], place / "code")
        (place / "scratch").mkdir()
        pruner = Pruner([t.result.curve for t in self.journal.experiment(0).trials if t.result])
        prunable = trial.arm in ("screen", "confirm")
        frozen = digest(place / "code"), digest(self.folder / "trusted")
        try:
            result = self.runner.run(
                code=place / "code",
                seed=trial.seed,
                scratch=place / "scratch",
                progress=lambda progress: self.view.progress(trial, progress),
                should_prune=pruner if prunable else None,
                splits=splits,
            )
            if (digest(place / "code"), digest(self.folder / "trusted")) != frozen:
                return TrialResult(
                    Outcome.INVALID, reason="frozen code changed during the trial", log=result.log
                )
            keep_losses(place / "scratch", keep or losses_folder(self.folder, trial.id))
            return self._guarded(trial, result)
        finally:
            remove_tree(place)

    def _guarded(self, trial: Trial, result: TrialResult) -> TrialResult:
        """A candidate may not win by what the budget does not price."""
        baseline = [t.result.metrics for t in self.journal.experiment(0).trials if t.result]
        if trial.arm not in ("screen", "confirm") or result.outcome is not Outcome.OK:
            return result
        breach = breached(result.metrics, baseline, self.config.guards.model_dump())
        return replace(result, outcome=Outcome.INVALID, score=None, reason=breach) if breach else result

    def _limit_time(self) -> None:
        """A token budget does not price slowness, so the baseline's own pace bounds every candidate."""
        slowdown = self.config.budget.slowdown
        seconds = [
            t.result.metrics.get("train_seconds", 0.0) for t in self.journal.experiment(0).trials if t.result
        ]
        if slowdown is not None and seconds:
            self.runner.max_seconds = min(self.config.budget.max_seconds, slowdown * max(seconds) + 1)

    def _check(self, proposal: Proposal) -> None:
        """Raise Refused if a proposal cannot become an experiment."""
        sources = self._sources(self._incumbent())
        check(sources, apply(sources, proposal.edits), self.config.task.editable, self._seen())

    def _seen(self) -> Mapping[str, int]:
        """Fingerprints of every program tried so far, the incumbents included."""
        if not hasattr(self, "_fingerprints"):
            self._fingerprints: dict[str, int] = {}
        known = set(self._fingerprints.values())
        for experiment in self.journal.experiments():
            if experiment.commit and experiment.number not in known:
                self._fingerprints.setdefault(
                    fingerprint(self._sources(experiment.commit)), experiment.number
                )
        return self._fingerprints

    def _context(self) -> Context:
        history = self.journal.experiments()
        score, noise = self._standing()
        best = max((e for e in history if e.number == 0 or e.kept), key=lambda e: e.number)
        measured = [
            t.result.metrics for t in best.trials if t.result and t.arm != "incumbent" and t.score is not None
        ]
        return Context(
            search=self.config.name,
            brief=self.config.brief_path.read_text(encoding="utf-8"),
            sources=self._sources(self._incumbent()),
            baseline_sources=self._sources(self.journal.info().base_commit),
            history=tuple(e for e in history if e.number == 0 or e.verdict is not None),
            incumbent_score=score,
            noise=noise,
            facts=dict(measured[-1]) if measured else {},
            seed=self.config.seed,
        )

    def _standing(self) -> tuple[float, float]:
        """The incumbent's score and the noise, as the report will tell them."""
        now = standing(self.journal.experiments())
        assert now.best, "there is a baseline before anything is asked for"
        return now.best.level.mean, now.noise or 0.0

    def _sources(self, commit: str) -> dict[str, str]:
        return self.repository.sources(commit, self.config.task.editable)

    def _incumbent(self) -> str:
        kept = [e.commit for e in self.journal.experiments() if e.kept and e.state is State.RECORDED]
        return kept[-1] if kept else self.journal.info().base_commit

    def _unfinished(self) -> Experiment | None:
        last = self.journal.experiments()[-1]
        return last if last.number and last.state is not State.RECORDED else None

    def _tried(self) -> int:
        return len(self.journal.experiments()) - 1

    def _ref(self, number: int) -> str:
        return f"refs/autoresearch/{self.config.name}/{number:04d}"


def _explain(verdict: Verdict, result: TrialResult) -> Verdict:
    """What a judge can only call a discard has a better name when the candidate's own trial failed."""
    if result.outcome is Outcome.OK:
        return verdict
    return replace(verdict, kind=VerdictKind(result.outcome.value), reason=result.reason)
