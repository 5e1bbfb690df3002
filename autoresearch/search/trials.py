"""The trials of a search: what each is scored on, when it is stopped early, what a candidate may not exceed.

Owns the rules that hold for every trial, whoever asked for it and wherever it runs. Not covered: the places
and their threads (`workers`), and what the results mean (the judge).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.config import Config
from autoresearch.execute.local import Events, Export, Finished, Order, Runner, Workers
from autoresearch.judge.limits import Pruner, broken_guard
from autoresearch.store.files import losses_folder
from autoresearch.store.journal import Journal
from autoresearch.tasks import create_task
from autoresearch.types import REPORTED_SPLITS, Arm, Experiment, Measurement, Outcome, Trial

JUDGED = ("screen", "confirm")
"""Arms that train a candidate: those may be stopped early, and are held against the guards."""


class Trials:
    """Begins trials where there is room, and takes note of their ends."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        folder: Path,
        runners: Mapping[str, Runner],
        export: Export,
        events: Events,
    ) -> None:
        """Prepare.

        Args:
            config: Of the search.
            journal: Where trials are written down.
            folder: Of the search.
            runners: Name of a place -> what trains there.
            export: Writes the tree of a candidate to a folder.
            events: Where ends and signs of life are told.
        """
        self._config = config
        self._journal = journal
        self._folder = folder
        self._runners = runners
        self._workers = Workers(runners, folder, export, events)
        self.dismiss, self.close = self._workers.dismiss, self._workers.close

    @property
    def room(self) -> bool:
        """Whether another trial can begin now."""
        return self._workers.free is not None

    def begin(
        self,
        experiment: int,
        arm: Arm,
        seed: int,
        commit: str,
        closely: bool = False,
        sources: Mapping[str, str] | None = None,
    ) -> Trial:
        """Write a trial down, and begin it where there is room.

        Args:
            experiment: Whose it is.
            arm: What it is for.
            seed: To train with.
            commit: What to train.
            closely: Whether the candidate is a suspect.
            sources: Files that differ from the commit's.
        """
        trial = self._journal.start_trial(experiment, arm, seed, commit, self._workers.free or "")
        splits = ("validation", *self._guards(arm))
        curves = [t.result.curve for t in self._baseline.trials if t.result]
        pruner = Pruner(curves) if arm in JUDGED else None
        keep = losses_folder(self._folder, trial.id)
        self._workers.start(Order(trial, splits, keep, pruner, closely, sources or {}))
        return trial

    def start(self, trial: Trial, splits: Sequence[str], keep: Path) -> None:
        """Begin a trial that is written down elsewhere, and judged by nobody.

        Args:
            trial: What to train.
            splits: What to score it on; the first gives the score.
            keep: Folder for the losses of each document.
        """
        self._workers.start(Order(trial, splits, keep))

    def ended(self, event: Finished) -> Measurement | None:
        """Take note of an end: its result, or None if nobody waits for it any more."""
        result, trial = self._workers.finished(event), event.trial
        if result is None or trial.arm not in JUDGED or result.outcome is not Outcome.OK:
            return result
        known = [t.result.metrics for t in self._baseline.trials if t.result]
        broken = broken_guard(result.metrics, known, self._config.guards.model_dump())
        return replace(result, outcome=Outcome.INVALID, score=None, reason=broken) if broken else result

    def limit_time(self) -> None:
        """Bound the training of every candidate by the pace of the baseline, if the task says so."""
        most = create_task(self._config).max_seconds([t.result for t in self._baseline.trials if t.result])
        if most is not None:
            for runner in self._runners.values():
                runner.max_seconds = most

    @property
    def _baseline(self) -> Experiment:
        return self._journal.experiment(0)

    def _guards(self, arm: Arm) -> list[str]:
        """Splits that are scored beside the validation, to be looked at, once a candidate is promising."""
        known = self._journal.info().data.get("splits", {})
        return [split for split in REPORTED_SPLITS if split in known and arm != "screen"]
