import multiprocessing
import os
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.errors import UserError
from autoresearch.record.journal import Journal, SearchInfo, lock
from autoresearch.types import (
    Category,
    Cost,
    Edit,
    Outcome,
    Proposal,
    State,
    TrialResult,
    Verdict,
    VerdictKind,
)

INFO = SearchInfo(
    name="x", base_commit="b" * 40, branch="autoresearch/x", created=1.0, task="t", brief="default",
    brief_text="# B", config={"overrides": []}, data={"corpus": "sotu"}, device="cpu",
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
    trial = journal.start_trial(experiment.number, "screen", 7, "c" * 40)
    journal.finish_trial(trial, TrialResult(Outcome.OK, 1.5, curve=((0.5, 2.0),)), '{"judge": 1}', KEEP)
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
    for arm, score in (("screen", 1.0), ("incumbent", 9.0), ("confirm", 2.0)):
        trial = journal.start_trial(1, arm, 0, "b" if arm == "incumbent" else "c")
        journal.finish_trial(trial, TrialResult(Outcome.OK, score))
    assert journal.experiment(1).scores == (1.0, 2.0)


def test_a_trial_whose_runner_died_counts_as_lost_not_as_a_result(journal: Journal) -> None:
    journal.start_trial(0, "baseline", 0, "b")
    assert journal.abandon_open_trials() == 1
    (trial,) = journal.experiment(0).trials
    assert trial.result is None and trial.finished is not None
    assert journal.experiment(0).scores == ()


def test_recorded_experiments_are_cached_but_later_ones_are_seen(journal: Journal) -> None:
    journal.add(PROPOSAL, "b")
    journal.judged(1, KEEP)
    journal.recorded(1, "c")
    first = journal.experiments()
    journal.add(PROPOSAL, "b")
    trial = journal.start_trial(0, "baseline", 0, "b")
    journal.finish_trial(trial, TrialResult(Outcome.OK, 1.0))
    second = journal.experiments()
    assert second[1] is first[1] and len(second) == 3 and second[0].scores == (1.0,)


def test_the_outbox_names_what_changed(journal: Journal) -> None:
    journal.mirrored(0)
    journal.add(PROPOSAL, "b")
    assert journal.dirty() == (1,)
    journal.mirrored(1)
    journal.start_trial(1, "screen", 0, "c")
    assert journal.dirty() == (1,)


def test_a_journal_that_cannot_be_written_says_so_and_stays_whole(journal: Journal) -> None:
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
        trial = journal.start_trial(number, "screen", 0, "c")
        journal.finish_trial(trial, TrialResult(Outcome.OK, 1.0), str(number), KEEP)


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


def test_only_one_process_may_run_a_search(tmp_path: Path) -> None:
    says = pytest.raises(UserError, match=f"already running .process {os.getpid()}")
    with lock(tmp_path / "x"), says, lock(tmp_path / "x"):
        pass
    with lock(tmp_path / "x"):
        pass


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
