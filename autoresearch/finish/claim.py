"""The final claim of a search: its start and its result, trained on fresh seeds, scored on the sealed split.

Owns the order of it: the plan is written, then each training is written, run, and written again, so that a
claim that was killed goes on where it was, and no look at the test split is forgotten. A tip is claimed once:
asked again, the recorded claim is given. Nothing here reaches the proposer or the judge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.execute.sandbox import remove_tree
from autoresearch.judge.claim import claim
from autoresearch.judge.sampling_error import paired_tau
from autoresearch.search.loop import Extra, Search
from autoresearch.store.claims import BASELINE, TIP, ClaimRecord, interleaved, read_claims, write_claim
from autoresearch.store.files import read_losses
from autoresearch.types import Arm, Experiment, State, Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LEAST = 2
"""Trainings of each side without which nothing can be said."""


def make_claim(search: Search, seeds: int) -> ClaimRecord:
    """Claim the tip of a search, or give the claim that was made of it.

    Args:
        search: An open search with a baseline.
        seeds: Trainings of each side.

    Raises:
        UserError: If nothing was kept, or too few trainings get through.
    """
    kept = [e for e in search.journal.experiments() if e.kept and e.state is State.RECORDED]
    if not kept:
        raise UserError(
            "Nothing was kept, so there is nothing to claim.", "Search on: autoresearch run name=..."
        )
    record = _find(search, kept[-1]) or _begin(search, kept[-1], seeds)
    if record.finished is not None:
        return record
    left = sum(not access.done for access in record.accesses)
    search.view.message(
        f"Final claim: {left} trainings of start and result on fresh seeds, scored on the sealed test split."
    )
    return _conclude(search, _train(search, record))


def _find(search: Search, tip: Experiment) -> ClaimRecord | None:
    return next((r for r in read_claims(search.journal) if r.tip == tip.commit), None)


def _begin(search: Search, tip: Experiment, seeds: int) -> ClaimRecord:
    if seeds < LEAST:
        raise UserError(f"A claim needs at least {LEAST} trainings of each side.", "For example: claim=8")
    earlier = read_claims(search.journal)
    used = [t.seed for e in search.journal.experiments() for t in e.trials]
    used += [access.seed for r in earlier for access in r.accesses]
    fresh = range(max(used) + 1, max(used) + 1 + 2 * seeds)
    record = ClaimRecord(
        number=len(earlier) + 1,
        experiment=tip.number,
        base=search.journal.info().base_commit,
        tip=tip.commit,
        started=time.time(),
        accesses=interleaved(fresh),
    )
    write_claim(search.journal, record)
    return record


def _train(search: Search, record: ClaimRecord) -> ClaimRecord:
    losses = _folder(search, record)
    losses.mkdir(parents=True, exist_ok=True)

    def begin() -> Iterator[Extra]:
        nonlocal record
        for index, access in enumerate(record.accesses):
            if access.done:
                continue
            record = record.with_access(index, started=time.time())
            write_claim(search.journal, record)
            commit = record.base if access.side == BASELINE else record.tip
            trial = Trial(
                index + 1,
                record.experiment,
                Arm.CLAIM,
                access.seed,
                commit,
                time.time(),
                label=f"claim, {access.side}",
            )
            yield Extra(trial, ("test", "validation"), losses / f"{access.side}-{access.seed}")

    for trial, result in search.train(begin()):
        record = record.with_access(
            trial.id - 1,
            test=result.score,
            validation=result.metrics.get("validation_bpb") if result.score is not None else None,
            reason=result.reason,
        )
        write_claim(search.journal, record)
    return record


def _conclude(search: Search, record: ClaimRecord) -> ClaimRecord:
    before, after = record.scores(BASELINE), record.scores(TIP)
    if min(len(before), len(after)) < LEAST:
        write_claim(search.journal, replace(record, finished=time.time()))
        reasons = "; ".join(sorted({a.reason for a in record.accesses if a.reason}))
        raise UserError(f"Too few trainings got through for a claim: {reasons}", "See runs/ for the logs.", 3)
    validation = [_mean(record.scores(side, "validation")) for side in (BASELINE, TIP)]
    done = replace(
        record,
        finished=time.time(),
        result=claim(
            before,
            after,
            sampling=_sampling(_folder(search, record)),
            validation_gain=validation[0] - validation[1],
        ),
    )
    write_claim(search.journal, done)
    remove_tree(_folder(search, record))
    return done


def _sampling(folder: Path) -> float:
    """Standard error that the documents of the test split add to the difference of the sides' means."""
    import numpy as np

    tables: dict[str, list[NDArray[np.float64]]] = {BASELINE: [], TIP: []}
    for place in sorted(folder.iterdir()):
        if (table := read_losses(place, "test")) is not None:
            tables[place.name.rpartition("-")[0]].append(table)
    first, second = (np.mean([table[:, 0] for table in tables[side]], axis=0) for side in (BASELINE, TIP))
    sizes = tables[TIP][0][:, 1]
    return paired_tau(first, second, sizes * np.log(2)) if len(sizes) > 1 else 0.0


def _folder(search: Search, record: ClaimRecord) -> Path:
    return search.folder / "claims" / str(record.number)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
