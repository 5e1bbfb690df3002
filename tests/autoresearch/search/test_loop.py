import contextlib
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.errors import UserError
from autoresearch.report.markdown import extra_checks
from autoresearch.report.summary import summarize
from autoresearch.search.loop import Search
from autoresearch.store.git.repository import Repository
from autoresearch.types import State, VerdictKind
from tests.support.stub import PATH, SCRIPT, git, make_repository, make_search, measurer, said


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "repo")


def finished(repository: Repository, ideas: list[float | str], *overrides: str) -> Search:
    search = make_search(repository, ideas, *overrides)
    search.run()
    return search


def verdicts(search: Search) -> list[str]:
    return [e.verdict.kind.value for e in search.journal.experiments() if e.verdict]


def test_a_real_gain_is_kept_and_a_loss_is_not(repository: Repository) -> None:
    search = finished(repository, [1.5, 0.2, 0.9])
    assert verdicts(search) == ["discard", "keep", "discard"]
    tip = repository.resolve("refs/heads/autoresearch/x")
    assert tip and "LEVEL = 0.2" in repository.sources(tip, [PATH])[PATH]
    assert git(repository.root, "rev-list", "--count", "main..autoresearch/x") == "1"
    message = git(repository.root, "log", "-1", "--format=%B", "autoresearch/x")
    assert "Verdict: keep" in message and "Metric: val_bpb 1.0" in message


def test_the_same_score_again_is_not_an_improvement(repository: Repository) -> None:
    ideas: list[float | str] = [f"OTHER = {i}" for i in (1, 3, 4, 5, 6, 8)]
    assert "keep" not in verdicts(finished(repository, ideas))


def test_every_candidate_stays_reachable(repository: Repository) -> None:
    search = finished(repository, [1.5, "OTHER = 'crash'", 0.5])
    refs = git(repository.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/autoresearch/x")
    assert refs.splitlines() == [
        f"refs/autoresearch/x/{e.number:04d} {e.commit}" for e in search.journal.experiments()[1:]
    ]


@pytest.mark.parametrize(
    ("idea", "kind"),
    [
        ("OTHER = 'meddle'", "invalid"),
        ("OTHER = 'crash'", "crash"),
        ("OTHER = 'cheat'", "invalid"),
        ("OTHER = 'diverge'", "prune"),
        ("OTHER = 0; WEIGHTS = 9", "invalid"),
    ],
)
def test_failures_are_named_and_the_next_experiment_runs(
    repository: Repository, idea: str, kind: str
) -> None:
    search = finished(repository, [idea, 0.2])
    assert verdicts(search) == [kind, "keep"]
    assert search.journal.experiment(1).verdict.reason  # type: ignore[union-attr]


def test_the_users_checkout_is_untouched(repository: Repository) -> None:
    (repository.root / PATH).write_text(SCRIPT + "# mine\n")
    before = git(repository.root, "status", "--porcelain", "--branch")
    finished(repository, [0.2])
    assert git(repository.root, "status", "--porcelain", "--branch") == before
    assert git(repository.root, "rev-list", "--count", "main") == "1"


def test_the_baseline_is_repeated_with_other_seeds(repository: Repository) -> None:
    search = finished(repository, [], "baselines=4")
    assert len({seed for _, seed in measurer(search).trained}) == 4
    assert search.journal.experiment(0).state is State.COMMITTED


def test_a_starting_script_that_does_not_train_is_an_error_that_can_be_mended(repository: Repository) -> None:
    (repository.root / PATH).write_text("crash = 1\n")
    git(repository.root, "commit", "-qam", "broken")
    with pytest.raises(UserError, match="out of memory") as error:
        finished(repository, [])
    assert "What else uses the memory?" in error.value.hint and "boom" in error.value.hint


def test_running_again_asks_for_more_but_repeats_nothing(repository: Repository) -> None:
    finished(repository, [1.5, 0.2, 1.4], "experiments=2")
    again = make_search(repository, [1.5, 0.2, 1.4], "experiments=3")
    again.run()
    assert len(again.journal.experiments()) == 4
    assert all("LEVEL = 1.5" not in source for source, _ in measurer(again).trained)


MOST = pytest.mark.soak
"""Kills beside those at the boundaries of `test_durability`: some by default, all in CI."""


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=MOST if at not in (3, 6) else ()) for at in range(1, 9)]
)
def test_killed_in_any_trial_it_ends_as_if_it_had_not_been(tmp_path: Path, at: int) -> None:
    ideas: list[float | str] = [1.5, 0.2, "OTHER = 'crash'", 0.1]
    plain = finished(make_repository(tmp_path / "plain"), ideas)
    repository = make_repository(tmp_path / "killed")
    search = make_search(repository, ideas)
    calls = 0

    def kill() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed

    measurer(search).on_run = kill
    with pytest.raises(Killed):
        search.run()
    search.journal.close()
    again = finished(repository, ideas)
    assert verdicts(again) == verdicts(plain)
    assert [e.scores for e in again.journal.experiments()] == [e.scores for e in plain.journal.experiments()]
    tips = [repo.sources("autoresearch/x", [PATH]) for repo in (repository, plain.repository)]
    assert tips[0] == tips[1]


STEPS = [
    "journal.draft",
    "journal.adopt",
    "repository.commit",
    "journal.committed",
    "journal.recorded",
    "repository.update_refs",
]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [pytest.param(1, marks=MOST), 2])
def test_killed_between_any_two_steps_it_goes_on(
    tmp_path: Path, step: str, when: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = make_repository(tmp_path / "repo")
    search = make_search(repository, [0.5, 1.5])
    owner, name = step.split(".")
    part = getattr(search, owner)
    original = getattr(part, name)
    calls = 0

    def killing(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if calls == count:
            raise Killed
        return result

    monkeypatch.setattr(part, name, killing)
    with contextlib.suppress(Killed):
        search.run()
    search.journal.close()
    monkeypatch.undo()
    again = finished(repository, [0.5, 1.5])
    assert verdicts(again) == ["keep", "discard"]
    assert [e.state for e in again.journal.experiments()[1:]] == [State.RECORDED] * 2
    assert repository.resolve("refs/heads/autoresearch/x") == again.journal.experiment(1).commit


def test_an_idea_that_was_tried_is_refused(repository: Repository) -> None:
    search = finished(repository, [1.5, 1.5])
    assert len(search.journal.experiments()) == 2
    assert "experiment 1" in " ".join(said(search))


def test_minutes_end_the_search_between_experiments(repository: Repository) -> None:
    search = finished(repository, [1.5] * 3, "minutes=0.0000001")
    assert verdicts(search) == []


def test_nothing_is_left_behind(repository: Repository) -> None:
    search = finished(repository, [0.2])
    assert list(search.folder.glob("trials/*")) == []


def test_a_pruned_candidate_may_not_become_the_incumbent(repository: Repository) -> None:
    search = finished(repository, ["OTHER = 'diverge'"])
    verdict = search.journal.experiment(1).verdict
    assert verdict and verdict.kind is VerdictKind.PRUNE
    assert repository.resolve("refs/heads/autoresearch/x") == repository.resolve("main")


def test_guards_are_scored_beside_the_validation_and_told_to_nobody(repository: Repository) -> None:
    search = make_search(repository, [1.5, 0.2])
    search.journal.update(data={"splits": {"train": {}, "validation": {}, "test": {}, "held": {}}})
    search.run()
    trials = [t for e in search.journal.experiments() for t in e.trials]
    scored = {t.arm: "held_bpb" in t.result.metrics for t in trials if t.result}
    assert not scored["screen"] and scored["confirm"] and scored["baseline"]
    context = search.state.context()
    assert "score_seconds" in context.facts and not any(name.endswith("_bpb") for name in context.facts)
    summary = summarize(search.journal)
    assert [check.split for check in summary.guards] == ["held"]
    assert "on data held back" in extra_checks(summary) and "worse" not in extra_checks(summary)
    worse = replace(summary, guards=[replace(summary.guards[0], best=9.0)])
    assert "worse on data held back" in extra_checks(worse)


def test_a_gain_too_good_to_be_true_is_looked_at_closely_and_may_be_true(repository: Repository) -> None:
    search = make_search(repository, ["OTHER = 0; GAIN = 0.5"])
    search.run()
    [first] = search.journal.experiments()[1:]
    [suspect] = measurer(search).thorough
    assert "GAIN = 0.5" in suspect
    assert first.kept and first.verdict and "thorough run" in first.verdict.reason


def test_searches_on_one_machine_are_told_of_each_other(tmp_path: Path) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [1.5])
    words = [
        sys.executable,
        "-c",
        "input()",
        "-m",
        "autoresearch",
        "run",
        "name=night2",
        "proposer.key=secret",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, cwd=tmp_path) as other:
        search.run()
        assert other.stdin is not None
        other.stdin.write(b"\n")
    told = [text for text in said(search) if "Another search" in text and f" {other.pid} " in text]
    assert len(told) == 1 and f"name=night2 in {tmp_path}" in told[0] and "secret" not in told[0]


def test_a_clock_that_is_set_changes_no_duration_and_no_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = make_search(make_repository(tmp_path / "repo"), [0.2, 0.9], "minutes=50")
    jumps, real, shift = iter([-3600.0, 90_000.0, 0.0, -90_000.0]), time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])

    def jump() -> None:
        shift[0] += next(jumps, 0.0)

    measurer(search).on_run = jump
    search.run()
    trials = [t for e in search.journal.experiments() for t in e.trials]
    assert len(search.journal.experiments()) == 3 and len(trials) > 4
    assert all(0 <= t.seconds < 60 for t in trials), [t.seconds for t in trials]
    assert all(0 <= span.finished - span.started < 60 for span in search.journal.timeline())
