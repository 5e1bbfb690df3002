from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.errors import Refused, UserError
from autoresearch.finish.audit import make_audit
from autoresearch.finish.stack import Stack
from autoresearch.report.markdown import audit_lines
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.claims import Design, read_audits
from tests.support.searches import METRIC
from tests.support.stub import PATH, git, make_repository, make_search, measurer

# The stub's score is the sum of what its script says: each line a change that can be left out, or not.
SCRIPT = "LEVEL = 1.0  # 0..2\nOTHER = 0\n\n\nprint(LEVEL, OTHER)\n"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def finished(repository: Repository, ideas: list[float | str], *overrides: str) -> Search:
    search = make_search(repository, ideas, *overrides)
    search.run()
    return search


@pytest.mark.slow
def test_every_change_is_left_out_and_its_gain_found_again(repository: Repository) -> None:
    search = finished(repository, [0.8, "OTHER = 1; GAIN = 0.04"])
    kept = [e.number for e in search.journal.experiments() if e.kept]
    assert kept == [1, 2]
    before = search.journal.experiments()
    record = make_audit(search, 8)
    assert record.keeps == (1, 2) and record.separable == (True, True) and record.removed == ()
    assert {run.present for run in record.runs} >= {(True, False), (False, True)}
    assert len({run.seed for run in record.runs}) == 8
    assert [a.effect for a in record.audited] == pytest.approx([0.02, 0.04], abs=0.004)
    assert search.journal.experiments() == before
    refs = git(repository.root, "for-each-ref", "--format=%(refname)", "refs/autoresearch/x/audit")
    assert len(refs.splitlines()) == 8
    assert "trainings with random halves left out" in "\n".join(audit_lines(record, METRIC))
    assert make_audit(search, 8) == read_audits(search.journal)[0]


@pytest.mark.slow
def test_what_is_not_real_is_taken_out_on_a_branch_of_its_own(repository: Repository) -> None:
    search = finished(repository, [0.8, "OTHER = 1; BLUFF = 0.02"], "judge=greedy")
    git(repository.root, "branch", "autoresearch/x-audited", "main")  # a person's
    record = make_audit(search, 24)
    assert record.removed == (1,) and record.branch == "autoresearch/x-audited-2"
    assert repository.resolve("autoresearch/x-audited") == repository.resolve("main")
    tip = repository.resolve("refs/heads/autoresearch/x-audited-2")
    assert tip
    text = repository.sources(tip, [PATH])[PATH]
    assert "LEVEL = 0.8" in text and "BLUFF" not in text
    assert "to be taken out" in "\n".join(audit_lines(record, METRIC))


def test_a_change_that_others_build_on_is_not_separable(repository: Repository) -> None:
    search = finished(repository, [0.8, 0.5])
    stack = Stack(search.state, tuple(e for e in search.journal.experiments() if e.kept))
    with pytest.raises(Refused):
        stack.commits([False, True])
    assert stack.separable() == (False, True)
    record = make_audit(search, 6)
    assert {run.present for run in record.runs} == {(True, True), (True, False)}
    assert "build on it" in "\n".join(audit_lines(record, METRIC))


@pytest.mark.slow
def test_an_ablation_leaves_one_change_out_at_a_time_and_marks_what_does_not_pay(
    repository: Repository,
) -> None:
    search = finished(repository, [0.8, "OTHER = 1; BLUFF = 0.02"], "judge=greedy")
    record = make_audit(search, 6, Design.ONE_LEFT_OUT)
    chosen = [run.present for run in record.runs]
    assert [chosen.count(p) for p in ((True, True), (False, True), (True, False))] == [6, 6, 6]
    assert record.removed == (1,) and record.branch == "autoresearch/x-ablated"
    told = "\n".join(audit_lines(record, METRIC))
    assert "one at a time left out" in told and "to be taken out" in told
    other = make_audit(search, 4)
    assert read_audits(search.journal) == [record, other], "an audit of random halves is another record"
    assert make_audit(search, 6, Design.ONE_LEFT_OUT).runs == record.runs


class Killed(BaseException):
    pass


def test_a_killed_audit_goes_on(repository: Repository) -> None:
    ideas: list[float | str] = [0.8, "OTHER = 1; GAIN = 0.04"]
    search = finished(repository, ideas)
    count = 0

    def kill() -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed

    measurer(search).on_run = kill
    with pytest.raises(Killed):
        make_audit(search, 6)
    again = make_search(repository, ideas)
    again.run()
    record = make_audit(again, 6)
    assert len(measurer(again).trained) == 4
    assert record.finished is not None and all(run.done for run in record.runs)


def test_one_keep_is_nothing_to_audit(repository: Repository) -> None:
    with pytest.raises(UserError, match="nothing to audit"):
        make_audit(finished(repository, [0.8]), 8)
