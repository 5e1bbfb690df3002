"""Where a search stands: the incumbents' re-estimated scores, the noise, the gain and how sure it is.

Owns the invariant that every record (MLflow, report, plot, status) takes these numbers from here, from the
experiments alone, so that they tell the same story. It is the judge's, which comes with each verdict and
knows what selection, the validation set and changes of the machine did to the scores. Where a judge reckons
none, and before the first verdict, it is the mean of the runs; a score that won a screening is left out of it
when later runs exist: it was chosen for being low. Not covered: deciding anything, and the sealed test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autoresearch.report.levels import Level, Standing, Step
from autoresearch.types import Experiment, Levels, State, Trial, VerdictKind

if TYPE_CHECKING:
    from autoresearch.store.journal import SearchInfo

SCREEN, INCUMBENT = "screen", "incumbent"
"""Arms of `Trial.arm`: runs that select candidates, and re-runs of the incumbent of the moment."""


class History(Protocol):
    """What the records read from the journal."""

    def info(self) -> SearchInfo:
        """What was fixed when the search began."""

    def experiments(self) -> tuple[Experiment, ...]:
        """All experiments in order, the baseline first."""

    def get(self, key: str) -> str | None:
        """A note by its key, if there is one."""


def standing(experiments: Sequence[Experiment]) -> Standing:
    """Compute where a search stands from its experiments. Linear in the number of trials."""
    return Tally().standing(experiments)


class Tally:
    """Where a growing search stands, without reading it from the beginning each time.

    What is recorded will not change (nor will the baseline, once another experiment follows it): it is added
    up once. What comes after is added for the moment only.
    """

    def __init__(self) -> None:
        self._count = 0
        self._last: Experiment | None = None
        self._steps: tuple[Experiment, ...] = ()
        self._runs: dict[str, tuple[Trial, ...]] = {}
        self._judged: dict[int, Levels] = {}
        self._squares, self._freedom = 0.0, 0

    def standing(self, experiments: Sequence[Experiment]) -> Standing:
        """Where the search stands after these experiments, which go on from those of the last call."""
        if self._count and (len(experiments) < self._count or experiments[self._count - 1] is not self._last):
            vars(self).update(vars(Tally()))  # another history, or a past that was touched
        while self._count < len(experiments) and self._is_closed(experiments):
            self._last = experiments[self._count]
            self._add(self._last)
            self._count += 1
        now = copy(self)
        now._runs, now._judged = dict(self._runs), dict(self._judged)
        for experiment in experiments[self._count :]:
            now._add(experiment)
        return now._result()

    def _is_closed(self, experiments: Sequence[Experiment]) -> bool:
        after_it = len(experiments) > self._count + 1
        return experiments[self._count].state is State.RECORDED or (self._count == 0 and after_it)

    def _add(self, experiment: Experiment) -> None:
        """Count a trial with the commit that it trained, whichever experiment asked for it.

        A candidate's own trials belong to its final commit, though they trained the same tree under a commit
        that did not tell the verdict yet.
        """
        own: tuple[Trial, ...] = ()
        for trial in experiment.trials:
            if trial.score is not None and trial.arm == INCUMBENT:
                self._runs[trial.commit] = (*self._runs.get(trial.commit, ()), trial)
            elif trial.score is not None:
                own = (*own, trial)
        if experiment.number == 0 or experiment.kept:
            self._steps = (*self._steps, experiment)
            self._runs[experiment.commit] = (*self._runs.get(experiment.commit, ()), *own)
        else:
            squares, freedom = _spread(own)
            self._squares, self._freedom = self._squares + squares, self._freedom + freedom
        if experiment.verdict and experiment.verdict.levels and self._steps:
            self._judged[self._steps[-1].number] = experiment.verdict.levels

    def _result(self) -> Standing:
        steps = tuple(Step(e, level) for e in self._steps if (level := self._level(e)))
        if steps and (judged := self._judged.get(steps[-1].experiment.number)):
            return Standing(steps, judged.noise, judged.freedom, Level.of(judged.baseline))
        squares, freedom = self._squares, self._freedom
        for trials in self._runs.values():
            more, free = _spread(trials)
            squares, freedom = squares + more, freedom + free
        return Standing(steps, math.sqrt(squares / freedom) if freedom else None, freedom)

    def _level(self, step: Experiment) -> Level | None:
        """How good an incumbent was by the last that was said of it; None without a score."""
        if judged := self._judged.get(step.number):
            return Level.of(judged.incumbent)
        scores = level_scores(self._runs.get(step.commit, ()))
        return Level(sum(scores) / len(scores), len(scores)) if scores else None


def own_trials(experiment: Experiment) -> list[Trial]:
    """Trials of the candidate itself, without re-runs of the incumbent."""
    return [t for t in experiment.trials if t.arm != INCUMBENT]


def level_scores(trials: Iterable[Trial]) -> list[float]:
    """The scores that may estimate a commit's level: not the screening one, if there are others."""
    scored = [(t.arm, t.score) for t in trials if t.score is not None]
    fair = [score for arm, score in scored if arm != SCREEN]
    return fair or [score for _, score in scored]


def _spread(trials: Sequence[Trial]) -> tuple[float, int]:
    """Sum of squares over the seeds of one commit, and its degrees of freedom."""
    scores = level_scores(trials)
    if len(scores) < 2:
        return 0.0, 0
    mean = sum(scores) / len(scores)
    return sum((score - mean) ** 2 for score in scores), len(scores) - 1


@dataclass(frozen=True)
class Moment:
    """The search as it stood right after an experiment: what the staircase chart shows."""

    experiment: Experiment
    best: float
    tried: int
    kept: int
    failed: int
    dollars: float = 0.0


def staircase(experiments: Sequence[Experiment]) -> list[Moment]:
    """The search after each judged experiment, by what was known then. Linear in the number of trials."""
    moments: list[Moment] = []
    commit, runs, kept, failed, dollars, given_up = "", list[Trial](), 0, 0, 0.0, 0.0
    for e in experiments:
        # Proposals are given up after the experiment that they are filed under: they count from the next on.
        dollars += given_up + (e.proposal.cost.dollars if e.proposal else 0.0)
        given_up = sum(proposal.cost.dollars for proposal in e.dropped)
        runs += [t for t in e.trials if t.arm == INCUMBENT and t.commit == commit]
        if e.number == 0 or e.kept:
            commit, runs, kept = e.commit, own_trials(e), kept + (e.number > 0)
        if e.verdict is None and e.number > 0:
            continue
        failed += e.verdict is not None and e.verdict.kind in (VerdictKind.CRASH, VerdictKind.INVALID)
        if e.verdict is not None and e.verdict.levels is not None:
            moments.append(Moment(e, e.verdict.levels.incumbent.mean, e.number, kept, failed, dollars))
        elif scores := level_scores(runs):
            moments.append(Moment(e, sum(scores) / len(scores), e.number, kept, failed, dollars))
    return moments
