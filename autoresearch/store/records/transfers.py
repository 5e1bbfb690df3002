"""Records of transfers, which the journal keeps as notes: kept changes at larger scales and on other data.

Not covered: the statistics (`judge.finished.transfer`), the trainings (`finish.transfer`), the words
(`report`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from autoresearch.judge.finished.transfer import Extrapolated, Gain, extrapolate, gains
from autoresearch.store.records.notes import Notes, WritableNotes, read_records, write_records
from autoresearch.types import Metric, Plain

TRANSFERS = "transfers"
"""Key of the journal's note."""


@dataclass(frozen=True)
class Rung(Plain):
    """A scale, another budget, or other data.

    Attributes:
        name: Such as "scale 2" or "data tinystories".
        scale: By which the task's rule scales the files and the budget.
        data: The corpus; empty: that of the search.
        budget: Factor of the budget beside that.
    """

    name: str
    scale: float = 1.0
    data: str = ""
    budget: float = 1.0


@dataclass(frozen=True)
class RungRun(Plain):
    """One training on a rung.

    Attributes:
        rung: Index of the rung.
        changes: How many of the kept changes it has, from the first on.
        seed: A seed that the search did not use.
        score: Score on the rung's validation split; None if there is none (yet).
        reason: Why there is none.
        rates: By which all learning rates are multiplied.
        tunes: Whether it looks for that factor, and is compared with nothing else.
    """

    rung: int
    changes: int
    seed: int
    score: float | None = None
    reason: str = ""
    rates: float = 1.0
    tunes: bool = False

    @property
    def done(self) -> bool:
        """Whether it has a score, or failed."""
        return self.score is not None or bool(self.reason)


@dataclass(frozen=True)
class TransferRecord(Plain):
    """A transfer, begun or finished.

    Attributes:
        tip: Commit of the tip.
        keeps: Numbers of the kept experiments.
        rungs: The scale of the search first.
        runs: What is to be trained.
        rule: How the task scales, in words.
        seconds: Of trainings so far.
        finished: Unix time in seconds; None before that.
        retune: Factors of the learning rates that are tried on each rung but the first.
    """

    tip: str
    keeps: tuple[int, ...]
    rungs: tuple[Rung, ...]
    runs: tuple[RungRun, ...]
    rule: str
    seconds: float = 0.0
    finished: float | None = None
    retune: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the same transfer only."""
        return self.tip, self.rungs, self.retune

    def with_run(self, index: int, **changes: Any) -> TransferRecord:
        """The record with one of its trainings changed."""
        runs = list(self.runs)
        runs[index] = replace(runs[index], **changes)
        return replace(self, runs=tuple(runs))

    def gains(self, metric: Metric) -> list[list[Gain]]:
        """For each rung the gain of every change, and last that of all together."""
        found: list[list[Gain]] = []
        for rung in range(len(self.rungs)):
            losses = [
                {
                    r.seed: metric.loss(r.score)
                    for r in self.runs
                    if (r.rung, r.changes, r.tunes) == (rung, n, False) and r.score
                }
                for n in range(len(self.keeps) + 1)
            ]
            found.append(gains(losses, found[0] if found else None))
        return found

    def tuned(self, rung: int, metric: Metric) -> list[tuple[float, float | None]]:
        """The factors of learning rates that were tried on a rung, each with the mean loss of start and tip.

        None is the loss of a factor with which one of the two has no score.
        """
        found = []
        for rates in dict.fromkeys(r.rates for r in self.runs if r.rung == rung and r.tunes):
            scores = [r.score for r in self.runs if (r.rung, r.tunes, r.rates) == (rung, True, rates)]
            known = [metric.loss(score) for score in scores if score is not None]
            found.append((rates, fmean(known) if len(known) == len(scores) else None))
        return found

    def rates(self, rung: int, metric: Metric) -> float:
        """The best of these factors; 1 if none was tried."""
        known = [(loss, rates) for rates, loss in self.tuned(rung, metric) if loss is not None]
        return min(known)[1] if known else 1.0

    def beyond(self, metric: Metric) -> Extrapolated | str:
        """The gain of all changes together one scale further, or why nothing can be said of it."""
        rungs = zip(self.rungs, self.gains(metric), strict=True)
        known = [(r.scale, g[-1]) for r, g in rungs if not r.data and r.budget == 1.0]
        return extrapolate([scale for scale, _ in known], [gain for _, gain in known])


def read_transfers(notes: Notes) -> list[TransferRecord]:
    """Every transfer of a search, oldest first."""
    return read_records(notes, TRANSFERS, TransferRecord)


def write_transfer(notes: WritableNotes, record: TransferRecord) -> None:
    """Add a transfer, or replace the record of the same one."""
    known = {r.key: r for r in [*read_transfers(notes), record]}
    write_records(notes, TRANSFERS, known.values())
