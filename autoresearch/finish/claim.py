"""The final claim of a search: its start and its result, trained on fresh seeds, scored on the sealed split.

The plan is written first; then each training is written, run, and written again, so that a claim that was
killed goes on, and no look at the sealed split is forgotten. A tip is claimed once: asked again, the recorded
claim is given. Nothing here reaches the proposer or the judge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge.finished import Claim, claim
from autoresearch.judge.noise import paired_tau
from autoresearch.search.loop import Search
from autoresearch.store.files import read_losses, remove_tree
from autoresearch.store.notes import BASELINE, TIP, ClaimRecord, interleaved, read_claims, write_claim
from autoresearch.types import Arm, Experiment, Metric, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_TRAININGS = 2
"""Trainings of each side without which nothing can be said."""


def make_claim(search: Search, seeds: int) -> ClaimRecord:
    """Claim the tip of a search, or give the claim that was made of it.

    Args:
        search: An open search with a baseline.
        seeds: Trainings of each side.

    Raises:
        UserError: If nothing was kept, or too few trainings get through.
    """
    if not search.state.kept:
        raise UserError(
            "Nothing was kept, so there is nothing to claim.", "Search on: autoresearch run name=..."
        )
    tip = search.state.kept[-1]
    record = next((r for r in read_claims(search.journal) if r.tip == tip.commit), None)
    if record is None:
        record = _plan(search, tip, seeds)
    if record.finished is not None:
        return record
    left = sum(not access.done for access in record.accesses)
    search.view.message(
        f"Final claim: {left} trainings of start and result on fresh seeds, scored on the sealed test split."
    )
    return _conclude(search, _train(search, record))


def _plan(search: Search, tip: Experiment, seeds: int) -> ClaimRecord:
    if seeds < MIN_TRAININGS:
        raise UserError(
            f"A claim needs at least {MIN_TRAININGS} trainings of each side.", "For example: claim=8"
        )
    earlier = read_claims(search.journal)
    first = unused_seed(search, (access.seed for r in earlier for access in r.accesses))
    record = ClaimRecord(
        number=len(earlier) + 1,
        experiment=tip.number,
        base=search.journal.info().base_commit,
        tip=tip.commit,
        started=time.time(),
        accesses=interleaved(range(first, first + 2 * seeds)),
    )
    write_claim(search.journal, record)
    return record


def _train(search: Search, record: ClaimRecord) -> ClaimRecord:
    (search.folder / _items(record)).mkdir(parents=True, exist_ok=True)

    def planned() -> Iterator[Training]:
        nonlocal record
        for index, access in enumerate(record.accesses):
            if access.done:
                continue
            record = record.with_access(index, started=time.time())
            write_claim(search.journal, record)
            yield Training(
                index=index,
                arm=Arm.CLAIM,
                label=f"claim, {access.side}",
                experiment=record.experiment,
                commit=record.base if access.side == BASELINE else record.tip,
                seed=access.seed,
                splits=(Split.TEST, Split.VALIDATION),
                items=f"{_items(record)}/{access.side}-{access.seed}",
            )

    second = search.task.metric.on(Split.VALIDATION)
    for index, result in run_trainings(search, planned()):
        record = record.with_access(
            index,
            test=result.score,
            validation=result.metrics.get(second) if result.score is not None else None,
            reason=result.reason,
        )
        write_claim(search.journal, record)
    return record


def _conclude(search: Search, record: ClaimRecord) -> ClaimRecord:
    if min(len(record.scores(side)) for side in (BASELINE, TIP)) < MIN_TRAININGS:
        write_claim(search.journal, replace(record, finished=time.time()))
        reasons = "; ".join(sorted({a.reason for a in record.accesses if a.reason}))
        raise UserError(f"Too few trainings got through for a claim: {reasons}", "See runs/ for the logs.", 3)
    folder = search.folder / _items(record)
    done = replace(record, finished=time.time(), result=_result(record, search.task.metric, folder))
    write_claim(search.journal, done)
    remove_tree(folder)
    return done


def _result(record: ClaimRecord, metric: Metric, folder: Path) -> Claim:
    """The statistics, which are of losses; means of scores are told as scores."""
    before, after = ([metric.loss(s) for s in record.scores(side)] for side in (BASELINE, TIP))
    start, end = (_mean(record.scores(side, "validation")) for side in (BASELINE, TIP))
    result = claim(before, after, sampling=_sampling(folder), validation_gain=metric.gain(start, end))
    return replace(result, baseline=metric.loss(result.baseline), tip=metric.loss(result.tip))


def _sampling(folder: Path) -> float:
    """Standard error that the items of the sealed split add to the difference; 0 if there are none."""
    import numpy as np

    tables: dict[str, list[NDArray[np.float64]]] = {BASELINE: [], TIP: []}
    for place in sorted(folder.iterdir()):
        if (table := read_losses(place, Split.TEST)) is not None:
            tables[place.name.rpartition("-")[0]].append(table)
    if not all(tables.values()):
        return 0.0
    first, second = (np.mean([table[:, 0] for table in tables[side]], axis=0) for side in (BASELINE, TIP))
    weights = tables[TIP][0][:, 1]
    return paired_tau(first, second, weights) if len(weights) > 1 else 0.0


def _items(record: ClaimRecord) -> str:
    """Where the losses of single items are kept until the claim is made, below the folder of the search."""
    return f"claims/{record.number}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
