"""Before a keep the gain must be there on text that no program has seen; each slice is used once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.base import TrialSpec
from autoresearch.propose.base import Check, Context
from autoresearch.search.checks.unseen import FIRST_SEED
from autoresearch.search.conclusion import Conclusion
from autoresearch.search.judging import Judging
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.notes import read_revoked, read_slices
from autoresearch.types import Arm, Measurement, Outcome, Proposal, Split
from tests.support.many_places import replay, sound, until
from tests.support.stub import (
    NOISE,
    PATH,
    git,
    make_repository,
    make_search,
    measurer,
    measurers,
    scripted,
    with_unseen_text,
)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def searching(
    repository: Repository,
    ideas: list[float | str],
    slices: int = 9,
    workers: int = 1,
    judge: str = "default",
) -> Search:
    """A search with so many slices of held-out text."""
    experiments, places = f"experiments={len(ideas)}", f"executor.workers={workers}"
    search = make_search(repository, ideas, experiments, places, f"judge={judge}")
    return with_unseen_text(search, slices)


def spied(search: Search) -> list[TrialSpec]:
    """What is asked for from now on."""
    stub, seen = measurer(search), list[TrialSpec]()
    measure = stub.measure

    def spy(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        seen.append(spec)
        return measure(tree, spec, *others)

    stub.measure = spy  # type: ignore[method-assign]
    return seen


def kinds(search: Search) -> list[str]:
    return [e.verdict.kind.value for e in search.journal.experiments() if e.verdict]


def test_a_real_gain_is_kept_and_each_slice_is_used_once(repository: Repository) -> None:
    search = searching(repository, [0.5, 1.5, 0.2], slices=1)
    seen = spied(search)
    search.run()
    assert kinds(search) == ["keep", "discard", "keep"]
    opened = [spec for spec in seen if Split.HELD in spec.splits]
    assert [(s.splits[0], s.share, s.blind, s.thorough) for s in opened] == [("held", (0, 1), True, True)] * 2
    assert len({(s.seed, s.blind_seed) for s in opened}) == 1 and len({s.tree for s in opened}) == 2
    first, last = (e.verdict.reason for e in search.journal.experiments() if e.kept and e.verdict)
    assert "on unseen text" in first and "no unseen text was left" in last
    [use] = read_slices(search.journal)
    assert (use.experiment, use.share, use.of, use.outcome) == (1, 0, 1, "ok")


def test_the_trainings_of_the_check_are_trials_that_the_judge_counts(repository: Repository) -> None:
    search = searching(repository, [0.5, 0.2], slices=1)
    search.run()
    first, last = search.journal.experiments()[1:]
    assert [t.arm for t in first.own] == [Arm.SCREEN, Arm.CONFIRM, Arm.CONFIRM] == [t.arm for t in last.own]
    mine, beside = (t for t in first.trials if t.seed == FIRST_SEED)
    assert read_slices(search.journal)[0].trials == (mine.id, beside.id)
    assert (mine.arm, mine.commit, beside.arm) == (Arm.CONFIRM, first.own[0].commit, Arm.INCUMBENT)
    assert first.verdict and last.verdict and first.verdict.trials == last.verdict.trials == 3
    assert mine.result and beside.result and mine.score == pytest.approx(1.05, abs=4 * NOISE)
    assert "held_bpb" not in mine.result.metrics and "validation_bpb" not in mine.result.metrics
    assert (FIRST_SEED, beside.score, mine.score) in first.verdict.pairs
    assert FIRST_SEED in [seed for seed, *_ in last.verdict.pairs], (
        "the incumbent's runs are those of its keep"
    )


def test_the_check_has_a_seed_of_its_own_wherever_the_search_begins_to_count(repository: Repository) -> None:
    search = with_unseen_text(make_search(repository, [0.5], "experiments=1", "seed=1000"))
    search.run()
    trials = [t for e in search.journal.experiments() for t in e.trials]
    checked = [t for t in trials if t.id in read_slices(search.journal)[0].trials]
    others = {t.seed for t in trials if t not in checked}
    assert min(others) == 1_000_000 and {t.seed for t in checked}.isdisjoint(others)


def test_a_judge_that_waits_with_no_keep_is_checked_after_its_verdict(repository: Repository) -> None:
    search = searching(repository, [0.5, "OTHER = 1; NOTES = 0.05"], judge="greedy")
    search.run()
    assert kinds(search) == ["keep", "discard"]
    kept, noted = search.journal.experiments()[1:]
    assert [t.arm for t in kept.trials] == [Arm.SCREEN, Arm.CONFIRM, Arm.INCUMBENT]
    assert noted.verdict and "missing on text that no program had seen" in noted.verdict.reason


@pytest.mark.parametrize(
    ("cheat", "kind", "why"),
    [
        ("OTHER = 1; NOTES = 0.05", "discard", "missing on text that no program had seen"),
        ("OTHER = 1; PEEK = 0.05", "invalid", "missing where nothing was to be seen"),
    ],
)
def test_a_gain_that_is_missing_there_is_not_kept(
    repository: Repository, cheat: str, kind: str, why: str
) -> None:
    search = searching(repository, [0.5, cheat, 0.2])
    search.run()
    assert kinds(search) == ["keep", kind, "keep"]
    verdict = search.journal.experiments()[2].verdict
    assert verdict is not None and why in verdict.reason
    assert "OTHER = 0" in search.state.sources(search.state.incumbent.commit)[PATH]
    level, _ = search.state.standing()
    assert level == pytest.approx(1.02, abs=4 * NOISE), "the judge has forgotten it, too"
    assert git(repository.root, "rev-parse", "autoresearch/x") == search.state.incumbent.commit


def test_a_program_that_fails_there_is_not_kept_and_an_invalid_incumbent_is_taken_back(
    repository: Repository,
) -> None:
    search = searching(repository, ["OTHER = 1; GAIN = 0.1", 0.5, 0.1])
    stub = measurer(search)
    measure = stub.measure

    def strict(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        source = (tree / PATH).read_text()
        if Split.HELD in spec.splits and "LEVEL = 0.5" in source:
            return Measurement(Outcome.CRASH, reason="out of memory")
        if Split.HELD in spec.splits and "GAIN" in source and "LEVEL = 1.0" in source and search.state.kept:
            return Measurement(Outcome.INVALID, reason="the model looks ahead")
        return measure(tree, spec, *others)

    stub.measure = strict  # type: ignore[method-assign]
    search.run()
    assert kinds(search)[:3] == ["invalid", "crash", "discard"]
    assert [(r.number, r.also) for r in read_revoked(search.journal)] == [(1, ())]
    third = search.journal.experiments()[3].verdict
    assert third is not None and "proposed again" in third.reason
    assert git(repository.root, "rev-parse", "autoresearch/x") == search.journal.info().base_commit
    assert [draft.proposal.hypothesis for draft in search.journal.drafts()] == ["set 0.1"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["in the check", "before the judge hears of it", "after it"])
def test_a_killed_check_goes_on_with_the_next_slice(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    search = searching(repository, [0.5])

    def kill(*_: Any) -> None:
        raise Killed

    if when == "in the check":
        seen, run = spied(search), measurer(search)
        run.on_run = lambda: kill() if Split.HELD in seen[-1].splits else None
    else:
        target = (Judging, "passed") if "judge" in when else (Conclusion, "record")
        monkeypatch.setattr(*target, kill)
    with pytest.raises(Killed):
        search.run()
    monkeypatch.undo()
    search.journal.close()
    again = make_search(repository, [0.5], "experiments=1")
    seen = spied(again)
    again.run()
    assert kinds(again) == ["keep"]
    opened = [spec.share for spec in seen if Split.HELD in spec.splits]
    assert opened == ([(1, 9)] * 2 if when == "in the check" else [])
    assert [(u.share, u.outcome) for u in read_slices(again.journal)][-1][1] == "ok"
    reason = again.journal.experiments()[1].verdict
    assert reason is not None and reason.reason.count("on unseen text") == 1 and reason.trials == 3


def test_text_that_older_versions_showed_to_programs_is_not_unseen(repository: Repository) -> None:
    search = make_search(repository, [0.5], "experiments=1")
    search.journal.update(data={"splits": {"held": {"tokens": 9000, "documents": 9}}})
    search.run()
    assert "held_bpb" in search.journal.experiments()[1].trials[-1].result.metrics  # type: ignore[union-attr]
    search.journal.close()
    more = searching(repository, [0.5, 0.2])
    more.run()
    assert kinds(more) == ["keep", "keep"] and read_slices(more.journal) == []


IDEAS: list[float | str] = [0.5, "OTHER = 7", "OTHER = 8"]


def test_a_proposal_that_comes_during_the_check_is_used(repository: Repository) -> None:
    search = with_unseen_text(make_search(repository, IDEAS, "experiments=3", instant=False))
    seen, answered, proposer = spied(search), threading.Event(), scripted(search)
    propose = proposer.propose

    def late(context: Context, check: Check) -> Proposal:
        while context.under_way and not any(Split.HELD in spec.splits for spec in seen):
            time.sleep(0.002)
        proposal = propose(context, check)
        answered.set()
        return proposal

    proposer.propose = late  # type: ignore[method-assign]

    def wait() -> None:
        if Split.HELD in seen[-1].splits:
            assert answered.wait(20)
            time.sleep(0.05)

    measurer(search).on_run = wait
    search.run()
    assert kinds(search) == ["keep", "discard", "discard"]


@pytest.mark.slow
def test_on_several_places_other_trials_begin_during_the_check(repository: Repository) -> None:
    """The judge waits with the keep; told the same in the same order, it says the same verdicts."""
    notes = "OTHER = 1; NOTES = 0.05"
    search = searching(repository, [notes, *(1.2 + i / 100 for i in range(16)), 0.5], workers=3)
    opened: list[str] = []
    for stub in measurers(search):
        measure = stub.measure

        def slow(tree: Path, spec: TrialSpec, *others: Any, measure: Any = measure) -> Any:
            source = (tree / PATH).read_text()
            if Split.HELD in spec.splits:
                before = screened(search)
                opened.append(source)
                if len(opened) == 1:
                    until(lambda: len(screened(search) - before) > 3)
            return measure(tree, spec, *others)

        stub.measure = slow  # type: ignore[method-assign]
    search.run()
    sound(search)
    verdicts = {e.number: e.verdict for e in search.journal.experiments()[1:] if e.verdict}
    assert "NOTES" in opened[0] and len(opened) == 2 * len(read_slices(search.journal)) == 4
    first, last = verdicts[1], verdicts[18]
    assert first.kind == "discard" and "missing on text that no program had seen" in first.reason
    assert last.kind == "keep" and last.reason.count("on unseen text") == 1
    again = replay(search, 3)
    for number, verdict in verdicts.items():
        if number != 1:
            assert (again[number].kind, again.pop(number).effect) == (verdict.kind, verdict.effect)
    assert not again


def screened(search: Search) -> set[str]:
    """The commits of which a first trial has begun."""
    trials = (t for e in search.journal.experiments() for t in e.trials)
    return {t.commit for t in trials if t.arm is Arm.SCREEN}
