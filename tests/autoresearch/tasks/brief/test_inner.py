"""Inner searches are named by what they are, run once, resumed, capped in dollars, and read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.config.roles import joined
from autoresearch.errors import UserError
from autoresearch.store.git.repository import Repository
from autoresearch.store.journal import Journal
from autoresearch.tasks.brief import inner, process
from autoresearch.tasks.brief.inner import Inner, Searches
from autoresearch.tasks.brief.result import read_result
from autoresearch.tasks.brief.settings import Spend, cap, check_settings
from tests.support import briefs, toy_task
from tests.support.stub import git

SPEND = Spend(experiments=2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = briefs.repository(tmp_path / "repo", brief=briefs.brief(0.3))
    monkeypatch.chdir(made)
    return made


def searches(
    root: Path, server: briefs.Researcher, dollars: float | None = None, each: float | None = None
) -> Searches:
    settings = (*briefs.INNER, *briefs.model(server.url))
    made = Searches(root / "runs/x/inner", root / "runs/cache", settings, Spend(2, None, each), dollars)
    repository = Repository(root)
    made.prepare(lambda folder: repository.export(repository.resolve("HEAD") or "", (".",), folder))
    return made


@pytest.mark.slow
def test_an_inner_search_gains_what_its_brief_is_worth_and_is_run_once(
    root: Path, server: briefs.Researcher
) -> None:
    found, head = searches(root, server), git(root, "for-each-ref")
    good, poor = (found.run(found.inner(briefs.brief(step), seed=7)) for step in (0.3, None))
    assert good.gain == pytest.approx(0.06, abs=0.02) and good.kept == 2 and not good.void
    assert (poor.gain, poor.kept, poor.tried) == (0.0, 0, 2) or poor.gain < 0.01
    assert good.dollars > 0 and good.experiments[1].proposal is not None
    asked = len(server.requests)
    assert found.run(found.inner(briefs.brief(0.3), seed=7)) == good and len(server.requests) == asked
    assert git(root, "for-each-ref") == head, "the user's repository gets none of its commits"
    assert found.spent() == pytest.approx(good.dollars + poor.dollars)


@pytest.mark.slow
def test_a_brief_with_roles_is_followed_and_each_role_is_paid(root: Path, server: briefs.Researcher) -> None:
    roles = {"scout": "Step: 0.5", "critic": "Be bold."}
    made = Searches(
        root / "runs/x/inner", root / "runs/cache", (*briefs.INNER, *briefs.model(server.url)), Spend(1)
    )
    repository = Repository(root)
    made.prepare(lambda folder: repository.export(repository.resolve("HEAD") or "", (".",), folder))
    done = made.run(made.inner(joined({"brief": briefs.brief(0.1), **roles}), seed=7))
    assert done.gain > 0.03, "the scout's step is taken, not the smaller one of the brief"
    calls = {role: cost.calls for role, cost in done.roles.items()}
    assert calls["scout"] >= 1 and calls["critic"] >= 1 and calls["proposer"] == 2 * calls["critic"]
    assert sum(cost.dollars for cost in done.roles.values()) == pytest.approx(done.dollars)


def test_another_starting_point_is_a_patch_of_the_files(root: Path, tmp_path: Path) -> None:
    made = Searches(tmp_path / "inner", tmp_path / "cache", ("task=toy",), SPEND)
    export = Repository(root).export
    head = Repository(root).resolve("HEAD") or ""
    (root / toy_task.PATH).write_text(toy_task.SCRIPT.replace("LEVEL = 1.0", "LEVEL = 0.5"))
    patch = git(root, "diff") + "\n"
    made.prepare(lambda folder: export(head, (".",), folder), {"low": patch})
    made.prepare(lambda folder: pytest.fail("once is enough"), {"low": patch})
    assert "LEVEL = 0.5" in (made.code("low") / toy_task.PATH).read_text()
    assert "LEVEL = 1.0" in (made.code() / toy_task.PATH).read_text()
    assert made.inner("# B", 1, start="low").name != made.inner("# B", 1).name
    with pytest.raises(UserError, match="cannot be made"):
        made.prepare(lambda folder: export(head, (".",), folder), {"odd": patch.replace("1.0", "7.0")})


def test_how_a_model_is_reached_is_no_part_of_the_name_and_takes_the_place_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("task=toy", "claim=2", "proposer=anthropic", "proposer.base_url=http://old")
    before, now = (
        Searches(tmp_path / "inner", tmp_path / "cache", settings, SPEND, connection=connection)
        for connection in ((), ("proposer.base_url=http://new", "proposer.retries=1"))
    )
    one = now.inner("# B", 1)
    assert one.name == before.inner("# B", 1).name
    given: list[str] = []
    monkeypatch.setattr(
        process, "run_search", lambda code, overrides, log, tick: given.extend(overrides) or 1
    )
    now.folder.mkdir()
    (now.folder / f"{one.name}.log").touch()
    with pytest.raises(UserError, match="did not come to its end"):
        now.run(one)
    assert [o for o in given if "base_url" in o or "retries" in o] == list(now.connection)
    assert "earlier_noise=false" in given, "no inner search learns from another"
    for more in ("proposer=openai", "proposer.base_url=http://third"):
        reached = now.inner("# B", 1, [more]).connection
        assert "proposer.base_url=http://new" not in reached, "what differs elsewhere stays so"


@pytest.mark.slow
def test_one_that_was_stopped_goes_on(
    root: Path, server: briefs.Researcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searches(root, server)
    one = found.inner(briefs.brief(0.3), seed=1)

    def half(code: Path, overrides: list[str], log: Path, tick: Callable[[], None]) -> int:
        short = [*(o for o in overrides if not o.startswith("experiments")), "experiments=1"]
        return briefs.run_here(code, short, log, tick, claims=False)

    with monkeypatch.context() as patch:
        patch.setattr(process, "run_search", half)
        patch.setattr(inner, "ATTEMPTS", 1)
        (found.folder / f"{one.name}.log").write_text("it was tired")
        with pytest.raises(UserError, match=r"did not come to its end. It said last:\nit was tired"):
            found.run(one)
    asked = len(server.requests)
    assert asked >= 1 and found.result(one) is None
    done = found.run(one)
    assert done.tried == 2 and done.gain > 0.03 and len(server.requests) - asked <= 2


@pytest.mark.slow
def test_the_common_cap_holds_before_anything_is_run(root: Path, server: briefs.Researcher) -> None:
    found = searches(root, server, dollars=1.5, each=1.0)
    first = found.run(found.inner(briefs.brief(0.3), seed=1))
    assert 0 < first.dollars < 0.5 and found.affords(1) and not found.affords(2)
    with closing(Journal(found.folder / first.name / "journal.db")) as journal:
        journal.update(finished=None)
    found = searches(root, server, dollars=1.5, each=1.0)
    assert found.spent() == 1.0, "what has not ended counts with its cap"
    asked = len(server.requests)
    with pytest.raises(UserError, match=r"could break the cap of 1.5 dollars: 1 are spent or reserved"):
        found.run(found.inner(briefs.brief(0.3), seed=2))
    assert len(server.requests) == asked
    assert found.run(found.inner(briefs.brief(0.3), seed=1)).tried == 2, "it may end what it has begun"


def test_the_time_of_all_its_processes_counts(tmp_path: Path) -> None:
    found = Searches(tmp_path, tmp_path / "cache", ("task=toy",), Spend(3, minutes=2.0))
    one = found.inner("# B", 0)
    assert "minutes=1.5" in found._overrides(one, tmp_path / "b.md", 30.0)
    assert "minutes=0.001" in found._overrides(one, tmp_path / "b.md", 900.0)


@given(st.text(), st.text(), st.integers(0, 99), st.integers(0, 99))
def test_names_tell_searches_apart(one: str, other: str, a: int, b: int) -> None:
    names = {Inner(text, seed, ("x=1",), SPEND).name for text, seed in ((one, a), (other, b))}
    assert len(names) == len({(one, a), (other, b)})
    assert Inner(one, a, ("x=2",), SPEND).name not in names
    assert Inner(one, a, ("x=1",), Spend(3)).name not in names


def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy_task.install(monkeypatch, tmp_path / "site")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    for settings, said in (
        (("experiments=3",), "cannot be set here"),
        (("task=brief",), "cannot be one of briefs"),
        (("claim=0",), "needs a claim"),
    ):
        with pytest.raises(UserError, match=said):
            check_settings((*settings, "executor.device=cpu"), SPEND)


def test_what_one_inner_search_can_cost() -> None:
    assert cap(("proposer=optuna",), Spend(1, dollars=3.0)) == 0.0
    assert cap(("proposer=anthropic",), Spend(1)) == 10.0
    assert cap(("proposer=anthropic",), Spend(1, dollars=3.0)) == 3.0
    assert cap(("proposer=openai",), Spend(1)) is None
    assert cap(("proposer=openai", "proposer.max_dollars=1", "proposer.fallback=anthropic"), Spend(1)) == 11
    with pytest.raises(UserError, match="one model"):
        cap(("proposer=portfolio",), Spend(1, dollars=3.0))


def test_where_there_is_no_search_there_is_no_result(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
