"""Learns from the finished runs of a search when a screening run is hopeless.

Each screening run is compared with the run of the incumbent of its time on the same seed. Everything is read
from the journal, so a search that goes on knows as much as before. A candidate that makes the program smaller
is never stopped, because a simplification may be kept without a gain.

Not covered: the rule (`judge.early_stopping`), and what it has saved and cost (`report.sections.stopping`).
"""

from __future__ import annotations

from random import Random

from autoresearch.judge.limits.early_stopping import SPARED, STOP_SHARE, Bars, Pair, pair, stop_bars
from autoresearch.search.state import SearchState
from autoresearch.types import Arm, Experiment, Measurement, Trial

LATEST = 500
"""Learns from so many of the latest experiments: more would hardly move a bar, and cost time."""


class EarlyStopping:
    """The bars of the next screening run."""

    def __init__(self, state: SearchState) -> None:
        """Prepare; nothing is read yet.

        Args:
            state: Of the search.
        """
        self._state = state
        self._read = 0
        self._runs: dict[tuple[str, int], Trial] = {}
        self._pairs: dict[int, Pair] = {}

    def bars(self, trial: Trial) -> Bars:
        """Above which training loss a trial is to be stopped; empty if it is not to be."""
        state = self._state
        if not state.config.early_stopping or trial.arm is not Arm.SCREEN:
            return ()
        this, gain = state.journal.experiment(trial.experiment), state.bars()
        if gain is None or state.candidate_of(this).growth < 0:
            return ()
        self._read_changes(this.number - LATEST)
        beside = self._measured(this.parent, trial.seed)
        if beside is None:
            return ()
        pairs = [self._pairs[number] for number in sorted(self._pairs)]
        return stop_bars(pairs, beside.curve, gain.second_run, state.standing()[1])

    def spares(self, trial: Trial) -> bool:
        """Whether a trial is finished even if it is above a bar, to estimate what stopping costs."""
        return Random(f"{self._state.journal.seed_secret()} {trial.id} spared").random() < SPARED

    def _read_changes(self, oldest: int) -> None:
        """Take note of every program's runs, and of the experiments from a number on that were judged."""
        self._read, changed = self._state.journal.changes(self._read)
        for experiment in changed:
            runs = [(experiment.commit, trial) for trial in experiment.own]
            runs += [(trial.commit, trial) for trial in experiment.trials if trial.arm is Arm.INCUMBENT]
            for commit, trial in runs:
                known = self._runs.get((commit, trial.seed))
                if trial.score is not None and (known is None or trial.id >= known.id):
                    self._runs[commit, trial.seed] = trial
        for experiment in changed:
            if experiment.number >= max(oldest, 1) and experiment.verdict is not None:
                self._learn(experiment)
        for number in [number for number in self._pairs if number < oldest]:
            del self._pairs[number]

    def _measured(self, commit: str, seed: int) -> Measurement | None:
        """The latest run of a program on a seed that has a score."""
        known = self._runs.get((commit, seed))
        return known.result if known else None

    def _learn(self, experiment: Experiment) -> None:
        """Take note of the screening run of an experiment, if it was finished."""
        loss = self._state.task.metric.loss
        for trial in experiment.own:
            beside = self._measured(experiment.parent, trial.seed)
            if trial.arm is Arm.SCREEN and trial.result and trial.score is not None and beside:
                assert beside.score is not None
                difference = loss(trial.score) - loss(beside.score)
                weight = 1 / SPARED if STOP_SHARE in trial.result.metrics else 1.0
                found = pair(trial.result.curve, beside.curve, difference, weight)
                self._pairs[experiment.number] = found
