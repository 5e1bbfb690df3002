"""Each text of the brief is kept with its time."""

import os
from dataclasses import replace

import pytest

from autoresearch.report.page import write_report
from autoresearch.report.summary import summarize
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal
from autoresearch.store.records.notes import Brief, current_brief, read_briefs, read_unbilled, write_unbilled
from autoresearch.types import Cost
from tests.support.searches import INFO
from tests.support.stub import make_repository, make_search, scripted


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


def test_a_brief_that_is_edited_for_one_search_counts_until_its_file_is_changed(tmp_path):
    search = make_search(make_repository(tmp_path / "repo"), [0.2, 0.1])
    journal, inbox = search.journal, Inbox(search.folder)
    search.inbox = inbox
    path = search.config.brief_path
    before = path.read_text("utf-8")
    assert current_brief(journal, path, "default") == before
    edited = inbox.edit_brief("default", "# Only depth")
    search.run()
    assert {context.brief for context in scripted(search).asked} == {"# Only depth"}
    assert [b.name for b in read_briefs(journal)][-1] == "default, edited"
    assert read_briefs(journal)[-1].hash == edited.hash == Brief(9, "x", "# Only depth").hash
    own = tmp_path / "own.md"
    own.write_text("# Own")
    assert current_brief(journal, own, "own.md", edited) == "# Own", "it is of another brief"
    edited = inbox.edit_brief("own.md", "# Mine")
    assert current_brief(journal, own, "own.md", edited) == "# Mine"
    os.utime(own, (edited.time + 5, edited.time + 5))
    assert current_brief(journal, own, "own.md", edited) == "# Own", "the later change counts"
    own.unlink()
    assert current_brief(journal, own, "own.md", edited) == "# Mine"
    journal.close()
