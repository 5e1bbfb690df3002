"""Contests on the toy task with a scripted model whose worth depends on the brief."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch.contest import contest as contests
from autoresearch.contest import page
from autoresearch.contest.contest import Contest, Plan, make_plan, read_briefs
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.tasks.brief import process
from autoresearch.tasks.brief.inner import Inner, Searches
from autoresearch.tasks.brief.result import Result
from autoresearch.tasks.brief.settings import Spend
from tests.support import briefs, toy_task
from tests.support.cli import inside
from tests.support.stub import git

WORTH = {"good": 0.5, "plain": 0.2, "poor": None}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[briefs.Researcher]:
    with briefs.researcher(monkeypatch, tmp_path / "site", spread=0.05) as made:
        yield made


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = toy_task.make_repository(tmp_path / "repo")
    for name, step in WORTH.items():
        (tmp_path / f"{name}.md").write_text(briefs.brief(step))
    monkeypatch.chdir(made)
    return made


def begin(
    root: Path, server: briefs.Researcher, *names: str, rounds: int = 8, dollars: float | None = None
) -> Contest:
    words = [str(root.parent / f"{name}.md") for name in names]
    overrides = [*briefs.INNER, *briefs.model(server.url), "experiments=1"]
    return Contest.begin(root / "runs/c", make_plan(words, overrides, Repository(root), rounds, None))


@pytest.mark.soak
def test_three_briefs_are_ranked_and_a_killed_contest_goes_on(
    root: Path, server: briefs.Researcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, told = begin(root, server, *WORTH), list[str]()
    begun: list[str] = []

    def dies(code: Path, overrides: list[str], *rest: object) -> int:
        begun.append(next(o for o in overrides if o.startswith("name=")))
        if len(begun) == 5:
            raise KeyboardInterrupt
        return briefs.run_here(code, overrides, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(process, "run_search", dies)
        with pytest.raises(KeyboardInterrupt):
            held.run(Repository(root), lambda brief, number, result: told.append(f"{brief} {number}"))
    assert told == ["good 0", "plain 0", "poor 0", "plain 1"], "the order rotates"
    asked = len(server.requests)
    again = Contest(root / "runs/c")
    assert again.run(Repository(root), lambda *ended: told.append("")) == "the ranking is established"
    assert len(server.requests) - asked == len(told) - 4, "nothing is paid twice"
    found = again.standing()
    assert found.ranking == ["good", "plain", "poor"] and found.winner == "good" and found.rounds <= 8
    written = page.write(again).read_text()
    assert "the whole ranking is established: good &gt; plain &gt; poor" in written and "<svg" in written
    evidence = (root / "runs/c/evidence.md").read_text()
    assert "== The brief good" in evidence and "schedule:" in evidence
    assert not git(root, "status", "--porcelain"), "the checkout is as it was"


@pytest.mark.soak
def test_a_contest_from_the_command_line_is_compared_and_says_what_is_not_established(
    root: Path, server: briefs.Researcher
) -> None:
    words = [str(root.parent / f"{name}.md") for name in ("good", "poor")]
    common = [*briefs.INNER, *briefs.model(server.url), "experiments=1", "name=c"]
    said = inside(root, "contest", *words, *common, "--rounds", "2")
    assert "round 2: poor gained" in said and "too few for an interval: not established" in said
    assert "Which brief is the best is not established, after 2 rounds." in said
    assert "It ended since its 2 rounds are over." in said and (root / "runs/c/contest.html").exists()
    assert "c:" not in inside(root, "clean"), "it is no start that failed"
    with Contest(root / "runs/c").alone():
        assert "The contest c runs already" in inside(root, "contest", "name=c", code=4)
    known = json.loads(inside(root, "contest", "name=c", "--json"))
    assert known["winner"] is None and known["ranking"] == ["good", "poor"] and known["rounds"] == 2
    assert "good" in (told := inside(root, "compare", "c")) and "not established" in told
    assert "other briefs or settings" in inside(
        root, "contest", words[0], words[0].replace("good", "plain"), *common, code=2
    )


def test_plans_and_briefs_that_cannot_be(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy_task.install(monkeypatch, tmp_path / "other")
    assert [name for name, _ in read_briefs([str(root.parent)])] == ["good", "plain", "poor"]
    assert [name for name, _ in read_briefs(["default", "simplify"])] == ["default", "simplify"]
    with pytest.raises(UserError, match="Two briefs are called good"):
        read_briefs([str(root.parent), str(root.parent / "good.md")])
    with pytest.raises(UserError, match="There is no contest"):
        Contest(root / "runs/none")
    plan = Plan((("a", "A"),), briefs.INNER, Spend(1), 2, None, "", 0.0)
    with pytest.raises(UserError, match="at least two briefs"):
        Contest.begin(root / "runs/c", plan)
    (root / "runs/c").mkdir(parents=True)
    (root / "runs/c/journal.db").touch()
    with pytest.raises(UserError, match="name of a search"):
        Contest.begin(root / "runs/c", plan)


def test_a_round_is_begun_only_if_all_of_it_can_be_paid(
    root: Path, server: briefs.Researcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        [str(root.parent / "good.md"), str(root.parent / "poor.md")],
        [*briefs.INNER, *briefs.model(server.url), "proposer.max_dollars=1", "experiments=1"],
        Repository(root), 9, 1.5,
    )  # fmt: skip
    held = Contest.begin(root / "runs/c", plan)
    assert held.run(Repository(root)) == "another round could break its 1.5 dollars"
    assert not server.requests and contests.Contest(root / "runs/c").standing().rounds == 0


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_before_any_inner_search_a_contest_runs_the_same_ones_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rounds, order and elimination follow from the plan and from what has ended, and from nothing else."""
    toy_task.install(monkeypatch, tmp_path / "other")
    worth = {briefs.brief(step): step or 0.0 for step in WORTH.values()}
    known: dict[str, Result] = {}
    ran: list[str] = []
    die_at = 0

    def run(self: Searches, one: Inner, tick: object = None) -> Result:
        if len(ran) + 1 == die_at and not died:
            died.append(True)
            raise Killed
        ran.append(one.name)
        gain = worth[one.brief] + random.Random(one.seed * 7 + len(one.brief)).gauss(0, 0.05)
        known[one.name] = Result(one.name, gain, 0.0, 1, 1, 0.0, 1.0, "", ())
        return known[one.name]

    monkeypatch.setattr(Searches, "run", run)
    monkeypatch.setattr(Searches, "result", lambda self, one: known.get(one.name))
    words = [str(root.parent / f"{name}.md") for name in WORTH]
    plan = make_plan(words, [*briefs.INNER, "proposer=random"], Repository(root), 20, None)
    died: list[bool] = []
    Contest.begin(root / "runs/c", plan)
    assert Contest(root / "runs/c").run(Repository(root)) == "the ranking is established"
    whole, found = list(ran), Contest(root / "runs/c").standing()
    assert found.ranking == ["good", "plain", "poor"] and len(whole) < 45
    for moment in range(1, len(whole) + 1, 7):  # of each place in a round one
        die_at, died[:], ran[:] = moment, [], []
        known.clear()
        with pytest.raises(Killed):
            Contest(root / "runs/c").run(Repository(root))
        Contest(root / "runs/c").run(Repository(root))
        assert ran == whole
