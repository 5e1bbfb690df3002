"""The audit of a finished branch: its kept changes, with random sets of them left out, trained and compared.

Owns the design: random halves and their complements, so that every training informs on every change. Each is
in the journal before it starts, so an audit that was killed goes on. A change that later ones build on cannot
be left out alone: it stays, and is reported as not separable. Not covered: the statistics
(`autoresearch.judge.finished`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autoresearch.clock import now
from autoresearch.edit.candidate import carry
from autoresearch.errors import Refused, UserError
from autoresearch.finish.trainings import Training, run_trainings, unused_seed
from autoresearch.judge import Judge
from autoresearch.judge.finished import audit, doubtful
from autoresearch.search.loop import Search
from autoresearch.store.commits import commit_message
from autoresearch.store.notes import AuditRecord, AuditRun, read_audits, write_audit
from autoresearch.types import Arm, Experiment, Split

MAX_UNBUILDABLE = 50
"""Random sets in a row that cannot be built, after which no more are tried."""


@dataclass(frozen=True)
class Stack:
    """The kept changes of a search, to be built in any selection."""

    search: Search
    keeps: tuple[Experiment, ...]

    def commits(self, present: Sequence[bool]) -> list[str]:
        """Commit the chosen changes, one on the other; the last one is what to train.

        Raises:
            Refused: If one of them cannot be made without those that are left out.
        """
        search = self.search
        made = [search.journal.info().base_commit]
        for keep, chosen in zip(self.keeps, present, strict=True):
            if not chosen:
                continue
            assert keep.proposal is not None
            ours = search.state.sources(made[-1])
            base, theirs = search.state.sources(keep.parent), search.state.sources(keep.commit)
            sources = carry(ours, base, theirs, keep.proposal.edits, search.repository.merge)
            made.append(
                search.repository.commit(
                    made[-1], sources, commit_message(keep, search.task.metric), keep.created
                )
            )
        return made

    def separable(self) -> tuple[bool, ...]:
        """Which of the changes can be left out alone."""
        return tuple(
            self._buildable([j != i for j in range(len(self.keeps))]) for i in range(len(self.keeps))
        )

    def selections(self, separable: Sequence[bool], seed: int) -> Iterator[tuple[bool, ...]]:
        """Random halves of what is separable and their complements, without end unless none can be built."""
        chance, failed = random.Random(seed), 0
        while failed < MAX_UNBUILDABLE:
            half = [not free or chance.random() < 0.5 for free in separable]
            other = [not free or not chosen for free, chosen in zip(separable, half, strict=True)]
            for present in (half, other):
                if self._buildable(present):
                    failed = 0
                    yield tuple(present)
                else:
                    failed += 1

    def _buildable(self, present: Sequence[bool]) -> bool:
        try:
            self.commits(present)
        except Refused:
            return False
        return True


def make_audit(search: Search, runs: int) -> AuditRecord:
    """Audit the branch of a search, or go on with an audit that was begun.

    Args:
        search: An open search.
        runs: Trainings to spend on it.

    Raises:
        UserError: If there are not two kept changes, or their noise is not known.
    """
    journal = search.journal
    stack = Stack(search, search.state.kept)
    report = Judge.from_json(journal.judge_state() or "").report() if stack.keeps else None
    if report is None or len(stack.keeps) < 2 or not report.noise:
        raise UserError(
            "There is nothing to audit: a search with two kept changes or more, and known noise, is needed.",
            "Search on: autoresearch run name=...",
        )
    tip = stack.keeps[-1].commit
    record = next((r for r in read_audits(journal) if r.tip == tip), None) or _plan(stack, tip, runs)
    write_audit(journal, record)
    left = sum(not run.done for run in record.runs)
    search.view.message(
        f"Audit: {left} trainings, random halves of {len(stack.keeps)} kept changes left out."
    )
    record = _train(stack, record)
    loss = search.task.metric.loss
    scored = [(run.present, loss(run.score)) for run in record.runs if run.score is not None]
    audited = audit(report.keeps, scored, report.noise, report.tau)
    removed = doubtful(audited, separable=record.separable)
    record = replace(record, finished=now(), audited=tuple(audited), removed=tuple(removed))
    if removed:
        record = _branch(stack, record)
    write_audit(journal, record)
    return record


def _plan(stack: Stack, tip: str, runs: int) -> AuditRecord:
    separable = stack.separable()
    journal = stack.search.journal
    first = unused_seed(stack.search, (run.seed for r in read_audits(journal) for run in r.runs))
    selections = stack.selections(separable, seed=len(stack.keeps))
    chosen = [AuditRun(present, first + i) for i, present in zip(range(runs), selections, strict=False)]
    return AuditRecord(tip, tuple(e.number for e in stack.keeps), separable, now(), tuple(chosen))


def _train(stack: Stack, record: AuditRecord) -> AuditRecord:
    search = stack.search

    def planned() -> Iterator[Training]:
        nonlocal record
        for index, run in enumerate(record.runs):
            if run.done:
                continue
            commit = stack.commits(run.present)[-1]
            ref = f"refs/autoresearch/{search.config.name}/audit/{record.tip[:10]}/{index:03d}"
            search.repository.update_refs({ref: commit})
            record = record.with_run(index, started=now())
            write_audit(search.journal, record)
            left_out = [n for n, present in zip(record.keeps, run.present, strict=True) if not present]
            yield Training(
                index=index,
                arm=Arm.AUDIT,
                label=f"audit without {' '.join(map(str, left_out)) or 'none'}",
                experiment=record.keeps[-1],
                commit=commit,
                seed=run.seed,
                splits=(Split.VALIDATION,),
                items=f"losses/audit-{record.tip[:10]}-{index}",
            )

    for index, result in run_trainings(search, planned()):
        record = record.with_run(index, score=result.score, reason=result.reason)
        write_audit(search.journal, record)
    return record


def _branch(stack: Stack, record: AuditRecord) -> AuditRecord:
    """A branch without the doubtful changes, if it can be built."""
    present = [i not in record.removed for i in range(len(stack.keeps))]
    try:
        commit = stack.commits(present)[-1]
    except Refused as error:
        stack.search.view.message(f"What is doubtful cannot be left out together: {error}", warning=True)
        return record
    repository, name = stack.search.repository, f"{stack.search.journal.info().branch}-audited"
    for branch in (name, *(f"{name}-{number}" for number in range(2, 100))):
        ref = f"refs/heads/{branch}"
        if repository.resolve(ref) in (None, commit):  # a branch of that name may be somebody else's
            repository.update_refs({ref: commit}, expected={ref: repository.resolve(ref)})
            return replace(record, branch=branch)
    return record
