"""The final claim of a search: its start and its result, trained on fresh seeds, scored on the sealed split.

The plan is written first; then each training is written, run, and written again, so a claim that was killed
goes on. The sealed split is opened only when all models are trained: until then their weights are kept.
So a claim whose trainings fail stays open, has cost nothing of the split, and is finished later; and no look
at the split is forgotten. A tip is claimed once: asked again, the recorded claim is given. Nothing here
reaches the proposer or the judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import UserError
from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge.documents import Items, Variance, document_variance
from autoresearch.judge.finished import Claim, claim
from autoresearch.search.loop import Search
from autoresearch.store.files import read_losses
from autoresearch.store.notes import (
    ATTEMPTS,
    BASELINE,
    TIP,
    Access,
    ClaimRecord,
    interleaved,
    read_claims,
    write_claim,
)
from autoresearch.types import Arm, Experiment, Measurement, Metric, Split

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
        UserError: If nothing was kept, or trainings fail; the claim then stays open.
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
    left = sum(access.validation is None and not access.done for access in record.accesses)
    search.view.message(
        f"Final claim: {left} trainings of start and result on fresh seeds, then the sealed test split."
    )
    return _conclude(search, _open(search, _train(search, record)))


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
    """Train all models of the claim, those that failed once more, and score them on the validation data.

    Raises:
        UserError: If models are missing for the machine's sake, or too many failed: the claim stays open.
    """
    search.folder.joinpath(_items(record)).mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        missing = [i for i, access in enumerate(record.accesses) if not _ready(search, record, access)]
        record = _run(search, record, missing, (Split.VALIDATION,))
    missing = [i for i, access in enumerate(record.accesses) if not _ready(search, record, access)]
    trained = [sum(a.side == side and not a.given_up for a in record.accesses) for side in (BASELINE, TIP)]
    if not missing and min(trained) >= MIN_TRAININGS:
        return record
    failed = [access for access in record.accesses if access.reason]
    raise UserError(
        f"{len(failed)} of {len(record.accesses)} trainings of the claim failed; the sealed test split was "
        f"not opened: {'; '.join(sorted({access.reason for access in failed}))}",
        f"The claim stays open: autoresearch claim name={search.config.name} trains what is missing.",
        code=3,
    )


def _ready(search: Search, record: ClaimRecord, access: Access) -> bool:
    """Whether nothing is left to train: there are weights or already a score, or the training is given up."""
    return access.done or (
        access.validation is not None and (search.folder / _weights(record, access)).exists()
    )


def _run(search: Search, record: ClaimRecord, indices: Sequence[int], splits: Sequence[Split]) -> ClaimRecord:
    """Train models, or score those whose weights were kept; each is recorded before and after."""

    def planned() -> Iterator[Training]:
        nonlocal record
        for index in indices:
            access, now = record.accesses[index], time.time()
            sealed = Split.TEST in splits
            record = record.with_access(index, **({"opened": now} if sealed else {"started": now}))
            write_claim(search.journal, record)
            yield Training(
                index=index,
                arm=Arm.CLAIM,
                label=f"claim, {access.side}",
                experiment=record.experiment,
                commit=record.base if access.side == BASELINE else record.tip,
                seed=access.seed,
                splits=splits,
                items=f"{_items(record)}/{access.side}-{access.seed}" if sealed else "",
                submission=_weights(record, access),
            )

    field = "test" if Split.TEST in splits else "validation"
    for index, result in run_trainings(search, planned()):
        failures = record.accesses[index].failures + (result.score is None and not _by_machine(result))
        scored = {field: result.score, "reason": result.reason, "failures": failures}
        record = record.with_access(index, **scored)
        write_claim(search.journal, record)
    return record


def _by_machine(result: Measurement) -> bool:
    """Whether a busy or full machine may be the reason of a failure."""
    return classify(result.reason) == TIMEOUT or "killed from outside" in result.reason


def _open(search: Search, record: ClaimRecord) -> ClaimRecord:
    """Open the sealed split: score every model on it.

    Raises:
        UserError: If a model could not be scored: the claim stays open.
    """
    record = _run(search, record, [i for i, a in enumerate(record.accesses) if not a.done], (Split.TEST,))
    if failed := [access for access in record.accesses if not access.done]:
        reasons = "; ".join(sorted({access.reason for access in failed}))
        raise UserError(
            f"{len(failed)} models of the claim were not scored: {reasons}",
            f"The claim stays open: autoresearch claim name={search.config.name} goes on.",
            code=3,
        )
    return record


def _conclude(search: Search, record: ClaimRecord) -> ClaimRecord:
    folder = search.folder / _items(record)
    done = replace(record, finished=time.time(), result=_result(record, search.task.metric, folder))
    write_claim(search.journal, done)
    for weights in folder.glob("*.weights"):
        weights.unlink()
    return done


def _result(record: ClaimRecord, metric: Metric, folder: Path) -> Claim:
    """The statistics, which are of losses; means of scores are told as scores."""
    before, after = (
        {a.seed: metric.loss(a.test) for a in record.accesses if a.side == side and a.test is not None}
        for side in (BASELINE, TIP)
    )
    start, end = (_mean(record.scores(side, "validation")) for side in (BASELINE, TIP))
    result = claim(before, after, sampling=_sampling(record, folder), validation_gain=metric.gain(start, end))
    return replace(result, baseline=metric.loss(result.baseline), tip=metric.loss(result.tip))


def _sampling(record: ClaimRecord, folder: Path) -> Variance:
    """The variance that the documents of the sealed split give the difference; 0 without losses of items."""
    import numpy as np

    sides: dict[str, dict[int, NDArray[np.float64]]] = {BASELINE: {}, TIP: {}}
    table: NDArray[np.float64] | None = None
    for access in record.accesses:
        if access.test is not None:
            table = read_losses(folder / f"{access.side}-{access.seed}", Split.TEST)
            if table is None:
                return Variance(0.0, math.inf)
            sides[access.side][access.seed] = table[:, 0]
    assert table is not None
    return document_variance(sides[BASELINE], sides[TIP], Items(table[:, 1], table[:, 2].astype(np.int64)))


def _items(record: ClaimRecord) -> str:
    """Where losses of items are kept, by which anybody can compute the claim again; and weights meanwhile."""
    return f"claims/{record.number}"


def _weights(record: ClaimRecord, access: Access) -> str:
    """Where the weights of one training are kept meanwhile."""
    return f"{_items(record)}/{access.side}-{access.seed}.weights"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
