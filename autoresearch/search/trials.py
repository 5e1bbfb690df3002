"""The rules that hold for every trial, whoever asked for it and wherever it runs.

What it is scored on, when it is stopped early, how long it may take, and what a candidate may not use more of
than the baseline. Not covered: how a bar for early stopping is computed (`judge.limits.early_stopping`), and
what stopping has saved and cost (`report.sections.stopping`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from autoresearch.execute.base import TrialSpec
from autoresearch.judge.limits.early_stopping import (
    LEAST_PAIRS,
    SPARED,
    STOP_SHARE,
    Bars,
    Pair,
    pair,
    stop_bars,
)
from autoresearch.judge.limits.resources import broken_guard
from autoresearch.search.state import SearchState
from autoresearch.store.files import losses_folder
from autoresearch.tasks.base import requested
from autoresearch.types import REPORTED_SPLITS, Arm, Experiment, Measurement, Outcome, Split, Trial

LATEST = 500
"""Learns from so many of the latest experiments: more would hardly move a bar, and cost time."""

CANDIDATE_ARMS = (Arm.SCREEN, Arm.CONFIRM)
"""Arms that measure a candidate, and are held against the guards."""
BLIND_ARMS = (Arm.CONFIRM, Arm.INCUMBENT)
"""Arms on which a keep rests: their scores need blind answers, except those of the starting script."""
SEED_BYTES = 4
"""Seeds of programs have 31 bits: every library takes any of those."""


class EarlyStopping:
    """Learns from the finished runs of a search when a screening run is hopeless.

    Each screening run is compared with the run of the incumbent of its time on the same seed. Everything is
    read from the journal, so a search that goes on knows as much as before. A candidate that makes the
    program smaller is never stopped, because a simplification may be kept without a gain.
    """

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
        this, ask = state.journal.experiment(trial.experiment), state.ask_bars()
        if state.candidate_of(this).growth < 0:
            return ()
        self._read_changes(this.number - LATEST)
        beside = self._measured(this.parent, trial.seed)
        pairs = [self._pairs[number] for number in sorted(self._pairs)]
        if beside is None or len(pairs) < LEAST_PAIRS or (gain := ask()) is None:
            return ()
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


def program_seed(secret: str, index: object) -> int:
    """The seed that a program gets in place of the small index under which judge and journal know it.

    A program that knew the index could gain on the first seeds and lose on later ones.

    Args:
        secret: Of the search; empty for a search of an older version, whose programs were told the index.
        index: What the journal calls the seed, or any text.
    """
    if not secret:
        return index if isinstance(index, int) else 0
    keyed = hashlib.blake2b(str(index).encode(), key=bytes.fromhex(secret), digest_size=SEED_BYTES)
    return int.from_bytes(keyed.digest()) >> 1


class TrialRules:
    """Turns trials into specs, and judges whether a result counts."""

    def __init__(self, state: SearchState) -> None:
        """Prepare.

        Args:
            state: Has the trials of the baseline.
        """
        self._state, self._config = state, state.config
        self._task = state.task
        self._journal = state.journal
        self._secret = state.journal.seed_secret()
        self._largest: dict[str, float] = {}
        self._stopping = EarlyStopping(state)

    def limit_time(self) -> None:
        """Let the time of every further trial be limited by that of the whole baseline."""
        for result in self._baseline:
            for name, value in result.metrics.items():
                self._largest[name] = max(value, self._largest.get(name, value))

    def spec(self, trial: Trial, *, thorough: bool = False, device: str = "") -> TrialSpec:
        """What the executor is told of a trial of the journal.

        Args:
            trial: As written down.
            thorough: Whether the candidate is suspected of cheating.
            device: Where it runs.
        """
        first = trial.arm is Arm.SCREEN  # a run that a keep may rest on is never stopped
        alike = not self._state.devices.name(device)  # the curves of another kind of device tell nothing
        return replace(
            self.unrecorded(trial, trial.id, self._splits(trial.arm), _items(trial), device),
            reference=tuple(result.curve for result in self._baseline) if first and alike else (),
            stop_above=self._stopping.bars(trial) if alike else (),
            spare=self._stopping.spares(trial),
            thorough=thorough,
            guards=() if first else requested(self._state.guards()),
            gauge=trial.arm in (Arm.BASELINE, Arm.INCUMBENT),
            blind=trial.arm in BLIND_ARMS and trial.commit != self._journal.info().base_commit,
        )

    def unrecorded(
        self, trial: Trial, number: int, splits: Sequence[Split], items: str, device: str = ""
    ) -> TrialSpec:
        """What the executor is told of a trial that no judge has asked for.

        Args:
            trial: What to measure.
            number: By which the executor knows it.
            splits: What to score it on; the first gives the score.
            items: Folder for the losses of single items, below that of the search.
            device: Where it runs.
        """
        there = self._state.devices.metrics(device)
        return TrialSpec(
            search=self._config.name,
            trial=number,
            tree=trial.commit,
            seed=program_seed(self._secret, trial.seed),
            splits=tuple(splits),
            items=items,
            baseline=dict(self._largest if there is None else there),
        )

    def checked(self, trial: Trial, result: Measurement) -> Measurement:
        """The result, made invalid if a candidate uses much more of something than the baseline did."""
        if trial.arm not in CANDIDATE_ARMS or result.outcome is not Outcome.OK:
            return result
        there = self._state.devices.metrics(result.provenance.device)
        baseline = [known.metrics for known in self._baseline] if there is None else [there]
        broken = broken_guard(result.metrics, baseline, self._config.guards.limits)
        broken = broken or self._task.guard(result.metrics, baseline)
        return replace(result, outcome=Outcome.INVALID, score=None, reason=broken) if broken else result

    def _splits(self, arm: Arm) -> tuple[Split, ...]:
        """The validation, and once a candidate is promising the splits that only the report looks at."""
        data = self._journal.info().data
        # Held-out text that is used in slices before keeps must not be shown to any program earlier.
        sealed = [Split.HELD] if self._task.shares(Split.HELD, data) > 0 else []
        known = [split for split in REPORTED_SPLITS if split in data.get("splits", {})]
        others = [split for split in known if arm is not Arm.SCREEN and split not in sealed]
        return (Split.VALIDATION, *others)

    @property
    def _baseline(self) -> list[Measurement]:
        return [trial.result for trial in self._journal.experiment(0).trials if trial.result]


def _items(trial: Trial) -> str:
    return losses_folder(Path(), trial.id).as_posix()
