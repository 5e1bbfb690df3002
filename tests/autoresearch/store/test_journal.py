import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.errors import UserError
from autoresearch.report.summary import summarize
from autoresearch.store import connection, database
from autoresearch.store.inbox import Inbox
from autoresearch.store.journal import Journal, SearchInfo
from autoresearch.store.searches import searches
from autoresearch.types import (
    Arm,
    Category,
    Cost,
    Direction,
    Edit,
    Measurement,
    Metric,
    Outcome,
    Proposal,
    State,
    Verdict,
    VerdictKind,
    in_order,
)

METRIC = Metric("val_bpb", "bits per byte", digits=4, per_item=True)
INFO = SearchInfo(
    name="x", base_commit="b" * 40, branch="autoresearch/x", created=1.0, task="t", brief="default",
    brief_text="# B", config={"overrides": []}, data={"corpus": "sotu"}, device="cpu", metric=METRIC,
)  # fmt: skip
PROPOSAL = Proposal(
    "try it", Category.KNOBS, (Edit("a.py", "x", "y"),), "test", params={"LR": 0.1}, cost=Cost(1, 2, 3)
)
KEEP = Verdict(VerdictKind.KEEP, 0.01, (0.005, 0.015), 3.0, 2, "clear")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "x" / "journal.db", INFO)


def test_what_is_written_is_read_back_by_another_process(journal: Journal) -> None:
    experiment = journal.add(PROPOSAL, INFO.base_commit)
    journal.committed(experiment.number, "c" * 40, "diff")
    trial = journal.start_trial(experiment.number, Arm.SCREEN, 7, "c" * 40)
    result = Measurement(Outcome.OK, 1.5, curve=((0.5, 2.0),))
    journal.finish_trial(trial, result, '{"judge": 1}', {1: KEEP})
    journal.recorded(experiment.number, "d" * 40)
    again = Journal(journal.path)
    read = again.experiment(1)
    assert (read.state, read.commit, read.verdict, read.proposal) == (
        State.RECORDED,
        "d" * 40,
        KEEP,
        PROPOSAL,
    )
    assert read.scores == (1.5,)
    assert read.trials[0].result and read.trials[0].result.curve == ((0.5, 2.0),)
    assert again.judge_state() == '{"judge": 1}'
    assert again.info() == INFO


def test_numbers_follow_each_other_and_the_baseline_is_zero(journal: Journal) -> None:
    assert [journal.add(PROPOSAL, "b").number for _ in range(3)] == [1, 2, 3]
    assert [e.number for e in journal.experiments()] == [0, 1, 2, 3]


def test_reruns_of_the_incumbent_are_not_scores_of_the_candidate(journal: Journal) -> None:
    journal.add(PROPOSAL, "b")
    for arm, score in ((Arm.SCREEN, 1.0), (Arm.INCUMBENT, 9.0), (Arm.CONFIRM, 2.0)):
        trial = journal.start_trial(1, arm, 0, "b" if arm == Arm.INCUMBENT else "c")
        journal.finish_trial(trial, Measurement(Outcome.OK, score))
    assert journal.experiment(1).scores == (1.0, 2.0)


def test_a_trial_whose_process_died_has_no_result(journal: Journal) -> None:
    journal.start_trial(0, Arm.BASELINE, 0, "b")
    assert journal.abandon_open_trials() == 1
    (trial,) = journal.experiment(0).trials
    assert trial.result is None and trial.finished is not None
    assert journal.experiment(0).scores == ()


def test_an_interruption_is_no_device_time(journal: Journal) -> None:
    lost = journal.start_trial(0, Arm.BASELINE, 0, "b")
    with journal._write() as db:  # ten hours ago, and the last thing that was recorded came 30 s later
        db.execute("UPDATE trials SET started = started - 36000")
    other = journal.start_trial(0, Arm.BASELINE, 1, "b")
    with journal._write() as db:
        db.execute("UPDATE trials SET started = started - 35970 WHERE id = ?", (other.id,))
    journal.abandon_open_trials()
    first, second = journal.experiment(0).trials
    assert first.id == lost.id and first.seconds == pytest.approx(30, abs=1) and second.seconds == 0


def test_a_proposal_does_not_wait_while_nobody_runs_the_search_and_is_paid_for(journal: Journal) -> None:
    paid = replace(PROPOSAL, cost=Cost(dollars=0.25, calls=1))
    journal.draft(paid, "b", time.time() - 36_020)
    with journal._write() as db:  # it was made ten hours ago, in 20 s
        db.execute("UPDATE drafts SET created = started + 20")
    journal.abandon_open_trials()
    assert summarize(journal).cost.dollars == 0.25
    (draft,) = journal.drafts()
    assert draft.created - draft.started == pytest.approx(20)
    number = journal.adopt(draft, paid, "b").number
    assert [span.finished - span.started < 60 for span in journal.timeline(number)] == [True, True]
    assert summarize(journal).cost.dollars == 0.25


def test_a_clock_that_was_set_back_between_two_processes_makes_no_trial_longer(journal: Journal) -> None:
    ahead = journal.start_trial(0, Arm.BASELINE, 0, "b")
    with journal._write() as db:  # the process before had a clock that was ten hours ahead
        db.execute("UPDATE trials SET started = started + 36000, finished = started + 36001, result = '{}'")
    journal.mark(0, ahead.id, "judge", ahead.started + 36_000, ahead.started + 36_002)
    lost = journal.start_trial(0, Arm.BASELINE, 1, "b")
    assert journal.abandon_open_trials() == 1
    assert journal._rows("SELECT finished - started FROM trials WHERE id = ?", (lost.id,)) == [(0.0,)]


def test_the_length_of_a_trial_is_that_of_its_phases(journal: Journal) -> None:
    trial = journal.start_trial(0, Arm.BASELINE, 0, "b")
    begun = trial.started + 400.0  # it waited
    phases = (
        ("startup", begun, begun + 2.0),
        ("train", begun + 2.0, begun + 20.0),
        ("score", begun + 20, begun + 22),
    )
    done = journal.finish_trial(trial, Measurement(Outcome.OK, 1.0, phases=phases))
    journal.mark(0, trial.id, "judge", begun + 22, begun + 30)
    journal.set("x", "y")
    assert done.seconds == journal.experiment(0).trials[0].seconds == pytest.approx(22)
    assert Journal(journal.path).experiment(0).trials[0].seconds == pytest.approx(22)
    assert summarize(journal).cost.device_seconds == pytest.approx(22)
    journal.set("seconds_after", "100.5")
    assert summarize(journal).cost.device_seconds == pytest.approx(122.5)


def test_recorded_experiments_are_cached_but_later_ones_are_seen(journal: Journal) -> None:
    journal.add(PROPOSAL, "b")
    journal.judged(1, KEEP)
    journal.recorded(1, "c")
    first = journal.experiments()
    journal.add(PROPOSAL, "b")
    trial = journal.start_trial(0, Arm.BASELINE, 0, "b")
    journal.finish_trial(trial, Measurement(Outcome.OK, 1.0))
    second = journal.experiments()
    assert second[1] is first[1] and len(second) == 3 and second[0].scores == (1.0,)


def test_experiments_that_changed_since_they_were_mirrored_are_listed(journal: Journal) -> None:
    journal.mirrored(0)
    journal.add(PROPOSAL, "b")
    assert journal.dirty() == (1,)
    journal.mirrored(1)
    journal.start_trial(1, Arm.SCREEN, 0, "c")
    assert journal.dirty() == (1,)


def test_a_journal_that_another_process_locks_raises_an_error_and_stays_whole(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WAIT_SECONDS", 0.0)
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UserError, match="cannot be written"):
        journal.add(PROPOSAL, "b")
    other.execute("ROLLBACK")
    assert journal.add(PROPOSAL, "b").number == 1


def test_a_newer_schema_is_refused(journal: Journal) -> None:
    journal._db.execute("PRAGMA user_version = 999")
    with pytest.raises(UserError, match="schema 999"):
        Journal(journal.path)


def _add_for_ever(path: Path) -> None:
    journal = Journal(path)
    while True:
        number = journal.add(PROPOSAL, "b").number
        trial = journal.start_trial(number, Arm.SCREEN, 0, "c")
        journal.finish_trial(trial, Measurement(Outcome.OK, 1.0), str(number), {number: KEEP})


def test_killed_at_any_instant_result_judge_and_verdict_agree(journal: Journal) -> None:
    for pause in (0.05, 0.11, 0.17):
        child = multiprocessing.get_context("fork").Process(target=_add_for_ever, args=(journal.path,))
        child.start()
        time.sleep(pause)
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        again = Journal(journal.path)
        done = [e for e in again.experiments() if e.verdict]
        assert all(e.trials[0].result for e in done)
        assert again.judge_state() == (str(done[-1].number) if done else None)


V1 = """
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, created REAL NOT NULL,
    commit_id TEXT NOT NULL DEFAULT '', proposal TEXT, verdict TEXT, diff TEXT NOT NULL DEFAULT '',
    finished REAL, dirty INTEGER NOT NULL DEFAULT 1);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL REFERENCES experiments(number), arm TEXT NOT NULL,
    seed INTEGER NOT NULL, commit_id TEXT NOT NULL, started REAL NOT NULL, finished REAL, result TEXT);
CREATE INDEX trials_by_experiment ON trials (experiment);
INSERT INTO experiments VALUES (0, 'committed', 'b', 1.0, 'b', NULL, NULL, '', NULL, 0);
INSERT INTO trials VALUES (1, 0, 'baseline', 7, 'b', 1.0, 2.0, '{"outcome": "ok", "score": 1.5}');
INSERT INTO trials VALUES (2, 1, 'screen', 7, 'c', 3.0, NULL, NULL);
PRAGMA user_version = 1;
"""


OLD_INFO = json.dumps({key: value for key, value in asdict(INFO).items() if key != "metric"})
"""Versions 1 and 2 did not record the metric."""

V2 = """
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE experiments (
    number INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, created REAL NOT NULL,
    commit_id TEXT NOT NULL DEFAULT '', proposal TEXT, verdict TEXT, diff TEXT NOT NULL DEFAULT '',
    finished REAL, dirty INTEGER NOT NULL DEFAULT 1, version INTEGER NOT NULL DEFAULT 0,
    fingerprint TEXT NOT NULL DEFAULT '');
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL REFERENCES experiments(number), arm TEXT NOT NULL,
    seed INTEGER NOT NULL, commit_id TEXT NOT NULL, started REAL NOT NULL, finished REAL, result TEXT,
    place TEXT NOT NULL DEFAULT '');
CREATE TABLE drafts (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, started REAL NOT NULL,
    created REAL NOT NULL, proposal TEXT NOT NULL, experiment INTEGER, reason TEXT NOT NULL DEFAULT '');
CREATE TABLE timeline (
    id INTEGER PRIMARY KEY, experiment INTEGER NOT NULL, trial INTEGER, phase TEXT NOT NULL,
    started REAL NOT NULL, finished REAL NOT NULL);
CREATE INDEX trials_by_experiment ON trials (experiment);
CREATE INDEX experiments_by_version ON experiments (version);
CREATE INDEX experiments_by_dirty ON experiments (dirty);
CREATE INDEX trials_by_finished ON trials (finished);
CREATE INDEX drafts_by_experiment ON drafts (experiment);
CREATE INDEX timeline_by_experiment ON timeline (experiment);
INSERT INTO experiments VALUES (0, 'committed', 'b', 1.0, 'b', NULL, NULL, '', NULL, 0, 3, 'base');
INSERT INTO trials VALUES (1, 0, 'baseline', 7, 'b', 1.0, 2.0,
    '{"outcome": "ok", "score": 1.5, "metrics": {"steps": 9.0}, "curve": [[0.5, 2.0]]}', 'cpu:0');
INSERT INTO trials VALUES (2, 1, 'screen', 7, 'c', 3.0, NULL, NULL, 'cpu:1');
INSERT INTO timeline VALUES (1, 0, 1, 'train', 1.0, 2.0);
INSERT INTO notes VALUES ('judge', '{"kind": "default"}');
PRAGMA user_version = 2;
"""


def test_a_journal_of_version_2_is_upgraded_in_place_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    old = sqlite3.connect(path)
    old.executescript(V2)
    old.execute("INSERT INTO notes VALUES ('info', ?)", (OLD_INFO,))
    proposal = json.dumps(PROPOSAL.to_dict())
    old.execute(
        "INSERT INTO experiments VALUES (1, 'committed', 'b', 2.0, 'c', ?, NULL, '', NULL, 1, 4, 'print')",
        (proposal,),
    )
    old.execute("INSERT INTO drafts VALUES (1, 'waiting', 'c', 3.0, 4.0, ?, NULL, '')", (proposal,))
    old.commit()
    old.close()
    journal = Journal(path)
    assert journal.info() == INFO and journal.info().metric == METRIC
    assert journal._db.execute("PRAGMA user_version").fetchone() == (database.SCHEMA_VERSION,)
    (first,) = journal.experiment(0).trials
    assert (first.score, first.arm, first.place) == (1.5, Arm.BASELINE, "cpu:0")
    assert first.result and first.result.items == {} and first.result.provenance.fraction == 1.0
    assert journal.experiment(1).proposal == PROPOSAL and journal.fingerprints() == {0: "base", 1: "print"}
    assert [span.phase for span in journal.timeline()] == ["train"] and journal.dirty() == (1,)
    assert journal.judge_state() == '{"kind": "default"}'
    (draft,) = journal.drafts()
    assert journal.abandon_open_trials() == 1
    assert journal.adopt(draft, draft.proposal, "c").number == 2
    journal.update(finished=9.0)
    assert Journal(path).info() == replace(INFO, finished=9.0)


def test_verdicts_of_an_older_journal_came_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    old = sqlite3.connect(path)
    old.executescript(V2)
    old.execute("INSERT INTO notes VALUES ('info', ?)", (OLD_INFO,))
    for number in (1, 2):
        proposal, verdict = json.dumps(PROPOSAL.to_dict()), json.dumps(KEEP.to_dict())
        values = (number, proposal, verdict, number, str(number))
        old.execute(
            "INSERT INTO experiments VALUES (?, 'recorded', 'b', 2.0, 'c', ?, ?, '', NULL, 1, ?, ?)", values
        )
    old.commit()
    old.close()
    journal = Journal(path)
    for number in (3, 4):
        assert journal.add(PROPOSAL, "b").decided is None and number
    assert journal.judged(4, KEEP).decided == 3 and journal.judged(3, KEEP).decided == 4
    assert [e.number for e in in_order(journal.experiments())] == [0, 1, 2, 4, 3]
    assert journal.judged(4, KEEP).decided == 3, "a verdict that is replaced keeps its place"


def test_a_maximised_metric_is_recorded(tmp_path: Path) -> None:
    metric = Metric("accuracy", "share", Direction.MAXIMIZE, digits=3)
    journal = Journal.create(tmp_path / "journal.db", replace(INFO, metric=metric))
    assert journal.info().metric == metric and Journal(journal.path).info() == replace(INFO, metric=metric)


def test_a_journal_of_version_1_is_upgraded_in_place_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    old = sqlite3.connect(path)
    old.executescript(V1)
    old.execute("INSERT INTO notes VALUES ('info', ?)", (OLD_INFO,))
    old.execute("INSERT INTO notes VALUES ('judge', '{}')")
    proposal = json.dumps(PROPOSAL.to_dict())
    old.execute(
        "INSERT INTO experiments VALUES (1, 'committed', 'b', 2.0, 'c', ?, NULL, 'diff', NULL, 1)",
        (proposal,),
    )
    old.commit()
    old.close()
    journal = Journal(path)
    assert [e.number for e in journal.experiments()] == [0, 1]
    assert journal.experiment(0).scores == (1.5,) and journal.experiment(1).proposal == PROPOSAL
    assert journal.info() == INFO and journal.judge_state() == "{}" and journal.dirty() == (1,)
    assert journal.fingerprints() == {0: "", 1: ""} and journal.drafts() == () and not journal.timeline()
    assert journal.abandon_open_trials() == 1
    journal.judged(1, KEEP)
    assert journal.add(PROPOSAL, "c", "print").number == 2
    again = Journal(path)
    assert again.experiments() == journal.experiments() and again.fingerprints(1) == {2: "print"}


def test_an_upgrade_that_is_cut_short_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    sqlite3.connect(path).executescript(V1)
    first, second, *later = database._STEPS
    monkeypatch.setattr(database, "_STEPS", (first, f"{second}CREATE TABLE trials (x);\n", *later))
    with pytest.raises(sqlite3.OperationalError):
        Journal(path)
    monkeypatch.undo()
    assert len(Journal(path).experiments()) == 1


def test_another_reader_sees_every_change_and_reads_only_what_changed(journal: Journal) -> None:
    for _ in range(50):
        number = journal.add(PROPOSAL, "b").number
        journal.judged(number, KEEP)
        journal.recorded(number, "c")
    reader = Journal(journal.path)
    assert reader.experiments() == journal.experiments()
    rows = reader.rows_read
    journal.add(PROPOSAL, "b")
    trial = journal.start_trial(51, Arm.SCREEN, 1, "c")
    journal.finish_trial(trial, Measurement(Outcome.OK, 1.0), None, {51: KEEP})
    assert reader.experiments() == journal.experiments() and reader.experiment(51).kept
    assert reader.rows_read - rows <= 3


def test_a_draft_waits_until_it_is_adopted_or_dropped_and_its_cost_is_kept(journal: Journal) -> None:
    journal.draft(PROPOSAL, "b", 10.0)
    again = Journal(journal.path)
    (draft,) = again.drafts()
    assert (draft.proposal, draft.parent, draft.started) == (PROPOSAL, "b", 10.0)
    rebased = replace(PROPOSAL, edits=(Edit("a.py", "", "whole"),))
    experiment = again.adopt(draft, rebased, "d", "print")
    assert (experiment.number, experiment.proposal, experiment.parent) == (1, rebased, "d")
    assert again.drafts() == () and again.fingerprints() == {0: "", 1: "print"}
    assert [span.phase for span in again.timeline(1)] == ["propose", "queue"]
    again.drop(again.draft(PROPOSAL, "b", 11.0), "in the way")
    assert again.drafts() == () and Journal(journal.path).experiment(1).dropped == (PROPOSAL,)


def test_marks_are_written_with_the_next_step_or_at_the_end(journal: Journal) -> None:
    journal.mark(1, 7, "train", 5.0, 6.0)
    journal.mark(1, None, "propose", 1.0, 2.0)
    journal.mark(2, 8, "train", 7.0, 8.0)
    assert [s.phase for s in journal.timeline(1)] == ["propose", "train"]
    assert not Journal(journal.path).timeline()
    journal.close()
    assert [s.trial for s in Journal(journal.path).timeline()] == [None, 7, 8]


def test_threads_may_share_a_journal(journal: Journal) -> None:
    def work() -> None:
        for _ in range(20):
            number = journal.add(PROPOSAL, "b").number
            trial = journal.start_trial(number, Arm.SCREEN, 0, "c")
            journal.finish_trial(trial, Measurement(Outcome.OK, 1.0), None, {number: KEEP})
            assert journal.experiment(number).kept

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result()
    assert [e.number for e in journal.experiments()] == list(range(81))
    assert Journal(journal.path).experiments() == journal.experiments()


def test_a_full_disk_loses_nothing_and_says_what_to_do(journal: Journal) -> None:
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    journal.mark(0, None, "judge", 1.0, 2.0)
    with pytest.raises(UserError, match="full") as told:
        for _ in range(100):
            journal.add(replace(PROPOSAL, hypothesis="x" * 2000), "b")
    assert told.value.code == 3
    journal._db.execute("PRAGMA max_page_count = 100000")
    before = journal.experiments()
    journal.add(PROPOSAL, "b")
    assert journal.experiments()[:-1] == before and len(journal.timeline()) == 1


texts = st.text(max_size=40)


@given(
    texts,
    texts,
    st.floats(allow_nan=False),
    st.dictionaries(texts, st.integers() | st.floats(allow_nan=False)),
)
def test_proposals_survive_json(
    hypothesis: str, search: str, effect: float, params: dict[str, float]
) -> None:
    proposal = replace(
        PROPOSAL, hypothesis=hypothesis, edits=(Edit("a", search, ""),), expected_effect=effect, params=params
    )
    assert Proposal.from_dict(proposal.to_dict()) == proposal


def test_no_mark_is_lost_if_the_commit_finds_the_disk_full(journal: Journal) -> None:
    journal.mark(0, None, "judge", 1.0, 2.0)
    size = journal.path.with_name("journal.db-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            journal.set("note", "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.get("note") is None and len(journal.timeline()) == 1
    journal.set("note", "y")
    assert [span.phase for span in Journal(journal.path).timeline()] == ["judge"]


def test_closing_waits_for_a_thread_that_writes(journal: Journal) -> None:
    """A proposer that nobody waits for may answer just as the search ends."""
    writing, finished = threading.Event(), threading.Event()

    def write() -> None:
        with journal._write() as db:
            writing.set()
            time.sleep(0.2)
            db.execute("INSERT INTO notes VALUES ('late', 'but whole')")
        finished.set()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write)
        assert writing.wait(60)
        journal.close()
        assert finished.is_set()
        late.result()
    assert Journal(journal.path).get("late") == "but whole"


@pytest.mark.parametrize("column", ["proposal", "draft"])
def test_a_record_that_cannot_be_read_is_shown_as_such_and_hides_nothing(
    journal: Journal, column: str
) -> None:
    journal.add(PROPOSAL, "b")
    journal.refused(PROPOSAL, "no")
    with journal._write() as db:
        table = "experiments" if column == "proposal" else "drafts"
        db.execute(f"UPDATE {table} SET proposal = ? WHERE proposal IS NOT NULL", ('{"hypothesis": 3}',))
    (_, first) = Journal(journal.path).experiments()
    shown = first.proposal if column == "proposal" else first.dropped[0]
    assert shown is not None and "cannot be read" in shown.hypothesis
    assert summarize(Journal(journal.path)).tried == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")
def test_a_journal_on_a_read_only_file_system_can_be_looked_at(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    journal = Journal.create(place / "journal.db", INFO)
    journal.add(PROPOSAL, "b")  # in the log beside the file
    Inbox(place).add_note("a note")
    for words in (["--bind", place, place], ["-o", "remount,ro,bind", place]):
        if subprocess.run(["mount", *words], capture_output=True).returncode:
            pytest.skip("needs the right to mount")
    try:
        look = Journal(place / "journal.db")
        assert len(look.experiments()) == 2 and Inbox(place).notes() == ("a note",)
        assert [known.name for known in searches(tmp_path)] == ["runs"]
        with pytest.raises(UserError, match="read-only"):
            look.set("x", "y")
        with pytest.raises(UserError, match="cannot be used"):
            Inbox(place).add_note("lost")
        look.close()
    finally:
        subprocess.run(["umount", place], check=True)
