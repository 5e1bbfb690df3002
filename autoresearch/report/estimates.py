"""How good each incumbent is, how large the noise is, how far a search has come, and how sure that is.

MLflow, report, plots and `status` all take these numbers from here, computed from the experiments alone, so
that they agree. The estimates are the judge's, which come with each verdict: the judge knows what selection,
the validation set and changes of the machine did to the scores. If the judge gives none, or before the first
verdict, an estimate is the mean of the runs; a screening score is left out of it when later runs exist,
because it was chosen for being good. Scores are in the unit of the task's metric. Not covered: deciding
anything, and the sealed test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from statistics import NormalDist

from autoresearch.judge.finished.claim import whole_gain
from autoresearch.judge.noise.spread import t_from_z
from autoresearch.types import Arm, Estimate, Experiment, Levels, Metric, State, Trial, in_order, starts_with


@dataclass(frozen=True)
class Incumbent:
    """An experiment that became the incumbent, and how good it is by everything measured so far."""

    experiment: Experiment
    estimate: Estimate


@dataclass(frozen=True)
class Estimates:
    """How far a search has come.

    Attributes:
        incumbents: In order, the baseline first; those without any score are left out.
        noise: Standard deviation of the score over seeds, pooled over repeated runs of the same commit;
            None if nothing was repeated.
        freedom: Degrees of freedom of `noise`.
        start: The judge's estimate of the starting point; None if the judge gives none.
        half: Half of the 95% interval of the whole gain, if it rests on all runs of start and tip.
    """

    incumbents: tuple[Incumbent, ...]
    noise: float | None
    freedom: int
    start: Estimate | None = None
    half: float | None = None

    @property
    def baseline(self) -> Estimate | None:
        """The starting point, once it has been scored."""
        if self.start is not None:
            return self.start
        first = self.incumbents[0] if self.incumbents else None
        return first.estimate if first and first.experiment.number == 0 else None

    @property
    def best(self) -> Incumbent | None:
        """The latest incumbent."""
        return self.incumbents[-1] if self.incumbents else None

    def gain(self, metric: Metric) -> float | None:
        """How much better the incumbent is than the baseline; None before anything was kept."""
        if self.baseline is None or len(self.incumbents) < 2:
            return None
        return metric.gain(self.baseline.mean, self.incumbents[-1].estimate.mean)

    def interval(self, metric: Metric) -> tuple[float, float] | None:
        """95% interval of `gain`.

        Without the judge's intervals it is Student's, for independent runs with the pooled noise. Runs of
        both sides on the same seeds are positively correlated, so the interval is rather too wide.
        """
        gain = self.gain(metric)
        if gain is None or self.noise is None or self.baseline is None:
            return None
        best = self.incumbents[-1].estimate
        half = self.half if self.half is not None else joint_half_width(self.baseline, best)
        if half is None:
            error = self.noise * math.sqrt(1 / self.baseline.trials + 1 / best.trials)
            half = error * student_quantile(0.975, self.freedom)
        return gain - half, gain + half


def estimate(experiments: Sequence[Experiment]) -> Estimates:
    """Compute the estimates of a search. Linear in the number of trials."""
    return Estimator().estimate(experiments)


class Estimator:
    """Keeps the estimates of a growing search up to date without reading it from the beginning each time.

    A recorded experiment does not change any more (nor does the baseline, once another experiment follows
    it), so it is added up once. Later experiments are added for the moment only.
    """

    def __init__(self) -> None:
        self._added: list[Experiment] = []
        self._kept: tuple[Experiment, ...] = ()
        self._runs: dict[str, tuple[Trial, ...]] = {}
        self._judged: dict[int, Levels] = {}
        self._squares, self._freedom = 0.0, 0

    def estimate(self, experiments: Sequence[Experiment]) -> Estimates:
        """The estimates after these experiments, which continue those of the last call."""
        return self.estimate_ordered(in_order(experiments))

    def estimate_ordered(self, experiments: Sequence[Experiment]) -> Estimates:
        """The same of experiments that are in the order of their verdicts."""
        if not starts_with(experiments, self._added):
            vars(self).update(vars(Estimator()))  # another history, or an old experiment was changed
        while len(self._added) < len(experiments) and self._is_final(experiments):
            self._added.append(experiments[len(self._added)])
            self._add(self._added[-1])
        now = copy(self)
        now._runs, now._judged = dict(self._runs), dict(self._judged)
        for experiment in experiments[len(self._added) :]:
            now._add(experiment)
        return now._result()

    def _is_final(self, experiments: Sequence[Experiment]) -> bool:
        count = len(self._added)
        return experiments[count].state is State.RECORDED or (count == 0 and len(experiments) > 1)

    def _add(self, experiment: Experiment) -> None:
        """Count each trial for the commit that it ran, whichever experiment asked for it.

        A candidate's own trials belong to its final commit: they ran the same tree under a commit whose
        message did not have the verdict yet.
        """
        own = tuple(t for t in experiment.own if t.score is not None)
        for trial in experiment.trials:
            if trial.score is not None and trial.arm == Arm.INCUMBENT:
                self._runs[trial.commit] = (*self._runs.get(trial.commit, ()), trial)
        if experiment.number == 0 or experiment.kept:
            self._kept = (*self._kept, experiment)
            self._runs[experiment.commit] = (*self._runs.get(experiment.commit, ()), *own)
        else:
            squares, freedom = _spread(own)
            self._squares, self._freedom = self._squares + squares, self._freedom + freedom
        # Levels of a candidate on an incumbent that was revoked since say nothing about the one before it.
        levels = experiment.verdict and experiment.verdict.levels
        on_top = experiment.kept or (self._kept and experiment.parent == self._kept[-1].commit)
        if levels and self._kept and on_top:
            self._judged[self._kept[-1].number] = levels

    def _result(self) -> Estimates:
        found = tuple(Incumbent(e, mean) for e in self._kept if (mean := self._estimate(e)))
        if found and (judged := self._judged.get(found[-1].experiment.number)):
            return self._whole(Estimates(found, judged.noise, judged.freedom, judged.baseline), judged)
        squares, freedom = self._squares, self._freedom
        for trials in self._runs.values():
            more, free = _spread(trials)
            squares, freedom = squares + more, freedom + free
        return Estimates(found, math.sqrt(squares / freedom) if freedom else None, freedom)

    def _whole(self, now: Estimates, judged: Levels) -> Estimates:
        """The same by all runs of start and tip, unless the machine changed: the judge knows by how much."""
        first, last = now.incumbents[0], now.incumbents[-1]
        start, tip = (self._runs.get(found.experiment.commit, ()) for found in (first, last))
        before, after = ({t.seed: t.score for t in runs if t.score is not None} for runs in (start, tip))
        known = first.experiment.scores
        same = math.isclose(math.fsum(known) / len(known), judged.baseline.mean, abs_tol=1e-6 * judged.noise)
        if len(now.incumbents) < 2 or len(before) < len(start) or not same:
            return now
        if not len(after) == len(tip) == judged.incumbent.trials:
            return now
        base, level, half = whole_gain(before, after, judged)
        return replace(
            now, incumbents=(*now.incumbents[:-1], replace(last, estimate=level)), start=base, half=half
        )

    def _estimate(self, kept: Experiment) -> Estimate | None:
        """The latest estimate of an incumbent; None without a score."""
        if judged := self._judged.get(kept.number):
            return judged.incumbent
        scores = fair_scores(self._runs.get(kept.commit, ()))
        return Estimate(sum(scores) / len(scores), None, len(scores)) if scores else None


def fair_scores(trials: Iterable[Trial]) -> list[float]:
    """The scores that may estimate how good a commit is: not the screening one, if there are others."""
    scored = [(t.arm, t.score) for t in trials if t.score is not None]
    fair = [score for arm, score in scored if arm != Arm.SCREEN]
    return fair or [score for _, score in scored]


def _spread(trials: Sequence[Trial]) -> tuple[float, int]:
    """Sum of squares over the seeds of one commit, and its degrees of freedom."""
    scores = fair_scores(trials)
    if len(scores) < 2:
        return 0.0, 0
    mean = sum(scores) / len(scores)
    return sum((score - mean) ** 2 for score in scores), len(scores) - 1


def joint_half_width(before: Estimate, after: Estimate) -> float | None:
    """Half of the 95% interval of a difference: the variances add up. None if the judge gives no intervals.

    What the validation set adds, for each change that was kept, is part of the later estimate's interval.
    """
    if before.interval is None or after.interval is None:
        return None
    widths = ((high - low) / 2 for low, high in (before.interval, after.interval))
    return math.hypot(*widths)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution."""
    try:
        from scipy.special import stdtrit
    except ImportError:  # a machine that only trains: within 1.3%, and too wide below 3 degrees of freedom
        return t_from_z(NormalDist().inv_cdf(probability), freedom)
    return float(stdtrit(freedom, probability))


@dataclass(frozen=True)
class Moment:
    """The search right after an experiment, as known then: one step of the staircase chart."""

    experiment: Experiment
    best: float
    tried: int
    kept: int
    failed: int
    dollars: float = 0.0


def staircase(experiments: Sequence[Experiment]) -> list[Moment]:
    """The search after each judged experiment, by what was known then. Linear in the number of trials."""
    moments: list[Moment] = []
    commit, runs, kept, failed, dollars, dropped = "", list[Trial](), 0, 0, 0.0, 0.0
    tried = -1
    for e in in_order(experiments):
        tried += 1
        # Proposals are dropped after the experiment that they are filed under: they count from the next on.
        dollars += dropped + (e.proposal.cost.dollars if e.proposal else 0.0)
        dropped = sum(proposal.cost.dollars for proposal in e.dropped)
        runs += [t for t in e.trials if t.arm == Arm.INCUMBENT and t.commit == commit]
        if e.number == 0 or e.kept:
            commit, runs, kept = e.commit, list(e.own), kept + (e.number > 0)
        if e.verdict is None and e.number > 0:
            continue
        failed += e.failed
        if e.verdict is not None and e.verdict.levels is not None and (e.kept or e.parent == commit):
            moments.append(Moment(e, e.verdict.levels.incumbent.mean, tried, kept, failed, dollars))
        elif scores := fair_scores(runs):
            moments.append(Moment(e, sum(scores) / len(scores), tried, kept, failed, dollars))
    return moments
