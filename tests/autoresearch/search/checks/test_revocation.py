"""What was kept and turns out to be invalid is taken back, with all that rests on it; at any kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoresearch.execute.base import TrialSpec
from autoresearch.report.estimates import estimate
from autoresearch.search.checks import revocation
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.store.records.notes import read_rechecks, read_revoked
from autoresearch.types import Arm, Measurement, Outcome
from tests.support.stub import PATH, git, make_repository, make_search, measurer, said

CHEAT = "OTHER = 1; GAIN = 0.05"
OFTEN = ("judge.heartbeat=2", "judge.refresh=2")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def kinds(search: Search) -> list[str]:
    return [e.verdict.kind.value for e in search.journal.experiments() if e.verdict]


def detecting(search: Search, text: str) -> Search:
    """From now on blind questions find every script invalid that has this text in it."""
    stub = measurer(search)
    measure = stub.measure

    def strict(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        if spec.blind and text in (tree / PATH).read_text():
            return Measurement(Outcome.INVALID, reason="the model looks ahead")
        return measure(tree, spec, *others)

    stub.measure = strict  # type: ignore[method-assign]
    return search


def kept(repository: Repository, *ideas: float | str) -> Search:
    search = make_search(repository, ideas, f"experiments={len(ideas)}", *OFTEN)
    search.run()
    assert kinds(search) == ["keep"] * len(ideas)
    search.journal.close()
    return search


def check_stepped_back(search: Search, first: str, cheat: str) -> None:
    """Experiment 2 is void in journal, judge and git; nothing is lost."""
    root, experiments = search.repository.root, search.journal.experiments()
    verdict = experiments[2].verdict
    assert verdict is not None and verdict.kind == "invalid" and "looks ahead" in verdict.reason
    [record] = read_revoked(search.journal)
    assert (record.number, record.commits, record.also) == (2, (cheat,), ())
    assert "GAIN" not in search.state.sources(search.state.incumbent.commit)[PATH]
    branch = git(root, "rev-parse", "autoresearch/x")
    assert branch == search.state.incumbent.commit
    git(root, "merge-base", "--is-ancestor", first, branch)
    assert "experiment 2 is invalid" in git(root, "reflog", "autoresearch/x")
    assert "Verdict: invalid" in git(root, "log", "-1", "--format=%B", "refs/autoresearch/x/0002")
    assert git(root, "diff", cheat, "refs/autoresearch/x/0002") == ""
    refs = git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/x").split()
    assert refs == [e.commit for e in experiments[1:]]
    assert all(e.state == "recorded" for e in experiments[1:])
    best = estimate(experiments).best
    assert best is not None and best.experiment.number != 2


def test_a_tip_whose_re_run_is_invalid_is_stepped_back(repository: Repository) -> None:
    kept(repository, 0.6, CHEAT)
    more = make_search(repository, [0.6, CHEAT, 0.4, 0.2], "experiments=4")
    first, cheat = (e.commit for e in more.journal.experiments()[1:])
    detecting(more, "GAIN").run()
    check_stepped_back(more, first, cheat)
    assert any("Experiment 2 was kept, and is invalid" in text for text in said(more))
    again = [t for t in more.journal.experiments()[1].trials if t.arm is Arm.INCUMBENT]
    assert again and read_rechecks(more.journal) == [], "its author's other change was run again"
    assert more.state.incumbent.number > 2 and kinds(more)[-1] == "keep", "the search goes on"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [0, 2, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 3, 4, 5))])
def test_a_search_that_is_killed_while_it_steps_back_gets_to_the_same_end(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    kept(repository, 0.6, CHEAT)
    ideas = [0.6, CHEAT, 0.4]
    more = detecting(make_search(repository, ideas, "experiments=3"), "GAIN")
    first, cheat = (e.commit for e in more.journal.experiments()[1:])
    left: int | None = None  # steps to live, from the moment at which the change is taken back

    def dying(method: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Killed
            return method(*arguments, **options)

        return step

    monkeypatch.setattr(revocation, "move_branch", dying(revocation.move_branch))
    for name in ("recorded", "finish_trial", "set"):
        monkeypatch.setattr(more.journal, name, dying(getattr(more.journal, name)))
    for name in ("reword", "update_refs"):
        monkeypatch.setattr(more.repository, name, dying(getattr(more.repository, name)))

    def revoke(*arguments: Any) -> None:
        nonlocal left
        revocation.revoke(*arguments)
        left = at

    monkeypatch.setattr("autoresearch.search.conclusion.revoke", revoke)
    with pytest.raises(Killed):
        more.run()
    more.journal.close()
    monkeypatch.undo()
    again = detecting(make_search(repository, ideas, "experiments=3"), "GAIN")
    again.run()
    check_stepped_back(again, first, cheat)


def test_what_was_built_on_an_invalid_change_is_judged_again(repository: Repository) -> None:
    kept(repository, CHEAT, 0.6)
    more = make_search(repository, [CHEAT, 0.6, 0.4], "experiments=4")
    detecting(more, "GAIN").run()
    experiments = more.journal.experiments()
    assert [r.number for r in read_revoked(more.journal)] in ([2, 1], [1])
    assert "keep" not in kinds(more)[:2] and kinds(more)[0] == "invalid"
    tried = [e.proposal.hypothesis for e in experiments[1:] if e.proposal]
    assert tried.count("set 0.6") == 2 and tried.count(f"set {CHEAT}") == 1
    second = next(e for e in reversed(experiments) if e.proposal and e.proposal.hypothesis == "set 0.6")
    assert second.kept and second.proposal is not None and second.proposal.cost.calls == 0
    assert "LEVEL = 0.6" in more.state.sources(second.commit)[PATH]
    assert "GAIN" not in more.state.sources(second.commit)[PATH]


def test_a_cheat_caught_in_confirmation_has_its_author_s_other_changes_run_again(
    repository: Repository,
) -> None:
    kept(repository, CHEAT)
    more = make_search(repository, [CHEAT, 0.3, 0.9], "experiments=3")
    stub = measurer(more)
    measure, seen = stub.measure, list[str]()

    def strict(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        source = (tree / PATH).read_text()
        seen.append(source)
        if spec.blind and (source.count("LEVEL = 0.3") or ("GAIN" in source and "LEVEL = 1.0" in source)):
            return Measurement(Outcome.INVALID, reason="asked blind, it gave other answers")
        return measure(tree, spec, *others)

    stub.measure = strict  # type: ignore[method-assign]
    more.run()
    assert "invalid" in kinds(more)[:2]
    assert [r.number for r in read_revoked(more.journal)] == [1]
    assert "GAIN" not in more.state.sources(more.state.incumbent.commit)[PATH]


def test_the_starting_script_is_never_taken_back(repository: Repository) -> None:
    search = make_search(repository, [1.5, 1.4, 0.2], "judge.heartbeat=2", "judge.refresh=5")
    stub, runs = measurer(search), 0
    measure = stub.measure

    def flaky(tree: Path, spec: TrialSpec, *others: Any) -> Measurement:
        nonlocal runs
        runs += 1
        if runs == 4:
            return Measurement(Outcome.INVALID, reason="not causal")
        return measure(tree, spec, *others)

    stub.measure = flaky  # type: ignore[method-assign]
    search.run()
    assert read_revoked(search.journal) == [] and kinds(search)[-1] == "keep"
