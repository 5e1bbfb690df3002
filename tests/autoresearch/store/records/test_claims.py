"""Claims and audits are read back as written."""

from dataclasses import replace

from autoresearch.judge.finished.audit import Audited
from autoresearch.judge.finished.claim import Claim
from autoresearch.store.records.claims import (
    BASELINE,
    TIP,
    AuditRecord,
    AuditRun,
    ClaimRecord,
    interleaved,
    read_audits,
    read_claims,
    write_audit,
    write_claim,
)


class Notes(dict[str, str]):
    def set(self, key: str, value: str) -> None:
        self[key] = value


def test_a_claim_is_read_back_as_it_was_written_and_replaced_by_its_number() -> None:
    notes = Notes()
    first = ClaimRecord(1, 3, "b", "c", 1.0, interleaved(range(2)))
    second = replace(first, number=2, tip="d")
    for record in (second, first):
        write_claim(notes, record)
    done = first.with_access(1, started=2.0, test=1.5, validation=1.6)
    result = Claim(0.1, (0.05, 0.15), 0.02, None, 1.8, 1.7, (2, 2), 0.01)
    done = replace(done, finished=9.0, result=result)
    write_claim(notes, done)
    assert read_claims(notes) == [done, second] and set(notes) == {"claims"}
    assert (
        done.scores(TIP) == [1.5] and done.scores(TIP, "validation") == [1.6] and done.scores(BASELINE) == []
    )
    assert [access.done for access in done.accesses] == [False, True, False, False]


def test_sides_alternate_so_that_drift_cancels() -> None:
    plan = interleaved([5, 6])
    assert [(a.side, a.seed) for a in plan] == [(BASELINE, 5), (TIP, 5), (TIP, 6), (BASELINE, 6)]


def test_an_audit_is_read_back_as_it_was_written_and_replaced_by_its_tip() -> None:
    notes = Notes()
    record = AuditRecord(
        "c", (1, 2), (True, False), 1.0, (AuditRun((True, False), 7), AuditRun((False, True), 8))
    )
    write_audit(notes, record)
    found = Audited(0.1, (0.05, 0.15), 0.01)
    done = record.with_run(0, started=2.0, score=1.5).with_run(1, reason="out of memory")
    done = replace(done, finished=9.0, audited=(found, found), removed=(1,), branch="x-audited")
    write_audit(notes, done)
    assert read_audits(notes) == [done] and set(notes) == {"audits"} and all(run.done for run in done.runs)
