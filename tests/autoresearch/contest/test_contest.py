"""Contests on the toy task with a scripted model whose worth depends on the brief."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.contest import contest as contests
from autoresearch.contest import page
from autoresearch.contest.contest import Contest
from autoresearch.contest.plan import Plan, continued, make_plan, read_briefs
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


def test_a_contest_goes_on_at_another_address_and_with_no_other_setting(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy_task.install(monkeypatch, tmp_path / "other")
    words = [str(root.parent / f"{name}.md") for name in ("good", "poor")]
    overrides, folder = [*briefs.INNER, *briefs.model("http://old"), "experiments=1"], root / "runs/c"
    plan = make_plan(words, overrides, Repository(root), 3, None)
    first = Contest.begin(folder, plan)
    name = first.inner("good", 0).name
    again = Contest.begin(folder, continued(first.plan, ["name=c", "proposer.base_url=http://new"], 4))
    assert again.inner("good", 0).name == name and again.plan.rounds == 4
    said, watch = page.announcement(again)
    assert said.startswith("Contest c of good, poor: at most 4 rounds, in each a search of 1 experiment for")
    assert "each inner search: at most $10; of all together: without a limit (--dollars)" in said
    assert watch.endswith(f"autoresearch watch runs={root}/runs/c/inner")
    assert "proposer.base_url=http://new" in again.inner("good", 0).connection
    assert "proposer.retries=0" in again.inner("good", 0).connection, "what is not named stays"
    with pytest.raises(UserError, match="other settings than judge=strict"):
        continued(first.plan, ["judge=strict", "experiments=1"])
    with pytest.raises(UserError, match="other settings than experiments=2"):
        continued(first.plan, ["experiments=2"])
    with pytest.raises(UserError, match="other settings than --per-dollar 2"):
        continued(first.plan, [], device_hour=2.0)
    without = [o for o in overrides if "base_url" not in o]
    whole = Contest.begin(folder, make_plan(words, without, Repository(root), 5, None))
    assert whole.plan.rounds == 5 and "proposer.base_url=http://new" in whole.plan.connection
    old = replace(plan, settings=(*plan.settings, *plan.connection), connection=())  # of an older version
    older = Contest.begin(root / "runs/old", old)
    moved = Contest.begin(root / "runs/old", make_plan(words, overrides, Repository(root), 3, None))
    assert moved.inner("good", 0).name == older.inner("good", 0).name, "nothing is paid twice"


def planted(
    monkeypatch: pytest.MonkeyPatch, root: Path, names: tuple[str, ...], spread: float = 0.02, **plan: float
) -> Contest:
    """A contest whose inner searches are known at once: a brief gains its step, and costs more than that."""
    worth = {briefs.brief(step): step or 0.0 for step in WORTH.values()}

    def run(self: Searches, one: Inner, tick: object = None) -> Result:
        step = worth[one.brief]
        gain = step + random.Random(one.seed * 7 + len(one.brief)).gauss(0, spread)
        return Result(one.name, gain, 0.0, 1, 1, 1 + 40 * step**2, 3600.0, "", ())

    known: dict[str, Result] = {}
    monkeypatch.setattr(
        Searches, "run", lambda self, one, tick=None: known.setdefault(one.name, run(self, one))
    )
    monkeypatch.setattr(Searches, "result", lambda self, one: known.get(one.name))
    monkeypatch.setattr(Contest, "summaries", lambda self: [])
    words = [str(root.parent / f"{name}.md") for name in names]
    made = make_plan(words, [*briefs.INNER, "proposer=random"], Repository(root), 12, None, **plan)
    return Contest.begin(root / "runs/c", made)


def test_the_gain_per_dollar_can_be_raced(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy_task.install(monkeypatch, tmp_path / "other")
    held = planted(monkeypatch, root, ("good", "plain"), device_hour=0.0)
    held.run(Repository(root))
    found = held.standing()
    assert found.ranking == ["plain", "good"] and found.winner == "plain", "0.2 / 2.6 is more than 0.5 / 11"
    assert held.score.unit.endswith("per dollar") and found.gains["good"][0] > found.gains["plain"][0]
    [told] = page.per_dollar(held, found)
    assert "an hour of a device counts as 0 dollars" in told and told.index("plain") < told.index("good")
    assert Contest(root / "runs/c").plan.device_hour == 0.0
    assert found.results["good"][0].score(None) == found.gains["good"][0]


def test_briefs_that_the_proposer_cannot_tell_apart_are_named_at_the_start(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    toy_task.install(monkeypatch, tmp_path / "other")
    held = planted(monkeypatch, root, ("good", "plain"))
    [told] = page.unlike_in_vain(held)
    assert told.startswith("good and plain are one brief to proposer=random, which reads nothing")
    assert told in page.to_text(held), "the page says it, too"
    knobs = root.parent / "knobs.md"
    knobs.write_text("---\nknobs: LEVEL\n---\n# Of some knobs\n")
    words = [str(root.parent / "good.md"), str(knobs)]
    for proposer in ("random", "optuna", "anthropic", "portfolio"):
        plan = make_plan(words, [*briefs.INNER, f"proposer={proposer}"], Repository(root), 3, None)
        assert not Contest.begin(root / f"runs/{proposer}", plan).alike
    replayed = [*briefs.INNER, "proposer=replay", "proposer.path=x"]
    plan = make_plan(words, replayed, Repository(root), 3, None)
    assert Contest.begin(root / "runs/replayed", plan).alike == (("good", "knobs"),)


def test_a_folder_with_brief_md_is_one_brief(root: Path) -> None:
    org = root.parent / "many/org"
    org.mkdir(parents=True)
    (org / "brief.md").write_text("# Together\n")
    (org / "critic.md").write_text("Be strict.\n")
    (root.parent / "many/alone.md").write_text("# Alone\n")
    text = "# Together\n\n<!-- role: critic -->\nBe strict.\n"
    assert read_briefs([str(org)]) == (("org", text),)
    assert read_briefs([str(org.parent)]) == (("alone", "# Alone\n"), ("org", text))
    (org / "judge.md").write_text("?")
    with pytest.raises(UserError, match="no role 'judge'"):
        read_briefs([str(org)])


@pytest.mark.soak
def test_what_roles_add_is_measured_by_a_contest_and_contests_are_compared(
    root: Path, server: briefs.Researcher
) -> None:
    org = root.parent / "org"
    org.mkdir()
    (org / "brief.md").write_text(briefs.brief(0.1))
    (org / "scout.md").write_text("Step: 0.5")
    (root.parent / "alone.md").write_text(briefs.brief(0.1))
    common = [*briefs.INNER, *briefs.model(server.url), "experiments=1"]
    said = inside(root, "contest", str(org), str(root.parent / "alone.md"), *common, "name=roles")
    assert "org is better than every other brief: this is established at 95%" in said
    page_text = (root / "runs/roles/contest.html").read_text()
    assert "scout: " in page_text and "role: scout" in page_text
    words = [str(root.parent / f"{name}.md") for name in ("good", "poor")]
    inside(root, "contest", *words, *common, "name=c", "--rounds", "2")
    told = inside(root, "compare", "roles", "c")
    for label in ("roles: org", "roles: alone", "c: good", "c: poor"):
        assert label in told
    assert "Contest roles: org is better" in told and "Contest c: Which brief is the best is not" in told


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
