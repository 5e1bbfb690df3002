"""On several places many candidates are in flight, and are merged onto what is kept, or withdrawn."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.base import TrialSpec
from autoresearch.propose.base import Check, Context
from autoresearch.report.estimates import estimate, staircase
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.notes import read_revoked
from autoresearch.types import Arm, Measurement, Outcome, Proposal, VerdictKind
from tests.support.many_places import judged, paced, replay, sound, until
from tests.support.stub import PATH, git, make_repository, make_search, measurers, scripted

PADS = "".join(f"pad{i} = 0\n" for i in range(9))
APART = f"LEVEL = 1.0  # 0..2\nOTHER = 0\n{PADS}MORE = 0\n{PADS}print(LEVEL, OTHER)\n"
"""A script with lines that can be edited apart from each other: git merges changes of the first and MORE."""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo", APART)


def kinds(search: Search) -> dict[int, str]:
    return {e.number: e.verdict.kind.value for e in search.journal.experiments()[1:] if e.verdict}


IDEAS: list[float | str] = [0.6, "OTHER = 'crash'", 1.5, "OTHER = 3", 1.3, 0.2, "OTHER = 'diverge'", 1.2, 0.9]


def together(repository: Repository, ideas: list[float | str], *overrides: str, first: int = 1) -> Search:
    """A search whose first two candidates are screened at the same time; one is judged before the other."""
    search = make_search(repository, ideas, "executor.workers=2", f"experiments={len(ideas)}", *overrides)
    begun = set[str]()
    words = [idea if isinstance(idea, str) else f"LEVEL = {idea} " for idea in ideas[:2]]
    leader, other = words[first - 1], words[2 - first]

    def wait(source: str) -> None:
        screening = source != APART and len(begun) < 2 and source not in begun
        if screening:
            begun.add(source)
            until(lambda: len(begun) == 2)
        if other in source and leader not in source:
            mine = lambda: search.journal.experiment(first)  # noqa: E731
            until(lambda: mine().verdict or (screening and any(t.result for t in mine().trials)))

    return paced(search, wait)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 16])
def test_many_candidates_are_in_flight_and_a_replay_gives_the_same_verdicts(
    repository: Repository, workers: int
) -> None:
    search = together(repository, IDEAS, f"executor.workers={workers}")
    chance = random.Random(workers)
    paced(search, lambda source: time.sleep(chance.random() / 50))
    search.run()
    sound(search)
    found = kinds(search)
    dropped = sum(len(e.dropped) for e in search.journal.experiments())
    assert len(found) + dropped == len(IDEAS)
    assert {"keep", "discard", "crash", "prune"} == set(found.values()), "one that fails disturbs no other"
    trials = [t for e in search.journal.experiments()[1:] for t in e.trials if t.arm is Arm.SCREEN]
    assert any(a.started < b.started < (a.finished or 0) for a in trials for b in trials if a is not b)
    assert len({t.place for t in trials}) > 1
    again = replay(search, workers)
    for e in search.journal.experiments()[1:]:
        if e.verdict and not e.verdict.reason.startswith("withdrawn"):
            once, twice = e.verdict, again.pop(e.number)
            assert (twice.effect, twice.interval, twice.trials) == (once.effect, once.interval, once.trials)
            assert (twice.levels, twice.pairs) == (once.levels, once.pairs)
    assert not again


def test_what_conflicts_with_a_keep_is_withdrawn_and_a_new_proposal_is_asked_for(
    repository: Repository,
) -> None:
    search = together(repository, [0.2, 0.9, 0.1, 0.05], "experiments=3")
    proposer = scripted(search)
    propose = proposer.propose

    def late(context: Context, check: Check) -> Proposal:
        if len(context.paid) == 2:
            until(judged(search, 2))
        return propose(context, check)

    proposer.propose = late  # type: ignore[method-assign]
    search.run()
    sound(search)
    first, second, third = search.journal.experiments()[1:]
    assert first.kept and second.verdict and second.verdict.kind is VerdictKind.DISCARD
    assert "withdrawn, since experiment 1 was kept" in second.verdict.reason
    assert "same lines" in second.verdict.reason and second.scores
    assert third.kept and third.parent == first.commit


def test_what_can_be_merged_onto_a_keep_goes_on_and_may_be_kept_too(repository: Repository) -> None:
    search = together(repository, [0.2, "OTHER = 0; GAIN = 0.02"])
    search.run()
    sound(search)
    first, second = search.journal.experiments()[1:]
    assert first.kept and second.kept and second.parent == first.commit
    tree = search.state.sources(second.commit)[PATH]
    assert "LEVEL = 0.2" in tree and "GAIN = 0.02" in tree
    own = [t for t in second.trials if t.arm is not Arm.INCUMBENT]
    assert len({t.commit for t in own}) == 2, "it began on the start, and went on upon what was kept"
    assert 1 <= len(second.own) < len(own)
    refs = git(repository.root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/autoresearch/x")
    assert f"{own[0].commit} refs/autoresearch/x/0002-{own[0].commit[:10]}" in refs.splitlines()


def test_a_later_experiment_may_be_kept_first(repository: Repository) -> None:
    ideas: list[float | str] = [0.6, "OTHER = 0; GAIN = 0.08"]
    search = together(repository, ideas, first=2)
    search.run()
    sound(search)
    first, second = search.journal.experiments()[1:]
    assert first.kept and second.kept and first.parent == second.commit, first.verdict
    assert [e.number for e in search.state.kept] == [2, 1] and search.state.incumbent.number == 1
    assert [e.number for e in search.state.context().history] == [0, 2, 1]
    best = estimate(search.journal.experiments()).best
    assert best and best.experiment.number == 1
    moments = staircase(search.journal.experiments())
    assert [(m.experiment.number, m.tried, m.kept) for m in moments] == [(0, 0, 0), (2, 1, 1), (1, 2, 2)]
    search.journal.close()
    again = make_search(repository, ideas, "executor.workers=2", "experiments=2")
    assert again.run() and again.state.incumbent.number == 1
    sound(again)


def test_a_proposer_that_runs_out_leaves_what_is_in_flight_to_end(repository: Repository) -> None:
    search = together(repository, [1.5, 0.2], "experiments=9")
    assert search.run()
    sound(search)
    assert kinds(search) == {1: "discard", 2: "keep"}


def test_minutes_that_are_over_let_what_is_in_flight_end(repository: Repository) -> None:
    search = make_search(repository, [1.5, 0.2, 0.1], "executor.workers=2", "minutes=60")

    def wait(source: str) -> None:
        if "LEVEL = 1.0" not in source:  # a candidate
            until(lambda: search.state.tried == 2)
            search.deadline = 0.0

    paced(search, wait)
    assert search.run()
    sound(search)
    assert set(kinds(search)) == {1, 2}


def test_what_is_in_flight_when_a_keep_is_taken_back_is_proposed_again(repository: Repository) -> None:
    cheat, often = "OTHER = 1; GAIN = 0.05", ("judge.heartbeat=2", "judge.refresh=2")
    first = make_search(repository, [cheat], "experiments=1", *often)
    first.run()
    assert first.state.kept
    first.journal.close()
    ideas: list[float | str] = [cheat, 0.9, 1.2, 0.5, 1.3, 0.2]
    search = make_search(repository, ideas, "executor.workers=2", "experiments=9", *often)
    for stub in measurers(search):
        measure = stub.measure

        def strict(tree: Path, spec: TrialSpec, *rest: Any, measure: Any = measure) -> Measurement:
            source = (tree / PATH).read_text()
            if spec.blind and "GAIN" in source and "LEVEL = 1.0" in source:
                return Measurement(Outcome.INVALID, reason="the model looks ahead")
            result: Measurement = measure(tree, spec, *rest)
            return result

        stub.measure = strict  # type: ignore[method-assign]
    search.run()
    sound(search)
    assert [record.number for record in read_revoked(search.journal)] == [1]
    tip = search.state.sources(search.state.incumbent.commit)[PATH]
    assert "GAIN" not in tip and "LEVEL = 0" in tip
    experiments = search.journal.experiments()[1:]
    again = [e for e in experiments if e.verdict and "it is proposed again" in e.verdict.reason]
    tried = [e.proposal.hypothesis for e in experiments if e.proposal]
    assert again and all(tried.count(e.proposal.hypothesis) == 2 for e in again if e.proposal)
