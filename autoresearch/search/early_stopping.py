"""Learns from the finished runs of a search when a screening run is hopeless.

Each screening run is compared with the run of the incumbent of its time on the same seed. Everything is read
from the journal, so a search that goes on knows as much as before. A candidate that makes the program smaller
is never stopped, because a simplification may be kept without a gain.

Not covered: the rule (`judge.early_stopping`), and what it has saved and cost (`report.stopping`).
"""

from __future__ import annotations

from random import Random

from autoresearch.judge.early_stopping import SPARED, STOP_SHARE, Bars, Pair, pair, stop_bars
from autoresearch.search.state import SearchState
from autoresearch.types import Arm, Experiment, Measurement, Trial


class EarlyStopping:
    """The bars of the next screening run."""

    def __init__(self, state: SearchState) -> None:
        """Prepare; nothing is read yet.

        Args:
            state: Of the search.
        """
        self._state = state
        self._pairs: dict[int, Pair] = {}

    def bars(self, trial: Trial) -> Bars:
        """Above which training loss a trial is to be stopped; empty if it is not to be."""
        state = self._state
        if not state.config.early_stopping or trial.arm is not Arm.SCREEN:
            return ()
        experiments, gain = state.journal.experiments(), state.bars()
        this = experiments[trial.experiment]
        if gain is None or state.candidate_of(this).growth < 0:
            return ()
        known = _scored(experiments)
        beside = known.get((this.parent, trial.seed))
        if beside is None:
            return ()
        for experiment in experiments[1:]:
            if experiment.number not in self._pairs and experiment.verdict is not None:
                self._learn(experiment, known)
        pairs = list(self._pairs.values())
        return stop_bars(pairs, beside.curve, gain.second_run, state.standing()[1])

    def spares(self, trial: Trial) -> bool:
        """Whether a trial is finished even if it is above a bar, to estimate what stopping costs."""
        return Random(f"{self._state.journal.seed_secret()} {trial.id} spared").random() < SPARED

    def _learn(self, experiment: Experiment, known: dict[tuple[str, int], Measurement]) -> None:
        """Take note of the screening run of an experiment, if it was finished."""
        loss = self._state.task.metric.loss
        for trial in experiment.own:
            beside = known.get((experiment.parent, trial.seed))
            if trial.arm is Arm.SCREEN and trial.result and trial.score is not None and beside:
                assert beside.score is not None
                difference = loss(trial.score) - loss(beside.score)
                weight = 1 / SPARED if STOP_SHARE in trial.result.metrics else 1.0
                found = pair(trial.result.curve, beside.curve, difference, weight)
                self._pairs[experiment.number] = found


def _scored(experiments: tuple[Experiment, ...]) -> dict[tuple[str, int], Measurement]:
    """(Commit, seed) -> the latest run with a score, of every program."""
    found = {}
    for experiment in experiments:
        runs = [(experiment.commit, trial) for trial in experiment.own]
        runs += [(trial.commit, trial) for trial in experiment.trials if trial.arm is Arm.INCUMBENT]
        for commit, trial in runs:
            if trial.result is not None and trial.score is not None:
                found[commit, trial.seed] = trial.result
    return found
