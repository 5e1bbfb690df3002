"""The audit of a finished branch: its kept changes, with some of them left out, trained and compared.

Owns the two designs: random halves and their complements, so that every training informs on every change; or
an ablation, which leaves out one change at a time. Each training is in the journal before it starts, so an
audit that was killed goes on. A change that later ones build on cannot be left out alone: it stays, and is
reported as not separable. Not covered: the statistics (`autoresearch.judge.finished.audit`), and how a
selection of changes is built (`stack`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from autoresearch.clock import now
from autoresearch.errors import Refused, UserError
from autoresearch.finish.stack import Stack, point_branch
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge import Judge
from autoresearch.judge.finished.audit import audit, doubtful
from autoresearch.search.loop import Search
from autoresearch.store.records.claims import AuditRecord, AuditRun, Design, read_audits, write_audit
from autoresearch.types import Arm, Split

MAX_UNBUILDABLE = 50
"""Random sets in a row that cannot be built, after which no more are tried."""


def selections(stack: Stack, separable: Sequence[bool], design: Design) -> Iterator[tuple[bool, ...]]:
    """What to train, without end unless nothing can be built.

    Args:
        stack: The kept changes.
        separable: Which of them can be left out alone.
        design: Random halves of these and their complements; or all changes, then all but one, in turn.
    """
    if design is Design.ONE_LEFT_OUT:
        free = [i for i, alone in enumerate(separable) if alone]
        every = range(len(separable))
        yield from cycle([tuple(j != i for j in every) for i in (-1, *free)] if free else ())
        return
    chance, failed = random.Random(len(stack.keeps)), 0
    while failed < MAX_UNBUILDABLE:
        half = [not free or chance.random() < 0.5 for free in separable]
        other = [not free or not chosen for free, chosen in zip(separable, half, strict=True)]
        for present in (half, other):
            if stack.buildable(present):
                failed = 0
                yield tuple(present)
            else:
                failed += 1


def make_audit(search: Search, runs: int, design: Design = Design.HALVES) -> AuditRecord:
    """Audit the branch of a search, or go on with an audit that was begun.

    Args:
        search: An open search.
        runs: Trainings to spend on it; of an ablation, on each change and on all of them together.
        design: What is left out.

    Raises:
        UserError: If there are not two kept changes, or their noise is not known.
    """
    journal = search.journal
    stack = Stack(search.state, search.state.kept)
    report = Judge.from_json(journal.judge_state() or "").report() if stack.keeps else None
    if report is None or len(stack.keeps) < 2 or not report.noise:
        raise UserError(
            "There is nothing to audit: a search with two kept changes or more, and known noise, is needed.",
            "Search on: autoresearch run name=...",
        )
    tip = stack.keeps[-1].commit
    known = (r for r in read_audits(journal) if r.tip == tip and r.design is design)
    record = next(known, None) or _plan(search, stack, runs, design)
    write_audit(journal, record)
    left = sum(not run.done for run in record.runs)
    search.view.message(f"{left} trainings, {design.left_out} of {len(stack.keeps)} kept changes left out.")
    record = _train(search, stack, record)
    loss = search.task.metric.loss
    scored = [(run.present, loss(run.score)) for run in record.runs if run.score is not None]
    audited = audit(report.keeps, scored, report.noise, report.tau)
    removed = doubtful(audited, separable=record.separable)
    record = replace(record, finished=now(), audited=tuple(audited), removed=tuple(removed))
    if removed:
        record = _branch(search, stack, record)
    write_audit(journal, record)
    return record


def _plan(search: Search, stack: Stack, runs: int, design: Design) -> AuditRecord:
    separable, keeps = stack.separable(), stack.keeps
    if design is Design.ONE_LEFT_OUT:
        runs *= 1 + sum(separable)
    first = unused_seed(search, (run.seed for r in read_audits(search.journal) for run in r.runs))
    chosen = zip(range(runs), selections(stack, separable, design), strict=False)
    trained = tuple(AuditRun(present, first + i) for i, present in chosen)
    numbers = tuple(e.number for e in keeps)
    return AuditRecord(keeps[-1].commit, numbers, separable, now(), trained, design=design)


def _train(search: Search, stack: Stack, record: AuditRecord) -> AuditRecord:
    kind = f"{record.design}-{record.tip[:10]}"

    def planned() -> Iterator[Training]:
        nonlocal record
        for index, run in enumerate(record.runs):
            if run.done:
                continue
            commit = stack.commits(run.present)[-1]
            ref = f"refs/autoresearch/{search.config.name}/{record.design}/{record.tip[:10]}/{index:03d}"
            search.repository.update_refs({ref: commit})
            record = record.with_run(index, started=now())
            write_audit(search.journal, record)
            left_out = [n for n, present in zip(record.keeps, run.present, strict=True) if not present]
            yield Training(
                index=index,
                arm=Arm.AUDIT,
                label=f"{record.design} without {' '.join(map(str, left_out)) or 'none'}",
                experiment=record.keeps[-1],
                commit=commit,
                seed=run.seed,
                splits=(Split.VALIDATION,),
                items=f"losses/{kind}-{index}",
            )

    for index, result in run_trainings(search, planned()):
        record = record.with_run(index, score=result.score, reason=result.reason)
        write_audit(search.journal, record)
    return record


def _branch(search: Search, stack: Stack, record: AuditRecord) -> AuditRecord:
    """A branch without the doubtful changes, if it can be built."""
    present = [i not in record.removed for i in range(len(stack.keeps))]
    try:
        commit = stack.commits(present)[-1]
    except Refused as error:
        search.view.message(f"What is doubtful cannot be left out together: {error}", warning=True)
        return record
    name = f"{search.journal.info().branch}-{record.design.past}"
    return replace(record, branch=point_branch(search.repository, name, commit))
