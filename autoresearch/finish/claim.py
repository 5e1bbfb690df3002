"""The final claim of a search: its start and its result, trained on fresh seeds, scored on the sealed split.

A training of the start and one of the result have the same seed, so that they are compared in pairs: what
a seed gives both is not in their difference. Each pair is scored on a share of the sealed split that no other
program of this search was shown before. There is nothing anywhere to be known about it. Each program is first
asked blind questions: the gain by those answers alone must agree with the claim, whatever the servers tell
each other. A split that is too small for this is scored as a whole, and that is said.

A claim needs all its trainings: one whose tip fails on some seeds has no result, or it would be chosen by its
luck. A training of the tip that is invalid voids the claim, and the change is taken back (`revocation`).

The plan is written first; then each training is written, run, and written again, so a claim that was killed
goes on. The sealed split is opened only when all models are trained: until then their weights are kept.
So a claim whose trainings fail stays open, has cost nothing of the split, and is finished later; and no look
at the split is forgotten. A tip is claimed once: asked again, the recorded claim is given. Nothing here
reaches the proposer or the judge.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.execute.output import TIMEOUT, classify
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge.finished.claim import Claim, claim
from autoresearch.judge.noise.documents import Items, Variance, document_variance
from autoresearch.search.checks.revocation import revoke_claimed, settle
from autoresearch.search.checks.unseen import blind_gain
from autoresearch.search.loop import Search
from autoresearch.store.files import read_losses
from autoresearch.store.records.claims import (
    ATTEMPTS,
    BASELINE,
    TIP,
    Access,
    ClaimRecord,
    interleaved,
    read_claims,
    write_claim,
)
from autoresearch.tasks.base import Trust
from autoresearch.tracking.model import WEIGHTS
from autoresearch.types import Arm, Experiment, Measurement, Metric, Outcome, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_TRAININGS = 2
"""Trainings of each side without which nothing can be said."""

BLIND_Z = 4.0
"""Standard errors by which a gain may exceed that of the blind answers alone."""


def make_claim(search: Search, seeds: int) -> ClaimRecord:
    """Claim the tip of a search, or give the claim that was made of it.

    Args:
        search: An open search with a baseline.
        seeds: Trainings of each side.

    Raises:
        UserError: If nothing was kept, or trainings fail; the claim then stays open.
    """
    if search.task.sealed is None:
        raise UserError(
            f"The task {search.task.name} has no sealed split, so no result can be claimed on it.",
            "docs/tasks.md says how a task gets one.",
        )
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
    _tell_shares(search, record)
    left = sum(access.validation is None and not access.done for access in record.accesses)
    search.view.message(
        f"Final claim: {left} trainings of start and result on fresh seeds, in pairs, then the sealed split."
    )
    record = _train(search, record)
    record = record if record.void else _open(search, record)
    record = record if record.void else _conclude(search, record)
    if record.void:
        search.view.message(f"The claim is void: {record.void}.", warning=True)
        revoke_claimed(search.state)
        settle(search.state)
    return record


def _tell_shares(search: Search, record: ClaimRecord) -> None:
    """Say so if the sealed split is no longer, or cannot be, what no program has seen."""
    if search.task.trust is Trust.ARTIFACT:
        return  # what a candidate leaves behind is scored; no program of its own sees the split
    if not record.shares:
        search.view.message(
            "The sealed test split is too small for a share for each training: all see the same text.",
            warning=True,
        )
    elif any(access.looked for r in read_claims(search.journal) for access in r.accesses):
        search.view.message("The sealed test split was shown to programs before, for a claim.", warning=True)


def _plan(search: Search, tip: Experiment, seeds: int) -> ClaimRecord:
    if seeds < MIN_TRAININGS:
        raise UserError(
            f"A claim needs at least {MIN_TRAININGS} trainings of each side.", "For example: claim=8"
        )
    earlier = read_claims(search.journal)
    first = unused_seed(search, (access.seed for r in earlier for access in r.accesses))
    divided = search.task.shares(Split.TEST, search.journal.info().data) >= seeds
    sides: dict[str, int] = {BASELINE: 0, TIP: 0}
    secret = [secrets.randbits(32) for _ in range(seeds)]
    accesses = []
    for access in interleaved(range(first, first + seeds)):
        pair, sides[access.side] = sides[access.side], sides[access.side] + 1
        accesses.append(replace(access, share=pair if divided else None, questions=secret[pair]))
    record = ClaimRecord(
        number=len(earlier) + 1,
        experiment=tip.number,
        base=search.journal.info().base_commit,
        tip=tip.commit,
        started=now(),
        accesses=tuple(accesses),
        shares=seeds if divided else 0,
        elsewhere=search.task.elsewhere,
    )
    write_claim(search.journal, record)
    return record


def _train(search: Search, record: ClaimRecord) -> ClaimRecord:
    """Train all models of the claim, those that failed once more, and score them on the validation data.

    Raises:
        UserError: If models are missing for the machine's sake: the claim stays open.
    """
    search.folder.joinpath(_items(record)).mkdir(parents=True, exist_ok=True)
    for _ in range(ATTEMPTS):
        missing = [i for i, access in enumerate(record.accesses) if not _ready(search, record, access)]
        record = record if record.void else _run(search, record, missing, (Split.VALIDATION,))
    missing = [i for i, access in enumerate(record.accesses) if not _ready(search, record, access)]
    if record.void or not missing:
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
            if record.void:
                return
            access, begun = record.accesses[index], now()
            sealed = Split.TEST in splits
            record = record.with_access(index, **({"opened": begun} if sealed else {"started": begun}))
            write_claim(search.journal, record)
            yield Training(
                index=index,
                arm=Arm.CLAIM,
                label=f"{'sealed' if sealed else 'claim'}, {access.side}",
                experiment=record.experiment,
                commit=record.base if access.side == BASELINE else record.tip,
                seed=access.seed,
                splits=splits,
                items=f"{_items(record)}/{access.side}-{access.seed}" if sealed else "",
                fields={
                    "submission": _weights(record, access),
                    **(_unseen(record, access) if sealed else {}),
                },
            )

    field = "test" if Split.TEST in splits else "validation"
    for index, result in run_trainings(search, planned()):
        failures = record.accesses[index].failures + (result.score is None and not _by_machine(result))
        scored = {field: result.score, "reason": result.reason, "failures": failures}
        record = _judged(record.with_access(index, **scored), index, result)
        write_claim(search.journal, record)
    return record


def _unseen(record: ClaimRecord, access: Access) -> dict[str, Any]:
    """How a model is scored on text that no program has seen."""
    if access.share is None:
        return {"blind": True, "blind_seed": access.questions}
    return {"blind": True, "blind_seed": access.questions, "share": (access.share, record.shares)}


def _judged(record: ClaimRecord, index: int, result: Measurement) -> ClaimRecord:
    """The record, void if this training shows that there can be no claim."""
    access, invalid = record.accesses[index], result.outcome is Outcome.INVALID
    if record.void or not (invalid or access.given_up):
        return record
    side = "the result" if access.side == TIP else "the starting script"
    how = "was invalid" if invalid else "failed twice, and a claim needs all its trainings"
    why = f"a training of {side} {how}: {result.reason}"
    return replace(record, void=why, caught=invalid and access.side == TIP, finished=now())


def _by_machine(result: Measurement) -> bool:
    """Whether a busy or full machine may be the reason of a failure."""
    return classify(result.reason) == TIMEOUT or "killed from outside" in result.reason


def _open(search: Search, record: ClaimRecord) -> ClaimRecord:
    """Open the sealed split: score every model on it.

    Raises:
        UserError: If a model could not be scored: the claim stays open.
    """
    record = _run(search, record, [i for i, a in enumerate(record.accesses) if not a.done], (Split.TEST,))
    if record.void:
        return record
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
    result, blind = _result(record, search.task.metric, folder), _blind(record, folder)
    done = replace(record, finished=now(), result=result, blind=blind)
    if blind is not None and result.effect - blind[0] > BLIND_Z * blind[1]:
        why = f"the answers given blind show a gain of {blind[0]:.4g}, not of {result.effect:.4g}"
        done = replace(done, result=None, void=why, caught=True)
    write_claim(search.journal, done)
    _keep_one(search, done)
    for weights in folder.glob("*.weights"):
        weights.unlink()
    return done


def _keep_one(search: Search, record: ClaimRecord) -> None:
    """Keep the weights of one training of the tip for MLflow, where `sample` has its own and `clean` sees."""
    for access in record.accesses:
        path = search.folder / _weights(record, access)
        if access.side == TIP and path.exists() and record.result is not None:
            kept = search.folder / WEIGHTS / f"{record.tip[:12]}-{access.seed}"
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)
            return


def _result(record: ClaimRecord, metric: Metric, folder: Path) -> Claim:
    """The statistics, which are of losses; means of scores are told as scores."""
    before, after = (
        # Pairs have a seed and a share in common. In claims planned by earlier versions only the share.
        {
            a.seed if a.share is None else a.share: metric.loss(a.test)
            for a in record.accesses
            if a.side == side and a.test is not None
        }
        for side in (BASELINE, TIP)
    )
    start, end = (_mean(record.scores(side, "validation")) for side in (BASELINE, TIP))
    result = claim(before, after, sampling=_sampling(record, folder), validation_gain=metric.gain(start, end))
    return replace(result, baseline=metric.loss(result.baseline), tip=metric.loss(result.tip))


def _sampling(record: ClaimRecord, folder: Path) -> Variance:
    """The variance that the documents of the sealed split give the difference; 0 without losses of items."""
    import numpy as np

    if record.shares:  # each pair of trainings saw other documents, so their spread has it
        return Variance(0.0, math.inf)
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


def _blind(record: ClaimRecord, folder: Path) -> tuple[float, float] | None:
    """The gain by the blind answers of all trainings, and its standard error; None if there are none."""
    asked: dict[int | None, dict[str, NDArray[np.float64]]] = {}
    for access in record.accesses:
        table = read_losses(folder / f"{access.side}-{access.seed}", "blind")
        if table is None:
            return None
        asked.setdefault(access.questions, {})[access.side] = table
    return blind_gain([(sides[BASELINE], sides[TIP]) for sides in asked.values()])


def _items(record: ClaimRecord) -> str:
    """Where losses of items are kept, by which anybody can compute the claim again; and weights meanwhile."""
    return f"claims/{record.number}"


def _weights(record: ClaimRecord, access: Access) -> str:
    """Where the weights of one training are kept meanwhile."""
    return f"{_items(record)}/{access.side}-{access.seed}.weights"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
