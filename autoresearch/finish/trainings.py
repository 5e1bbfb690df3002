"""Runs trainings after the search, for a claim or an audit, several at a time.

Their scores are stored apart from the trials of the search, so that no part that steers the search reads
them. The caller records each training before it starts, and again when it has ended, so a killed claim or
audit continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from autoresearch.clock import now
from autoresearch.search.loop import Search
from autoresearch.store.database import Phase
from autoresearch.store.records.notes import AFTER, PAID_AFTER, dollars_after, seconds_after
from autoresearch.types import MODEL_DOLLARS, Arm, Measurement, Split, Trial

AFTER_SEARCH = -1
"""Stands in the timeline for the experiment of a training that belongs to none."""


@dataclass(frozen=True)
class Training:
    """One training that no judge has asked for.

    Attributes:
        index: Its number in the record that plans it, from 0.
        arm: What it is for.
        label: What it is called, such as "claim, tip".
        experiment: The experiment whose result is looked at.
        commit: What to train.
        seed: To train with.
        splits: What to score it on; the first gives the score.
        items: Folder for the losses of single items, below that of the search.
        fields: Further fields of its `TrialSpec`.
    """

    index: int
    arm: Arm
    label: str
    experiment: int
    commit: str
    seed: int
    splits: Sequence[Split]
    items: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def run_trainings(search: Search, planned: Iterable[Training]) -> Iterator[tuple[int, Measurement]]:
    """Run trainings beside each other where there is room.

    Args:
        search: An open search.
        planned: What to train. The next one is taken when it can start at once; a generator may write it down
            before it yields it.

    Yields:
        The index of each with its result, in the order in which they end.

    Raises:
        Stopped: If a person stops it; those under way have been yielded by then.
    """

    def starts() -> Iterator[Trial]:
        for t in planned:
            trial = Trial(t.index + 1, t.experiment, t.arm, t.seed, t.commit, now(), label=t.label)
            yield search.scheduler.start_unrecorded(trial, t.splits, t.items, **t.fields)

    for ended in search.scheduler.run_all(starts()):
        phases = ended.result.phases
        done = replace(ended.trial, finished=now(), result=ended.result)
        done = replace(done, measured=sum(end - start for _, start, end in phases))
        for name, start, end in phases:
            search.journal.mark(AFTER_SEARCH, -done.id, cast(Phase, name), start, end)
        search.journal.set(AFTER, str(seconds_after(search.journal) + done.seconds))
        if paid := ended.result.metrics.get(MODEL_DOLLARS):
            search.journal.set(PAID_AFTER, str(dollars_after(search.journal) + paid))
        search.view.trial(done)
        yield ended.trial.id - 1, ended.result


def unused_seed(search: Search, others: Iterable[int]) -> int:
    """The first of the seeds that neither the search nor earlier trainings, with the `others`, have used."""
    used = [t.seed for e in search.journal.experiments() for t in e.trials]
    return max([*used, *others]) + 1
