"""Claims and audits are read back as written; each text of the brief is kept with its time."""

from dataclasses import replace

import pytest

from autoresearch.judge.finished import Audited, Claim
from autoresearch.report.page import write_report
from autoresearch.report.summary import summarize
from autoresearch.store.journal import Journal
from autoresearch.store.notes import (
    BASELINE,
    TIP,
    AuditRecord,
    AuditRun,
    ClaimRecord,
    current_brief,
    interleaved,
    read_audits,
    read_briefs,
    read_claims,
    read_unbilled,
    write_audit,
    write_claim,
    write_unbilled,
)
from autoresearch.types import Cost
from tests.support.searches import INFO


@pytest.fixture
def journal(tmp_path):
    journal = Journal.create(tmp_path / "night1" / "journal.db", replace(INFO, brief_text="# One\n"))
    yield journal
    journal.close()


def test_an_edit_of_the_brief_is_noticed_and_recorded(journal, tmp_path):
    path = tmp_path / "mine.md"
    for text in ("# One\n", "# One\n", "# Two\nSimplify.\n", "# Two\nSimplify.\n"):
        path.write_text(text)
        assert current_brief(journal, path) == text
    briefs = read_briefs(journal)
    assert [brief.text for brief in briefs] == ["# One\n", "# Two\nSimplify.\n"]
    assert briefs[0].time == INFO.created < briefs[1].time
    assert journal.info().brief_text == "# One\n", "what it was begun with"
    changes = summarize(journal).brief_changes
    assert [change.text for change in changes] == ["# Two\nSimplify.\n"]
    assert "brief changed" in write_report(journal, "", tmp_path / "report").markdown.read_text()


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"", b"  \n"])
def test_a_brief_that_cannot_be_read_counts_as_unchanged(journal, tmp_path, content):
    path = tmp_path / "mine.md"
    path.write_text("# Now\n")
    current_brief(journal, path)
    path.unlink() if content is None else path.write_bytes(content)
    assert current_brief(journal, path) == "# Now\n" and len(read_briefs(journal)) == 2


def test_another_brief_is_a_change_under_its_name(journal, tmp_path):
    path = tmp_path / "other.md"
    path.write_text("# Other\n")
    assert current_brief(journal, path, "other") == "# Other\n"
    assert journal.info().brief == "default" and [b.name for b in read_briefs(journal)] == [
        "default",
        "other",
    ]


def test_an_unchanged_brief_is_no_change_in_the_summary(journal, tmp_path):
    path = tmp_path / "mine.md"
    path.write_text("# One\n")
    current_brief(journal, path)
    assert summarize(journal).brief_changes == []


def test_costs_that_no_proposal_carries_are_recorded_if_they_changed(journal):
    assert read_unbilled(journal) == {}
    cost = {"anthropic:m": Cost(2, 100, 10, 0.5, 3.0)}
    write_unbilled(journal, cost, {"anthropic"})
    assert read_unbilled(journal) == cost
    version = journal._db.execute("PRAGMA data_version").fetchone(), journal._db.total_changes
    write_unbilled(journal, cost, {"anthropic"})
    assert (journal._db.execute("PRAGMA data_version").fetchone(), journal._db.total_changes) == version
    other = {"openai:n": Cost(1, 10, 1, 0.1, 1.0)}
    write_unbilled(journal, other, {"openai"})  # another proposer was chosen: what was paid in vain stays
    assert read_unbilled(journal) == {**cost, **other}
    assert summarize(journal).cost.dollars == pytest.approx(0.6)
    write_unbilled(journal, {}, {"openai", "anthropic"})
    assert read_unbilled(journal) == {}


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
